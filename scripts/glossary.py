"""Write the table of the engine's parts into docs/glossary.md, from the first sentence of each class.

A test compares the two; run it as ``python scripts/glossary.py``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "glossary.md"
HEADING = "## The engine's parts"
_PREFACE = """
Every public class of `engine`, as its own first sentence says it; written by `python scripts/glossary.py`.

| class | file | what it is |
|---|---|---|
"""


def parts() -> str:
    """The section, heading and all."""
    return f"{HEADING}\n{_PREFACE}" + "".join(sorted(_rows(), key=str.lower))


def _rows() -> list[str]:
    rows = []
    for file in sorted((ROOT / "src" / "mailpoller" / "engine").glob("*.py")):
        classes = (one for one in ast.parse(file.read_text("utf-8")).body if isinstance(one, ast.ClassDef))
        rows += [
            f"| `{one.name}` | `{file.name}` | {sentence(ast.get_docstring(one) or '')} |\n"
            for one in classes
            if not one.name.startswith("_")
        ]
    return rows


def sentence(docstring: str) -> str:
    """The first sentence, in one line, without the marks of reStructuredText."""
    line = " ".join(docstring.partition("\n\n")[0].split())
    line = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", line).replace("``", "`")
    first = re.match(r".*?[.](?= |$)", line)
    return (first[0] if first else line).replace("|", "\\|")


def main() -> None:
    """Write it."""
    page = PAGE.read_text("utf-8").partition(HEADING)[0].rstrip()
    PAGE.write_text(f"{page}\n\n{parts()}", "utf-8")


if __name__ == "__main__":
    main()
