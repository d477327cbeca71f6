"""Who asks for a reload: SIGHUP, or an operator at the control socket; one at a time, and what came of the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import structlog

from mailpoller.assembly.reload import Reload
from mailpoller.assembly.reloaded import Reloaded
from mailpoller.config import Config
from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.health import Health
from mailpoller.engine.notify import Notifier

log = structlog.get_logger(__name__)

ANSWER_WITHIN_S = 30.0
"""Whoever asks is answered within this, if need be that it goes on: the control socket has a deadline of its own."""
REMEMBERED = 16
"""Reloads that can still be asked about."""


class Reloader:
    """Carries out reloads while the service runs; systemd is told when one begins and ends.

    ``last`` is what came of the last one that was no dry run. ``after`` is given what holds after each of those.
    """

    def __init__(
        self,
        reload: Reload,
        health: Health,
        notifier: Notifier,
        *,
        after: Callable[[Config], Awaitable[None]] | None = None,
    ) -> None:
        self.last: Reloaded | None = None
        self._reload = reload
        self._health = health
        self._notifier = notifier
        self._after = after
        self._turn = asyncio.Lock()
        self._group: TaskGroup | None = None
        self._asked = False
        self._reloads: dict[int, asyncio.Future[Reloaded]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._number = 0

    async def run(self, ended: asyncio.Event) -> None:
        """Be there until ``ended``. What is under way then is given up: the process ends."""
        await self._reload.begin()
        async with TaskGroup() as group:
            self._group = group
            if self._asked:
                self.hung_up()
            await ended.wait()
            self._group = None
            for task in self._tasks.values():
                task.cancel()

    def hung_up(self) -> None:
        """SIGHUP. One that comes while a reload is under way, or before the service runs, is heeded afterwards, and
        several of them once."""
        if self._group is None or any(not one.done() for one in self._reloads.values()):
            self._asked = True
            return
        self._asked = False
        self._begin(dry_run=False, remove=())

    async def handle(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The verb ``reload``: ``dry_run`` and ``remove``, or the ``number`` of one that was begun. Its outcome is
        ``running`` if it is not through yet. Raises :class:`LedgerUnavailable`."""
        number = request.get("number")
        if number is None:
            remove = [str(name) for name in request.get("remove") or ()]
            number = self._begin(dry_run=bool(request.get("dry_run")), remove=remove)
        found = self._reloads.get(int(number))
        if found is None:
            raise TransientError("of this reload nothing is known: the service was started since")
        done, _ = await asyncio.wait((found,), timeout=ANSWER_WITHIN_S)
        if found.cancelled():
            raise TransientError("the service stops")
        return {"number": number, **(found.result().told() if done else {"outcome": "running"})}

    def report(self) -> Mapping[str, Any]:
        """What ``status`` shows: the files that hold, and what came of the last reload."""
        return {"configuration": None if self.last is None else self.last.told()}

    def _begin(self, *, dry_run: bool, remove: Collection[str]) -> int:
        if self._group is None:
            raise TransientError("the service is starting, or stops: nothing is reloaded now")
        self._number += 1
        future = self._reloads[self._number] = asyncio.get_running_loop().create_future()
        self._reloads.pop(self._number - REMEMBERED, None)
        self._tasks = {number: task for number, task in self._tasks.items() if not task.done()}
        work = self._carry_out(future, dry_run=dry_run, remove=remove)
        self._tasks[self._number] = self._group.create_task(work, name=f"reload {self._number}")
        return self._number

    async def _carry_out(self, future: asyncio.Future[Reloaded], *, dry_run: bool, remove: Collection[str]) -> None:
        try:
            async with self._turn:
                report = await (self._reload.run(dry_run=True, remove=remove) if dry_run else self._anew(remove))
            future.set_result(report)
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:
            if not isinstance(error, MailpollerError):
                log.exception("reload.crashed", part="all of it")
                error = MailpollerError(f"the reload failed: {type(error).__name__}; the daemon's log has more")
            log.error("reload.failed", reason=str(error))
            future.set_exception(error)
            future.exception()  # whoever asked may be gone
        if self._asked:
            self.hung_up()

    async def _anew(self, remove: Collection[str]) -> Reloaded:
        self._notifier.reloading()
        try:
            report = self.last = await self._reload.run(remove=remove)
            if self._after is not None:
                await self._after(self._reload.holding)
        finally:
            self._notifier.ready()
        self._health.notice = "" if report.well else "the configuration on disk is not the one that holds"
        for problem in report.told()["problems"]:
            if problem["severity"] == "error":
                log.error("config.wrong", reason=problem["text"])
            else:
                log.warning(
                    "config.doubtful",
                    file=problem["file"], line=problem["line"], path=problem["path"], reason=problem["message"],
                )  # fmt: skip
        for reason in (*report.refusals, *report.failed):
            log.error("reload.refused", reason=reason)
        for part in report.restart:
            log.warning("reload.incomplete", part=part, reason="needs a restart")
        log.info("config.reloaded", outcome=report.outcome, changes=len(report.changes), parts=len(report.parts))
        return report
