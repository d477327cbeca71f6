"""What a program's end says of the message it was given: the codes of sysexits.h, and those of a shell."""

from __future__ import annotations

import signal
from typing import Literal

from mailpoller.sinks.command.process import Ended

Verdict = Literal["taken", "queue", "message", "again"]
"""``queue``: no other message would fare better. ``message``: it is refused for good. ``again``: nobody can tell
yet."""

NAMES = {
    64: "EX_USAGE",
    65: "EX_DATAERR",
    66: "EX_NOINPUT",
    67: "EX_NOUSER",
    68: "EX_NOHOST",
    69: "EX_UNAVAILABLE",
    70: "EX_SOFTWARE",
    71: "EX_OSERR",
    72: "EX_OSFILE",
    73: "EX_CANTCREAT",
    74: "EX_IOERR",
    75: "EX_TEMPFAIL",
    76: "EX_PROTOCOL",
    77: "EX_NOPERM",
    78: "EX_CONFIG",
    126: "cannot be executed",
    127: "not found",
}
_OF_THE_QUEUE = frozenset((64, 66, 69, 72, 77, 78, 126, 127))
_OF_THE_MESSAGE = frozenset((65, 67, 68))


def verdict(ended: Ended) -> Verdict:
    """The one that the end asks for."""
    if ended.how != "exited":
        return "again"
    if ended.code == 0:
        return "taken"
    if ended.code in _OF_THE_QUEUE:
        return "queue"
    return "message" if ended.code in _OF_THE_MESSAGE else "again"


def in_words(ended: Ended) -> str:
    """How it ended, and what it said last: one line."""
    match ended.how:
        case "exited":
            name = NAMES.get(ended.code)
            told = f"the program exited with {ended.code}" + (f" ({name})" if name else "")
        case "signalled":
            try:
                told = f"the program was killed by {signal.Signals(ended.code).name}"
            except ValueError:
                told = f"the program was killed by signal {ended.code}"
        case "timed-out":
            told = f"the program was killed: no end within {ended.elapsed_s:.0f} s"
        case "stopped":
            told = "the program was killed: nobody waits for it any more"
    return f"{told}: {ended.words}" if ended.words else told
