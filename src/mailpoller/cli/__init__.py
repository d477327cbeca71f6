"""The command line: one file per verb."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script ``mailpoller``. Never returns: every way to end is an exit code of :mod:`mailpoller.cli.exits`."""
    _import_structlog()
    from mailpoller.cli.exits import exit_code
    from mailpoller.cli.program import program

    sys.exit(exit_code(program))


def _import_structlog() -> None:
    """Import it without rich, which it would load, if it is installed, for tracebacks of a kind that we never print: 35 ms."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
