"""Every public word, one a line: what configurations, consumers, monitors and scripts may rely on.

    words.py           add the words that are new to tests/words.txt
    words.py --drop    take away those that are no more, too: a change that somebody's files must follow (CHANGELOG.md)

A test compares the file with what there is now. Keys, verbs and log events are read from the pages of `docs/` that
other tests hold to the code.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "words.txt"


def words() -> set[str]:
    """All that is public now."""
    return {*_config(), *_verbs(), *_logged(), *_event(), *_entry_points(), *_exit_codes(), *_alarms()}


def recorded() -> set[str]:
    """What was public before."""
    return set(RECORD.read_text("utf-8").splitlines()) if RECORD.exists() else set()


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def _config() -> Iterator[str]:
    section = ""
    for line in _page("reference.md").splitlines():
        if line.startswith("#"):
            section = line.strip("# ").lower()
        elif found := re.match(r" *- \*\*`([^`]+)`\*\*", line):
            yield f"config: {section}: {found[1]}"


def _verbs() -> Iterator[str]:
    verb = ""
    for line in _page("cli.md").splitlines():
        if line.startswith("## "):
            # Without its arguments, which may become more, or optional.
            verb = " ".join(takewhile(str.islower, line.strip("#` ").split()))
            yield f"verb: {verb}"
        elif verb:
            yield from (f"verb: {verb}: {option}" for option in re.findall(r"^(?:- |\| )?`?(--[a-z][a-z-]+)", line))


def _logged() -> Iterator[str]:
    for name, _, keys in re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \| ([^|]*) \|", _page("log-events.md"), re.MULTILINE):
        yield f"log: {name}"
        yield from (f"log: {name}: {key}" for key in re.findall(r"`([^`]+)`", keys))


def _event() -> Iterator[str]:
    schema = json.loads((ROOT / "src/mailpoller/mail/event.schema.json").read_text("utf-8"))
    yield from (f"event: {path}" for path in _properties(schema))


def _properties(schema: Any, path: str = "") -> Iterator[str]:
    if isinstance(schema, list):
        for one in schema:
            yield from _properties(one, path)
    elif isinstance(schema, dict):
        for name, inner in schema.items():
            if name == "properties" and isinstance(inner, dict):
                for key, one in inner.items():
                    yield f"{path}{key}"
                    yield from _properties(one, f"{path}{key}.")
            elif name == "$defs" and isinstance(inner, dict):
                for key, one in inner.items():
                    yield from _properties(one, f"{key}: ")
            else:
                yield from _properties(inner, path)


def _entry_points() -> Iterator[str]:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    yield from (f"entry point: {group}: {name}" for group, names in groups.items() for name in names)


def _exit_codes() -> Iterator[str]:
    section = _page("operations.md").partition("## Exit codes")[2].partition("\n## ")[0]
    yield from (f"exit code: {code}" for code in re.findall(r"^\| `?(\d+)`? ", section, re.MULTILINE))


def _alarms() -> Iterator[str]:
    from mailpoller.engine.alarm_kinds import Kind

    yield from (f"alarm: {kind.value}" for kind in Kind)


def main() -> None:
    """Write the record."""
    kept = words() if "--drop" in sys.argv[1:] else words() | recorded()
    RECORD.write_text("".join(f"{word}\n" for word in sorted(kept)), "utf-8")


if __name__ == "__main__":
    main()
