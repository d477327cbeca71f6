"""The outside programs, as the table ``scripts/programs`` names them. The scripts install what it says; nothing else
names a package."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).resolve().parents[2] / "scripts" / "programs"


class Program(NamedTuple):
    """A row of the table."""

    name: str
    proofs: tuple[str, ...]
    packages: tuple[str, ...]
    wanted_for: str


def rows(text: str) -> list[Program]:
    """The table in ``text``. Raises ValueError for a line that is no row of four columns."""
    found = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, proofs, packages, wanted_for = line.split()
        found.append(Program(name, tuple(proofs.split(",")), tuple(packages.split(",")), wanted_for))
    return found


PROGRAMS = {row.name: row for row in rows(TABLE.read_text("utf-8"))}


def found(name: str) -> str | None:
    """Where the program is: beside this Python, in Debian's ``/usr/lib`` (PATH may have a wrapper that wants to be
    root), on PATH, else the file that proves it. None if it is nowhere. KeyError if the table lacks it."""
    row = PROGRAMS[name]
    below = os.environ.get("COURIER_ROOT", "/") if row.wanted_for == "unpacked" else "/"
    proofs = [path for proof in row.proofs if (path := Path(below, proof)).exists()]
    first = [Path(sys.executable).with_name(name), *(path for path in proofs if path.is_relative_to("/usr/lib"))]
    here = next((str(path) for path in first if path.exists()), None)
    return here or shutil.which(name) or next(map(str, proofs), None)


def find(name: str) -> str:
    """As :func:`found`. Raises RuntimeError with the package that is missing."""
    where = found(name)
    if where is None:
        raise RuntimeError(f"these tests start a real {name} and there is none: Debian has it in {lacking(name)}")
    return where


def lacking(name: str) -> str:
    """The packages that bring the program on Debian."""
    return " ".join(PROGRAMS[name].packages)
