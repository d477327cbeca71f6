"""Structured logs: JSON lines when nobody watches, readable lines on a terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from io import StringIO
from typing import Any, BinaryIO, Literal, TextIO, cast

import orjson
import structlog

from mailpoller.cli.journald import PRIORITIES, JournalLoggerFactory, is_ours
from mailpoller.cli.output import seen
from mailpoller.cli.terminal import Lines, Terminal, Unfailing

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def readable(form: Format) -> bool:
    """True if the log is for eyes, not for programs."""
    return form == "console" or (form == "auto" and sys.stderr.isatty())


def configure(level: Level, form: Format, terminal: Terminal | None = None) -> None:
    """Set up logging for the whole process, to standard error; on ``terminal`` if a readable log shares it with others.

    Tracebacks never show local variables, which may hold secrets or mail. Libraries speak from WARNING up, whatever
    ``level`` says: at DEBUG some of them log what goes over the wire. To log never raises.
    """
    plain = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    if readable(form):
        shared: list[Any] = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            _visible,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"),
                exception_formatter=_traceback,
                sort_keys=False,
                timestamp_key="at",
            ),
        ]
        factory: Any = structlog.WriteLoggerFactory(cast(TextIO, terminal or Unfailing(sys.stderr)))
    else:
        lines = cast(BinaryIO, Lines(sys.stderr.buffer))
        journal = form == "auto" and is_ours()
        shared = [_with_traceback(plain), _entry if journal else _line]
        factory = JournalLoggerFactory(lines) if journal else structlog.BytesLoggerFactory(lines)
    bound = structlog.make_filtering_bound_logger(_LEVELS[level])
    structlog.configure(
        processors=shared,
        wrapper_class=_quick(bound) if shared[-1] is _line and _LEVELS[level] <= _LEVELS["info"] else bound,
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Library()]
    root.setLevel(logging.WARNING)


def _quick(bound: type[Any]) -> type[Any]:
    """``bound``, whose INFO lines take no way round: every message has one, and that is half of what it costs."""

    class Quick(bound):  # type: ignore[misc]
        def info(self, event: str, *words: Any, **told: Any) -> Any:
            if words or self._context or "exc_info" in told:
                return super().info(event, *words, **told)
            told["event"] = event
            return self._logger.msg(_line(None, "info", told))

    return Quick


def _visible(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog quotes a text for its blanks and quotes alone: what else would steer the terminal is to be quoted
    too."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = _Quoted(value)
    return event


class _Quoted:
    """A text that is shown as Python would write it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _with_traceback(render: structlog.types.Processor) -> structlog.types.Processor:
    """``render`` for the few events that come with an exception."""

    def rendered(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        return render(logger, method, event) if "exc_info" in event else event

    return rendered


def _line(_: object, method: str, event: MutableMapping[str, Any]) -> bytes:
    """An event as a JSON object, with its name, level and instant first: what three processors of structlog do, at
    half the price."""
    told: dict[str, Any] = {"event": "", "level": "", "at": None, **event}
    told["level"] = "error" if method == "exception" else method
    told["at"] = datetime.now(UTC)
    try:
        line = orjson.dumps(told, default=str, option=orjson.OPT_UTC_Z)
        return line if line.isascii() else seen(line.decode()).encode()
    except (TypeError, ValueError):  # text that is no Unicode, from a file system's or a server's names
        told["at"] = told["at"].isoformat().replace("+00:00", "Z")
        return json.dumps(told, default=str).encode()


def _entry(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[bytes, int, str], dict[str, Any]]:
    """The same for the journal, with what it keeps beside the line."""
    mid = str(event.get("mid") or "")
    return (_line(logger, method, event), PRIORITIES.get(method, 6), mid), {}


def _traceback(sio: TextIO, exc_info: Any) -> None:
    """An exception's words may be a stranger's: what would steer the terminal is made visible."""
    held = StringIO()
    structlog.dev.plain_traceback(held, exc_info)
    sio.write(
        "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in held.getvalue())
    )


class _Library(logging.Handler):
    """Passes what libraries say through our own log, as ``library.logged``."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger(__name__).warning(
                "library.logged", library=record.name, severity=record.levelname.lower(), text=record.getMessage()
            )
        except Exception:
            self.handleError(record)
