"""What every command takes, and what every command prints first."""

from __future__ import annotations

import argparse
import sys

from rig.table import surroundings


def reader(documentation: str | None, *, repeat: int = 5) -> argparse.ArgumentParser:
    """A reader of arguments with ``--quick`` and ``--repeat``; ``options.repeat`` is None where nothing was said."""
    made = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--quick", action="store_true", help="a short run: fewer messages, one round; shows that it works"
    )
    if repeat:
        made.add_argument(
            "--repeat", type=int, metavar="N", help=f"rounds, in turn; medians are shown ({repeat}; quick 1)"
        )
        made.set_defaults(default_repeat=repeat)
    return made


def rounds(options: argparse.Namespace) -> int:
    """How often everything is done."""
    return int(options.repeat or (1 if options.quick else options.default_repeat))


def heading(title: str, *tools: str) -> None:
    """Print what follows and where it was measured."""
    print(f"### {title}\n\n{surroundings(*tools)}\n", flush=True)


def say(text: str) -> None:
    """A word about progress, for eyes only: the table is on standard output, this is not."""
    print(text, file=sys.stderr, flush=True)
