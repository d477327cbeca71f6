"""Exit codes of sysexits.h, and the one place where errors become them."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

import typer

from mailpoller.cli.output import one_line
from mailpoller.cli.streams import OutputLost, prepare_streams
from mailpoller.core.errors import (
    ConfigError,
    LedgerUnavailable,
    MailpollerError,
    MessageGone,
    TransientError,
    machine_trouble,
)
from mailpoller.core.extras import without

OK = 0
USAGE = 64
"""EX_USAGE: the command line is wrong."""
DATAERR = 65
"""EX_DATAERR: the input is wrong."""
NOINPUT = 66
"""EX_NOINPUT: what was asked for is not there."""
UNAVAILABLE = 69
"""EX_UNAVAILABLE: something that is needed is missing."""
SOFTWARE = 70
"""EX_SOFTWARE: a bug."""
IOERR = 74
"""EX_IOERR: what a verb had to say could not be written, or this machine has no memory, thread or file left."""
TEMPFAIL = 75
"""EX_TEMPFAIL: not now; try again later."""
CONFIG = 78
"""EX_CONFIG: the configuration cannot be used."""

DEBUG = "MAILPOLLER_DEBUG"
"""The variable that has a bug print its traceback."""

# The class of all that typer cannot understand; it comes along with typer, which does not export it.
_Misuse: type[Exception] = typer.BadParameter.__mro__[1]


def exit_code(program: Callable[..., object]) -> int:
    """Run the program and tell its exit code. Whatever it raises has become a line on standard error."""
    prepare_streams()
    lost: OSError | None = None
    try:
        code = program(prog_name="mailpoller", standalone_mode=False)
    except OutputLost as error:
        code, lost = OK, error
    except _Misuse as error:
        error.show()  # type: ignore[attr-defined]
        code = USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = 128 + signal.SIGINT
    except SystemExit:
        code = OK  # so typer ends when the reader of a pipe has seen enough
    except ModuleNotFoundError as error:
        if (error.name or "mailpoller").partition(".")[0] == "mailpoller":
            _explain_bug(error)
            code = SOFTWARE
        else:
            complain(f"this {without(error)}: see docs/install.md, extras")
            code = UNAVAILABLE
    except Exception as error:
        if (trouble := machine_trouble(error)) is not None:
            complain(trouble)
            code = IOERR
        else:
            _explain_bug(error)
            code = SOFTWARE
    return _flushed(int(code) if isinstance(code, int) else OK, lost)


@contextmanager
def explained() -> Iterator[None]:
    """Say what went wrong on standard error, a line a problem and no traceback, and exit with the fitting code."""
    try:
        yield
    except (MailpollerError, ExceptionGroup) as error:
        expected = expected_errors(error)
        if not expected:
            raise
        for line in dict.fromkeys(line for one in expected for line in _lines(one)):
            complain(line)
        raise typer.Exit(_code(expected[0])) from None


def expected_errors(error: Exception) -> list[MailpollerError]:
    """The errors that somebody raised on purpose, also out of a group of tasks; none if a bug is among them."""
    if isinstance(error, MailpollerError):
        return [error]
    if not isinstance(error, ExceptionGroup):
        return []
    parts = [expected_errors(one) for one in error.exceptions]
    return [one for part in parts for one in part] if all(parts) else []


def complain(line: str) -> None:
    """One line to standard error."""
    typer.echo(f"mailpoller: {one_line(line)}", err=True)


def refuse(line: str) -> NoReturn:
    """End: the command line names something that is not there, or asks for what makes no sense."""
    complain(line)
    raise typer.Exit(USAGE)


def _code(error: MailpollerError) -> int:
    if isinstance(error, ConfigError):
        return CONFIG
    if isinstance(error, MessageGone):
        return NOINPUT
    return TEMPFAIL if isinstance(error, (LedgerUnavailable, TransientError)) else DATAERR


def _lines(error: MailpollerError) -> list[str]:
    problems = getattr(error, "problems", ())
    return [f"{'warning: ' if one.severity == 'warning' else ''}{one}" for one in problems] or [str(error)]


def _explain_bug(error: Exception) -> None:
    """The kind and the place, never the words: nobody knows what an unforeseen error quotes."""
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
        return
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if "mailpoller" in Path(step.filename).parts and step.filename != __file__] or steps
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    complain(f"this is a bug: {type(error).__name__}{place}; {DEBUG}=1 shows the traceback")


def _flushed(code: int, lost: OSError | None) -> int:
    """Write out what is left while an error can still be told. ``lost``: why something could not be written before."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon(sys.stdout)
    except OSError as error:
        lost = lost or error
    if lost is not None:
        complain(f"standard output: {lost.strerror}")
        _abandon(sys.stdout)
        code = code or IOERR
    try:
        sys.stderr.flush()
    except OSError:
        _abandon(sys.stderr)
    return code


def _abandon(stream: TextIO) -> None:
    """What could not be written must not be tried again when the interpreter ends: its exit code would be that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
