"""Exit codes of sysexits.h, and the one place where errors become them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mailpoller.core.errors import ConfigError, LedgerUnavailable, MailpollerError, MessageGone, TransientError

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
TEMPFAIL = 75
"""EX_TEMPFAIL: not now; try again later."""
CONFIG = 78
"""EX_CONFIG: the configuration cannot be used."""


@contextmanager
def explained() -> Iterator[None]:
    """Say what went wrong on standard error, a line a problem and no traceback, and exit with the fitting code."""
    try:
        yield
    except ConfigError as error:
        for problem in getattr(error, "problems", ()) or (error,):
            complain(str(problem))
        raise typer.Exit(CONFIG) from None
    except MessageGone as error:
        complain(str(error))
        raise typer.Exit(NOINPUT) from None
    except (LedgerUnavailable, TransientError) as error:
        complain(str(error))
        raise typer.Exit(TEMPFAIL) from None
    except MailpollerError as error:
        complain(str(error))
        raise typer.Exit(DATAERR) from None
    except BrokenPipeError:
        # The reader of a pipe has seen enough.
        sys.stderr.close()
        raise typer.Exit(OK) from None


def complain(line: str) -> None:
    """One line to standard error."""
    typer.echo(f"mailpoller: {line}", err=True)
