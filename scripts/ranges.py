"""The requirements at one end of the ranges in pyproject.toml, one a line: ``latest`` or ``lowest``.

What is direct is taken at its end of the range; what comes with it is left to pip, which takes the newest that fits.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(end: str) -> list[str]:
    """Of the service, the tests and the build. Raises ValueError for a range without a lower bound."""
    read = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    project, groups = read["project"], read["dependency-groups"]
    ranges = {*project["dependencies"], *project["optional-dependencies"]["test"], *groups["build"]}
    return sorted(lowest(one) if end == "lowest" else one for one in ranges)


def lowest(requirement: str) -> str:
    """The range's lower end, with its marker. Raises ValueError if it has none."""
    found = re.fullmatch(r"([\w.\[\]-]+)>=([\w.]+)(,<[\w.]+)?( ?; ?.+)?", requirement)
    if found is None:
        raise ValueError(f"{requirement}: a range is written name>=lowest or name>=lowest,<first-that-is-too-new")
    return f"{found[1]}=={found[2]}{found[4] or ''}"


if __name__ == "__main__":
    print(*requirements(sys.argv[1]), sep="\n")
