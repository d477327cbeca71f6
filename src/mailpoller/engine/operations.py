"""What operators may ask of a running daemon, by verb."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from mailpoller import __version__
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import LedgerUnavailable, MailpollerError
from mailpoller.core.message import Folder, MessageRef
from mailpoller.core.ports import Ledger, QueueRecord, Standing
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.availability import State
from mailpoller.engine.control import Handler, who_of
from mailpoller.engine.health import Health
from mailpoller.engine.overdue import Overdue, stuck_report
from mailpoller.engine.pauses import EVERYTHING, Pauses
from mailpoller.engine.queues import Queue
from mailpoller.engine.recognised_blobs import RecognisedBlobs
from mailpoller.engine.recognition import BLOBS
from mailpoller.engine.release import Releases
from mailpoller.engine.watcher import Watcher

log = structlog.get_logger(__name__)

Decision = Literal["baseline", "replay", "absence"]
_DECISIONS: Mapping[str, Decision] = {"baseline": "baseline", "replay": "replay", "absence": "absence"}


_UNSAID = frozenset({"do", "who", "peer", "dry_run", "mids", "address", "outbox", "refs", "epoch", "further"})


def _is_dormant(queue: Queue) -> bool:
    """True of a quarantine that nothing is wrong with: every service has one."""
    return queue.name == QUARANTINE and queue.state is State.UP


class Operations:
    """Carries out requests from the control socket. Each takes the request and returns plain data.

    ``queues`` are those that are configured, ``own`` the quarantine and those that only its notices go to. ``more``:
    what else ``status`` tells.
    """

    def __init__(
        self,
        ledger: Ledger,
        health: Health,
        queues: Mapping[str, Queue],
        watchers: Mapping[str, Watcher],
        *,
        own: Mapping[str, Queue] | None = None,
        overdue: Overdue | None = None,
        alarm: Alarm | None = None,
        more: Callable[[], Mapping[str, Any]] = dict,
        pauses: Pauses | None = None,
        releases: Releases | None = None,
        blobs: RecognisedBlobs | None = None,
    ) -> None:
        self._ledger = ledger
        self._health = health
        self._queues = queues
        self._own = own if own is not None else {}
        self._watchers = watchers
        self._overdue = overdue
        self._alarm = alarm
        self._releases = releases
        self._blobs = blobs
        self._more = more
        self._pauses = pauses or Pauses()

    def handlers(self) -> dict[str, Handler]:
        """Verb -> what carries it out; what changes something is kept for ``mailpoller changes``."""
        changing = {
            "poll": self.poll,
            "accept": self.accept,
            "adopt-queue": self.adopt_queue,
            "forget": self.forget,
            "redeliver": self.redeliver,
            "clear-errors": self.clear_errors,
            "pause": self.pause,
            "resume": self.resume,
            "erase": self.erase,
            "backfill": self.backfill,
        }
        return {"status": self.status, **{verb: self.noted(verb, work) for verb, work in changing.items()}}

    def noted(self, verb: str, work: Handler) -> Handler:
        """``work``, which is kept for ``mailpoller changes`` once it is done, unless it was a dry run. That it cannot
        be kept undoes nothing, and is logged."""

        async def noted(request: Mapping[str, Any]) -> Mapping[str, Any]:
            answer = await work(request)
            if request.get("dry_run") or request.get("further") or request.get("number") is not None:
                return answer  # of what changes nothing, or of a backfill or reload that is kept already
            words = [f"{len(request['mids'])} messages"] if "mids" in request else []
            words += [f"{key} {value}" for key, value in request.items() if value and key not in _UNSAID]
            try:
                await self._ledger.record(f"verb.{verb}", who_of(request), ", ".join(words))
            except LedgerUnavailable as error:
                log.warning("change.unrecorded", verb=verb, reason=str(error))
            return answer

        return noted

    async def status(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """How everything fares; what only the ledger knows is left out when it cannot be read, and ``ledger_error``
        says why. Without ``counts`` the messages are not counted."""
        mailboxes = [entry | {"ledger": {}} for entry in self._health.report()]
        told: dict[str, Any] = {}
        alarms = [] if self._alarm is None else list(self._alarm.unrecorded)
        try:
            if request.get("counts", True):
                standings = await self._ledger.standings()
                for entry in mailboxes:
                    entry["ledger"] = asdict(standings.get(entry["mailbox"], Standing()))
            recorded = await self._ledger.alarms()
            known = {alarm.key for alarm in recorded}
            alarms = [*recorded, *(alarm for alarm in alarms if alarm.key not in known)]
        except LedgerUnavailable as error:
            told["ledger_error"] = str(error)
        told["alarms"] = [
            {"key": alarm.key, "summary": alarm.summary, "raised_at": alarm.raised_at.isoformat()} for alarm in alarms
        ]
        shown = [
            *self._queues.values(),
            *(queue for queue in self._own.values() if queue.concerns or not _is_dormant(queue)),
        ]
        queues = [
            {
                "queue": queue.name,
                "state": "paused" if queue.paused() else queue.state.value,
                "reason": queue.paused() or queue.reason or "; ".join(queue.concerns.values()),
                "vanished": queue.vanished,
                "concerns": dict(queue.concerns),
                "durability": None if (found := queue.durability) is None else asdict(found),
            }
            for queue in shown
        ]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._health.started_at.isoformat(timespec="seconds"),
            "line": self._health.line(),
            "mailboxes": mailboxes,
            "queues": queues,
            "stuck": [] if self._overdue is None else stuck_report(self._overdue.stuck),
            **told,
            **self._more(),
        }

    async def poll(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Poll a mailbox, or all of them, now, also if it is waiting out a failure. Those that are paused stay so."""
        watchers = list(self._watchers.values()) if request.get("all") else [self._watcher(request)]
        free = [one for one in watchers if not self._is_paused(one)]
        if not free and watchers:
            raise MailpollerError(self._why_paused(watchers[0]))
        for watcher in free:
            watcher.insist()
        return {"polled": len(free), "paused": len(watchers) - len(free)}

    async def pause(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Stop polling, or bringing mail to a queue, until it is resumed: ``what`` is ``mailbox NAME``, ``queue
        NAME``, ``host NAME`` or ``all``. What is in hand is finished."""
        what, who = str(request["what"]), who_of(request)
        kind, _, name = what.partition(" ")
        if what != EVERYTHING and not (kind in ("mailbox", "queue", "host") and name):
            raise MailpollerError(f"{what!r} is nothing that can be paused")
        hosts = {watcher.source.account.host for watcher in self._watchers.values()}
        if kind == "host" and hosts and name not in hosts:
            raise MailpollerError(f"no mailbox is at {name}; there is {', '.join(sorted(hosts))}")
        if not await self._ledger.pause(what, who):
            raise MailpollerError(f"{what} is paused already")
        log.info("operator.paused", what=what, who=who)
        await self._take_up_pauses()
        return {}

    async def resume(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Undo :meth:`pause`."""
        what, who = str(request["what"]), who_of(request)
        if not await self._ledger.resume(what):
            raise MailpollerError(f"{what} is not paused")
        log.info("operator.resumed", what=what, who=who)
        await self._take_up_pauses()
        return {}

    async def erase(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Forget a person's traces: ``mids``, and ``address``, which stands in what was noted, and in mail that was
        handed in. ``dry_run``: count the latter."""
        mids, address = [str(mid) for mid in request["mids"]], str(request.get("address") or "")
        mails, unsent = 0, 0
        if address and (request.get("dry_run") or request.get("outbox")):
            dry_run = bool(request.get("dry_run"))
            mails, unsent = await self._ledger.erase_outbox(address, count_only=dry_run)
        told = {"outbox": mails, "outbox_waiting": unsent}
        if request.get("dry_run"):
            return {"messages": 0, "notes": 0, **told}
        messages, notes = await self._ledger.erase(mids, address)
        log.info("messages.erased", messages=messages, notes=notes)
        return {"messages": messages, "notes": notes, **told}

    async def _take_up_pauses(self) -> None:
        """What the ledger has is what holds; whoever it concerns looks at once."""
        standing = dict(await self._ledger.pauses())
        watchers, queues = list(self._watchers.values()), [*self._queues.values(), *self._own.values()]
        before = [self._is_paused(one) for one in watchers], [bool(queue.paused()) for queue in queues]
        self._pauses.standing = standing
        for watcher, was in zip(watchers, before[0], strict=True):
            if self._is_paused(watcher) is not was:
                watcher.stir()
        for queue, was in zip(queues, before[1], strict=True):
            if was and not queue.paused():
                queue.resumed()

    def _is_paused(self, watcher: Watcher) -> bool:
        return bool(self._why_paused(watcher))

    def _why_paused(self, watcher: Watcher) -> str:
        return self._pauses.of_mailbox(watcher.mailbox, watcher.source.account.host, watcher.config.formerly)

    async def accept(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Decide about a held mailbox, or about absences: ``how`` is baseline, replay or absence."""
        how = _DECISIONS[request["how"]]
        name = str(request["mailbox"])
        released = await self._ledger.accept(name, how)
        if not released and how == "absence":
            raise MailpollerError(f"nothing that waits is absent from the mailbox {name}")
        if not released:
            raise MailpollerError(f"the mailbox {name} is not held")
        log.info("mailbox.accepted", mailbox=name, how=how, folders=released)
        if name in self._watchers:
            self._watchers[name].stir()
        return {"folders": released}

    async def adopt_queue(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take what lies in a vanished queue's place for the queue: how many receipts were noted of the one before,
        and when."""
        name = str(request["queue"])
        found = next((queue for queue in (*self._queues.values(), *self._own.values()) if name in _names(queue)), None)
        if found is not None:
            record = await found.adopt()
        elif name == BLOBS and self._blobs is not None:
            record = await self._adopt_blobs(self._blobs)
        elif (record := await self._ledger.adopt_queue(name)) is None:
            raise MailpollerError(f"the ledger knows no queue {name}: there is nothing to adopt")
        else:
            log.info("queue.adopted", queue=name, receipts=record.receipts)
        if record is None:
            return {"receipts": 0, "first_at": None, "last_at": None}
        first_at, last_at = (at.isoformat(timespec="seconds") for at in (record.first_at, record.last_at))
        return {"receipts": record.receipts, "first_at": first_at, "last_at": last_at}

    async def _adopt_blobs(self, blobs: RecognisedBlobs) -> QueueRecord | None:
        record = await blobs.adopt()
        log.info("queue.adopted", queue=BLOBS, receipts=record.receipts if record else 0)
        for queue in (*self._queues.values(), *self._own.values()):
            if queue.blobs is blobs:
                await queue.availability.adopted()
        return record

    async def forget(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Drop what the ledger holds of a mailbox that is no longer polled."""
        name = str(request["mailbox"])
        if name in self._watchers:
            raise MailpollerError(
                f"the mailbox {name} is being polled; remove it from the configuration and reload first"
            )
        if name not in await self._ledger.mailboxes():
            raise MailpollerError(f"the ledger knows no mailbox {name}")
        forgotten = await self._ledger.forget(name)
        log.info("mailbox.forgotten", mailbox=name, messages=forgotten)
        return {"messages": forgotten}

    async def redeliver(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Bring a settled message to its queues once more: at once from quarantine, if it is held there, or from the
        folder that it was moved to; else if its mailbox still has it where it was."""
        if self._releases is not None:
            found = await self._releases.redeliver(str(request["mid"]), who_of(request))
            if found is not None:
                return {"held": True, **dict(zip(("outcome", "detail", "found"), found, strict=True))}
        ref = await self._ledger.reopen(str(request["mid"]))
        log.info("message.reopened", mid=str(request["mid"]), mailbox=ref.folder.mailbox, uid=ref.uid)
        if ref.folder.mailbox in self._watchers:
            self._watchers[ref.folder.mailbox].stir()
        return {"mailbox": ref.folder.mailbox, "folder": ref.folder.name, "uid": ref.uid}

    async def backfill(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take some of what ``start`` left out in a folder: ``refs``, each a uid, a size and a date in seconds, as
        ``folder`` in ``epoch`` lists them. ``further``: the rest of a wish that is kept already."""
        watcher = self._watcher(request)
        if reason := self._why_paused(watcher):
            raise MailpollerError(reason)
        folder = Folder(watcher.mailbox, str(request["folder"]), str(request["epoch"]))
        refs = [
            MessageRef(folder, str(uid), size, None if at is None else datetime.fromtimestamp(at, UTC))
            for uid, size, at in request["refs"]
        ]
        taken = await self._ledger.take_up(refs)
        log.info("mailbox.backfilled", mailbox=watcher.mailbox, folder=folder.name, messages=taken)
        if taken:
            watcher.stir()
        return {"taken": taken}

    async def clear_errors(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Forget the faults of one subject, or of all."""
        subject = request.get("subject")
        return {"cleared": await self._ledger.clear_faults(None if subject is None else str(subject))}

    def _watcher(self, request: Mapping[str, Any]) -> Watcher:
        name = str(request["mailbox"])
        if name not in self._watchers:
            raise MailpollerError(f"no mailbox {name} is being polled")
        return self._watchers[name]


def _names(queue: Queue) -> tuple[str, ...]:
    return (queue.name,) if queue.recognition is None else (queue.name, queue.recognition.name)
