"""What verbs print: tables and fields for people, JSON for programs."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import typer


def print_json(value: Any) -> None:
    """One JSON document, indented on a terminal, one line in a pipe."""
    indent = 2 if sys.stdout.isatty() else None
    typer.echo(seen(json.dumps(value, indent=indent, ensure_ascii=False, default=plain)))


def seen(document: str) -> str:
    """JSON in which the characters that nobody sees, and that steer a terminal or turn a line around, are escaped as
    well."""
    return document if document.isascii() else _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


_UNSEEN = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def plain(value: Any) -> Any:
    """For ``json.dumps(default=…)``: instants in ISO 8601, lengths of time in seconds, all else as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else str(value)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table: drawn on a terminal, tab-separated with a header line in a pipe; ``empty`` is said if there are no
    rows."""
    lines = [[one_line(cell) for cell in row] for row in rows]
    if not lines:
        typer.echo(empty, err=True)
        return
    if not sys.stdout.isatty():
        typer.echo("\t".join(columns))
        for line in lines:
            typer.echo("\t".join(line))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        # As Text: a message's own words must not be taken for markup.
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)


def counted(number: int, noun: str) -> str:
    """``1 mailbox``, ``2 mailboxes``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("x") else "s")


@contextmanager
def tally(total: int, noun: str) -> Iterator[Callable[[int], None]]:
    """Tell on standard error how much is done: on a terminal as it goes, else once a minute; nothing where it is soon
    over. What was done when it ends early is told, too."""
    began = told_at = time.monotonic()
    terminal, done = sys.stderr.isatty(), 0

    def tell(now_done: int) -> None:
        nonlocal told_at, done
        done, now = now_done, time.monotonic()
        if now - began < 1 or now - told_at < (0.2 if terminal else 60):
            return
        told_at = now
        line = f"{done:,} of {counted(total, noun)}"
        typer.echo(f"\r\x1b[K{line}" if terminal else f"mailpoller: {line}", err=True, nl=not terminal)

    try:
        yield tell
    finally:
        if terminal and told_at > began:
            typer.echo("\r\x1b[K", err=True, nl=False)
        if done < total:
            typer.echo(f"mailpoller: ended after {done:,} of {counted(total, noun)}", err=True)


_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def age(since: str | datetime | None, now: datetime) -> str:
    """How long ago that was, in the largest unit of which there are two, or one of seconds: ``42 s``, ``90 min``,
    ``3 d``; ``never`` for nothing."""
    if since is None:
        return "never"
    then = datetime.fromisoformat(since) if isinstance(since, str) else since
    seconds = max(0, round((now - then).total_seconds()))
    size, unit = next((one for one in _UNITS if seconds >= 2 * one[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters; that something is left out is seen."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def coloured(text: str, colour: str) -> str:
    """``text`` in bold and colour, unless NO_COLOR is set; in a pipe the colour is dropped on the way out."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, fg=colour, bold=True)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values, a line each, without those that are empty."""
    shown = {name: one_line(value) for name, value in fields.items() if value not in (None, "", (), [], {})}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        typer.echo(f"{name:<{width}}  {value}")


def one_line(cell: Any) -> str:
    """A value on one line, with control characters made visible: they may come from a stranger's mail."""
    if isinstance(cell, datetime):
        return cell.isoformat(timespec="seconds")
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, dict):
        cell = ", ".join(str(key) if value in (None, "") else f"{key}: {value}" for key, value in cell.items())
    elif isinstance(cell, (list, tuple)):
        cell = ", ".join(str(part) for part in cell)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(cell))
