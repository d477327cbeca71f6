"""Runs mailpoller with a stopwatch on every callback of its event loop.

    stopwatch.py RESULT.json ARGUMENT...      as mailpoller ARGUMENT..., and then writes what the callbacks took

Processor time of the loop's thread, in milliseconds. The steps of the main task, which imports and opens everything
before the first mailbox is polled and then waits, are the start and counted apart. A second thread looks at a
callback that has lasted for 10 ms by the clock and then every 5 ms, and notes where it is, so that the longest have
not only a name but a place.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import sys
import threading
import time
from array import array
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

WORST = 8
LOOK_AFTER_S, LOOK_EVERY_S = 0.010, 0.005


class Stopwatch:
    """Times callbacks once :meth:`attach` was called."""

    def __init__(self) -> None:
        self.taken = array("d")
        """Seconds, one a callback."""
        self.longest_at_start = 0.0
        self._main: asyncio.Task[Any] | None = None
        self._worst: list[tuple[float, int, str, str]] = []
        self._began: float | None = None
        self._places: Counter[str] = Counter()
        self._thread = threading.get_ident()

    def attach(self) -> None:
        run, handle = asyncio.Handle._run, asyncio.Handle

        def timed(self_: asyncio.Handle) -> None:
            self._began = time.monotonic()
            began = time.thread_time()
            try:
                run(self_)
            finally:
                taken = time.thread_time() - began
                self._began = None
                self._record(taken, self_)

        handle._run = timed  # type: ignore[method-assign]
        threading.Thread(target=self._look, name="stopwatch", daemon=True).start()

    def _record(self, taken: float, handle: asyncio.Handle) -> None:
        owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
        if self._main is None and isinstance(owner, asyncio.Task):
            self._main = owner
        if owner is not None and owner is self._main:
            self.longest_at_start = max(self.longest_at_start, taken)
        else:
            self.taken.append(taken)
            if len(self._worst) < WORST or taken > self._worst[0][0]:
                self._note(taken, handle)
        if self._places:
            self._places.clear()

    def _note(self, taken: float, handle: asyncio.Handle) -> None:
        place = ", ".join(name for name, _ in self._places.most_common(2))
        entry = (taken, len(self.taken), _who(handle), place)
        (heapq.heappush if len(self._worst) < WORST else heapq.heappushpop)(self._worst, entry)

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            began = self._began
            if began is not None and time.monotonic() - began > LOOK_AFTER_S:
                frame = sys._current_frames().get(self._thread)
                if frame is not None and self._began == began:
                    self._places[_place(frame)] += 1

    def result(self) -> dict[str, Any]:
        ordered = sorted(self.taken)
        return {
            "callbacks": len(ordered),
            "start": self.longest_at_start * 1000,
            "p99": ordered[int(0.99 * len(ordered))] * 1000,
            "p999": ordered[int(0.999 * len(ordered))] * 1000,
            "longest": ordered[-1] * 1000,
            "above_10": sum(one > 0.010 for one in ordered),
            "worst": [
                {"ms": taken * 1000, "who": who, "where": place}
                for taken, _, who, place in sorted(self._worst, reverse=True)
            ],
        }


def _who(handle: asyncio.Handle) -> str:
    """The task whose step it was, and the coroutine that it had reached, or else the function."""
    callback = handle._callback  # type: ignore[attr-defined]
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        inner: Any = task.get_coro()
        while (awaited := getattr(inner, "cr_await", None)) is not None and hasattr(awaited, "cr_code"):
            inner = awaited
        return f"{task.get_name()}: {getattr(inner, '__qualname__', inner)}"
    return str(getattr(callback, "__qualname__", callback))


def _place(frame: FrameType | None) -> str:
    """The innermost function of mailpoller, and what it had called."""
    inner = _named(frame) if frame else ""
    while frame is not None and "/mailpoller/" not in frame.f_code.co_filename:
        frame = frame.f_back
    ours = _named(frame) if frame else ""
    return ours if ours == inner or not ours else f"{ours} > {inner}"


def _named(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{frame.f_lineno} {frame.f_code.co_qualname}"


def main() -> None:
    result = Path(sys.argv.pop(1))
    sys.path.pop(0)  # our own directory: its modules are none of mailpoller's business
    from mailpoller.cli import main as mailpoller

    watch = Stopwatch()
    watch.attach()
    try:
        mailpoller()
    finally:
        result.write_text(json.dumps(watch.result()))


if __name__ == "__main__":
    main()
