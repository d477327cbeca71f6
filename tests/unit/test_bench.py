"""The benchmarks can be run and read: every command explains itself, and the tables say what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
COMMANDS = sorted(path.name for path in BENCH.glob("*.py"))
PERFORMANCE = BENCH.parent / "docs" / "performance.md"

sys.path.insert(0, str(BENCH))

from rig import stacks  # noqa: E402
from rig.letters import letters  # noqa: E402
from rig.table import percent, percentile, spread, table  # noqa: E402


@pytest.mark.parametrize("command", COMMANDS)
def test_command_explains_itself_and_how_to_run_it(command: str) -> None:
    said = subprocess.run(
        [sys.executable, str(BENCH / command), "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(f"usage: {command}")
    assert len(said.stdout.splitlines()) > 8


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_in_the_page_about_performance(command: str) -> None:
    assert f"bench/{command}" in PERFORMANCE.read_text("utf-8")


def test_table_is_markdown_with_numbers_on_the_right() -> None:
    assert table(["what", "messages/s", "of it"], [["raw", 3127.4, "63 %"], ["a|b", 0.0421, ""]]) == (
        "| what | messages/s | of it |\n"
        "| ---- | ---------: | ----- |\n"
        "| raw  |      3,127 | 63 %  |\n"
        "| a\\|b |      0.042 |       |"
    )


def test_table_leaves_a_missing_number_empty_and_its_column_on_the_right() -> None:
    assert table(["n"], [[None], [12.34], [7]]).splitlines()[1:] == ["| ---: |", "|      |", "| 12.3 |", "|    7 |"]


def test_table_refuses_a_row_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        table(["a", "b"], [["x"]])


def test_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([5, 1, 4, 2, 3], 0.5) == 3
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_shares_and_spreads_read_as_people_write_them() -> None:
    assert percent(3, 4) == "75 %"
    assert percent(3, 0) == "-"
    assert spread([3000.4, 2900.0, 3105.0]) == "2,900 to 3,105"
    assert spread([1.0]) == ""


def test_no_two_messages_of_a_mailbox_are_equal_and_a_seed_gives_the_same_ones() -> None:
    first = list(letters("small", 250, user="support"))
    assert len(set(first)) == 250
    assert first == list(letters("small", 250, user="support"))
    assert 7_000 < sum(map(len, first)) / 250 < 9_000


def test_time_of_a_stack_belongs_to_the_innermost_part_of_ours_and_waiting_to_nobody() -> None:
    runner = "MainThread;run (asyncio/runners.py:1)"
    shown = stacks.summary(
        f"{runner};_judge (mailpoller/engine/batch_runner.py:9);parse (mailpoller/mail/parser.py:5);search "
        f"(re/__init__.py:2) 50\n{runner};select (selectors.py:468) 30\n"
        "sqlite-queue.db;_serve (mailpoller/storage/sqlite/database.py:7) 500\n"
        "sqlite-queue.db;_serve (mailpoller/storage/sqlite/database.py:7);_work "
        "(mailpoller/storage/sqlite/database.py:9) 50\n",
        messages=1000,
    )
    areas = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in shown.split("\n\n")[0].splitlines()[2:]}
    assert [cell.strip() for cell in areas["parser"]] == ["100", "0.000", "50 %"]
    assert [cell.strip() for cell in areas["commit"]] == ["0.000", "100", "50 %"]
    assert areas["main thread waits"][0].strip() == "60.0"
    assert "waiting" not in areas
