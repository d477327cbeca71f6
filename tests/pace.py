"""How slow this machine is now, so that a bound on processor time means the same on every machine."""

from __future__ import annotations

import re
import time

USUAL_S = 0.006
"""What :func:`_piece` takes on the machine for which the bounds are written."""


def paced(bound: float) -> float:
    """So many seconds of the machine for which bounds are written, in processor time of this one, as busy as it is:
    never fewer. A neighbour on the same core, or a slower clock, makes the same work take two or three times as long.
    """
    return bound * max(1.0, min(_piece() for _ in range(3)) / USUAL_S)


def _piece() -> float:
    """A little of what parsers do: numbers, text, patterns, lists."""
    began = time.process_time()
    found = [word for number in range(2_000) for word in re.split(r"[ ,;]+", f"Re: {number}, some; words") if word]
    table = {f"{word}{number}": number for number, word in enumerate(found)}
    total = 0
    for word, number in table.items():
        total += number + len(word.casefold())
    assert total
    return time.process_time() - began
