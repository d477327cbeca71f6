"""The real command, made to die: SIGKILL before, during or after the n-th call of one step of the batch runner.

``python -m scenarios.killer WHEN STEP N ARGUMENTS…`` runs ``mailpoller ARGUMENTS…``; WHEN is before, during (for
steps that yield: after the first item) or after; STEP is a method of a port, written ``ledger.claim``,
``session.fetch``, ``sink.deliver``, or ``parse``. The ports are wrapped where the engine is handed them, so that
every implementation is killed alike.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from typing import Any, NoReturn

from scenarios import later

POISON = b"X-Kills-The-Parser"


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("unreachable")


class Doom:
    """Counts the calls of the step that kills."""

    def __init__(self, when: str, step: str, number: int) -> None:
        self.when, self.step, self.left = when, step, number

    def due(self, when: str, step: str) -> bool:
        """True if the process must die now. Only ``before`` counts down, once for each call."""
        if step != self.step:
            return False
        if when == "before":
            self.left -= 1
        return self.left <= 0 and when == self.when


class Deadly:
    """A port's object all of whose methods may be the last."""

    def __init__(self, kind: str, wrapped: Any, doom: Doom) -> None:
        self._kind, self._wrapped, self._doom = kind, wrapped, doom

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if self._kind == "source" and name == "connect":
            return self._connect
        step = f"{self._kind}.{name}"
        if not callable(found) or step != self._doom.step:
            return found
        if inspect.isasyncgenfunction(found):
            return functools.partial(self._generate, step, found)
        return functools.partial(self._call, step, found)

    async def _connect(self) -> Any:
        return Deadly("session", await self._wrapped.connect(), self._doom)

    async def _call(self, step: str, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        if self._doom.due("before", step):
            die()
        result = await method(*arguments, **named)
        if self._doom.due("after", step):
            die()
        return result

    async def _generate(
        self, step: str, method: Callable[..., Any], *arguments: Any, **named: Any
    ) -> AsyncIterator[Any]:
        if self._doom.due("before", step):
            die()
        async for item in method(*arguments, **named):
            yield item
            if self._doom.due("during", step):
                die()
        if self._doom.due("after", step):
            die()


def arm(doom: Doom) -> None:
    """Put the wrappers where the engine is handed its ports."""
    from mailpoller.assembly import parts
    from mailpoller.engine import (
        acceptance,
        acknowledger,
        judge,
        operations,
        outgoing_events,
        postman,
        queues,
        release,
        watcher,
    )

    def wrap(owner: type, **kinds: str) -> None:
        original = owner.__init__

        @functools.wraps(original)
        def init(self: Any, *arguments: Any, **named: Any) -> None:
            bound = inspect.signature(original).bind(self, *arguments, **named)
            for name, kind in kinds.items():
                bound.arguments[name] = Deadly(kind, bound.arguments[name], doom)
            original(*bound.args, **bound.kwargs)

        owner.__init__ = init  # type: ignore[misc]

    wrap(queues.Queue, sink="sink")
    wrap(watcher.Watcher, source="source")
    wrap(acceptance.Acceptance, ledger="outbox")
    wrap(postman.Postman, ledger="outbox")
    wrap(outgoing_events.OutgoingEvents, ledger="outbox")
    wrap(acknowledger.Acknowledger, ledger="acknowledgements")
    wrap(operations.Operations, ledger="operator")
    wrap(release.Releases, store="quarantine", stories="stories")
    real_records = parts.records_of

    def records_of(*arguments: Any) -> Any:
        records = real_records(*arguments)
        ports = {one.name: Deadly("ledger", getattr(records, one.name), doom) for one in fields(records)}
        return replace(records, **ports)

    parts.records_of = records_of  # type: ignore[assignment]
    real_parse = judge.parse

    def parse(raw: Any) -> Any:
        if doom.due("before", "parse"):
            die()
        if doom.step == "poison" and POISON in raw.octets.head(4096):
            die()
        message = real_parse(raw)
        if doom.due("after", "parse"):
            die()
        return message

    judge.parse = parse


def main() -> None:
    when, step, number, *arguments = sys.argv[1:]
    later.leap()
    arm(Doom(when, step, int(number)))
    sys.argv = ["mailpoller", *arguments]
    from mailpoller.cli import main as mailpoller

    mailpoller()


if __name__ == "__main__":
    main()
