"""A value of the configuration that knows where it was written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mailpoller.config.problems import Problem, Severity

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}|<<")

Scalar = str | int | float | bool | None | date | bytes


@dataclass(slots=True)
class Node:
    """A value with the place where it was written: of its key, or of itself in a list. ``line`` and ``column`` count
    from 1."""

    value: dict[str, Node] | list[Node] | Scalar
    file: Path
    line: int
    column: int
    path: str

    def problem(self, message: str, severity: Severity = "error", *, key: str = "") -> Problem:
        """A problem at this place; ``key`` is one that is missing below it."""
        path = join(self.path, key) if key else self.path
        return Problem(self.file, self.line, self.column, path, message, severity)

    def place(self) -> str:
        """``config.yaml:12:5``, for a message that names a second place."""
        return f"{self.file}:{self.line}:{self.column}"

    def like(self, value: dict[str, Node] | list[Node] | Scalar) -> Node:
        """Another value at the same place."""
        return Node(value, self.file, self.line, self.column, self.path)

    @property
    def entries(self) -> dict[str, Node]:
        """The keys of a block; none if it is not a block."""
        return self.value if isinstance(self.value, dict) else {}


def plain(node: Node) -> Any:
    """The value alone, as dicts, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def join(path: str, key: str) -> str:
    """The path of a key below ``path``. A key that does not look like one may be a misplaced value: it is not shown."""
    shown = key if _PLAIN_KEY.fullmatch(key) else "…"
    return f"{path}.{shown}" if path else shown
