"""How long a file may be: one that holds one idea fits these bounds, and one that grows past them holds two."""

from __future__ import annotations

from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
LONGEST = 400
MEDIAN = 110


def lengths() -> dict[str, int]:
    """Lines by file, of all that is not a test."""
    files = [path for top in ("src", "bench", "scripts", "examples") for path in (ROOT / top).rglob("*.py")]
    assert len(files) > 500
    return {str(path.relative_to(ROOT)): path.read_bytes().count(b"\n") for path in files}


def test_no_file_is_longer_than_one_idea_takes() -> None:
    assert {name: lines for name, lines in lengths().items() if lines > LONGEST} == {}


def test_half_of_the_files_are_read_at_one_glance() -> None:
    of_the_package = [lines for name, lines in lengths().items() if name.startswith("src/")]
    assert median(of_the_package) <= MEDIAN
