"""The command line: one file per verb."""

from __future__ import annotations


def main() -> None:
    """The console script ``mailpoller``."""
    from mailpoller.cli.program import program

    program()
