"""The pages that compare queues leave none out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailpoller.config.registry import known

DOCS = Path(__file__).parents[2] / "docs"
SINKS = (DOCS / "sinks.md").read_text("utf-8")
WHICH = (DOCS / "which-queue.md").read_text("utf-8")


def rows(text: str, heading: str) -> set[str]:
    """The types that the first cells of the table below a heading name."""
    table = text.split(heading, 1)[1].split("\n\n|", 1)[1].split("\n\n", 1)[0]
    return {name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.strip("| ").split("|")[0])}


@pytest.mark.parametrize(
    ("text", "heading"),
    [(WHICH, "## Side by side"), (SINKS, "# Sinks"), (SINKS, "names the server's command that mends it")],
    ids=["side by side", "sinks", "durability"],
)
def test_every_type_of_queue_has_a_row(text: str, heading: str) -> None:
    assert rows(text, heading) == set(known("sinks"))


def test_every_type_of_queue_is_advised_for_something() -> None:
    advised = WHICH.split("## Side by side")[0]
    assert {name for name in known("sinks") if f"[`{name}`](" not in advised} == set()
