"""The command line: one file per verb."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script ``mailpoller``. Never returns: every way to end is an exit code of
    :mod:`mailpoller.cli.exits`."""
    from mailpoller.cli.exits import exit_code
    from mailpoller.cli.program import program

    sys.exit(exit_code(program))
