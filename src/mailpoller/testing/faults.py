"""What a test makes a part fail by, and when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class _Fault:
    error: BaseException | None
    times: int
    after: int


class Faults:
    """What goes wrong, by step.

    Steps: ``connect``, ``folders``, ``open`` (of any folder), ``open:NAME`` (of that one), ``survey``, ``look``,
    ``pending``, ``fetch`` (as it begins), ``fetch:N`` (instead of the Nth answer of a fetch, from 0), ``settle``
    (before anything is changed), ``settle:N`` (after N settlements were carried out), ``wait``, ``close``.
    """

    def __init__(self) -> None:
        self._planned: dict[str, list[_Fault]] = {}
        self.met: list[str] = []
        """The steps at which something did go wrong, in order."""

    def fail(self, step: str, error: BaseException, *, times: int = 1, after: int = 0) -> None:
        """Raise ``error`` at ``step``, ``times`` times, once it has gone well ``after`` times."""
        self._planned.setdefault(step, []).append(_Fault(error, times, after))

    def hang(self, step: str, *, times: int = 1, after: int = 0) -> None:
        """Never return from ``step``, until cancelled."""
        self._planned.setdefault(step, []).append(_Fault(None, times, after))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._planned.clear()

    async def at(self, step: str) -> None:
        """Called by the fake at each step."""
        planned = self._planned.get(step)
        if not planned:
            return
        fault = planned[0]
        if fault.after > 0:
            fault.after -= 1
            return
        fault.times -= 1
        if fault.times <= 0:
            planned.pop(0)
        self.met.append(step)
        if fault.error is None:
            await asyncio.Event().wait()
        else:
            raise fault.error
