"""What is wrong with a configuration, and where: one :class:`Problem` each, all of them in one error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from mailpoller.core.errors import ConfigError
from mailpoller.core.record import record

Severity = Literal["error", "warning"]


@record
class Problem:
    """One thing that is wrong (``error``: do not start) or doubtful (``warning``).

    ``line`` and ``column`` count from 1 and show the key, or the entry of a list. ``path`` is the place in the file's
    own keys (``mailboxes.support.tls``, ``rules[0].when``), empty for the file as a whole. ``message`` says what to
    do and never holds a value from the file, except names that refer to other blocks.
    """

    file: Path
    line: int
    column: int
    path: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: " + (f"{self.path}: " if self.path else "") + self.message

    def told(self) -> dict[str, str | int]:
        """As JSON has it."""
        return {
            "file": str(self.file),
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "severity": self.severity,
        }


class ConfigErrors(ConfigError):
    """Everything that is wrong with a configuration, at once: ``problems``, errors and warnings, in order of file and
    line. ``mailboxes``: how many are defined, as far as that could be read."""

    def __init__(self, problems: Sequence[Problem], *, mailboxes: int = 0) -> None:
        super().__init__("\n".join(str(problem) for problem in problems if problem.severity == "error"))
        self.problems = tuple(problems)
        self.mailboxes = mailboxes


def in_order(problems: Iterable[Problem], files: Sequence[Path]) -> tuple[Problem, ...]:
    """Each problem once, in the order in which ``files`` were read, then by line and column."""
    rank = {file: number for number, file in enumerate(files)}
    return tuple(
        sorted(
            dict.fromkeys(problems),
            key=lambda p: (rank.get(p.file, len(rank)), p.line, p.column, p.path, p.message),
        )
    )


def by_cause(problems: Iterable[Problem]) -> list[tuple[Problem, int]]:
    """The first problem of each cause, and how many there are of it: what is said of a thousand mailboxes in the same
    words is one thing to mend."""
    found: dict[tuple[str, str, str], list[Problem]] = {}
    for one in problems:
        found.setdefault((one.message, one.path.rpartition(".")[2], one.severity), []).append(one)
    return [(several[0], len(several)) for several in found.values()]


def did_you_mean(written: object, known: Iterable[str]) -> str:
    """``; did you mean "host"?`` if something known is close to what was written, else nothing."""
    if not isinstance(written, str):
        return ""
    candidates = {name.casefold(): name for name in known}
    close = get_close_matches(written.casefold()[:100], candidates, n=1, cutoff=0.6)
    return f'; did you mean "{candidates[close[0]]}"?' if close else ""


def either(options: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"
