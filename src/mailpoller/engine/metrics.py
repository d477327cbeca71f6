"""Figures for monitoring, in the text format of Prometheus (version 0.0.4).

Names and labels are an interface: docs/metrics.md, which a test compares. A label is a mailbox, a queue, a host or a
constant word; nothing that a stranger wrote is among them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Clock, Expiring, Mailboxes, Standing
from mailpoller.core.record import record
from mailpoller.core.tasks import within
from mailpoller.engine.budget import Budget
from mailpoller.engine.connections import Connections
from mailpoller.engine.health import Condition, Health, MailboxHealth
from mailpoller.engine.queues import Queue
from mailpoller.engine.watcher import Watcher

REST = 20
"""The ledger is asked again after so many times as long as its last answer took,"""
LEAST_REST_S = 10.0
"""and no sooner than this."""
PATIENCE_S = 4.0
"""So long a scrape waits for the ledger; then what it alone knows is left out."""
PIECE = 250
"""Lines that are written between two looks at the event loop."""

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]
"""What is put behind the family's name, labels, value."""


@record
class Family:
    """One metric: its name, type, and what it says in one line."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str


@record
class Facts:
    """What costs more than a look into memory: what the ledger told, when logins end, octets of files by family."""

    standings: Mapping[str, Standing]
    oldest: Mapping[str, datetime]
    ledger_answers: bool
    ends: Mapping[str, datetime]
    sizes: Mapping[str, int]


class Metrics:
    """All figures of one process.

    ``alarms``: how many stand, by kind. ``expiring``: what the alarm calls a part that knows when its login ends
    (``mailbox NAME``), and the part. ``sizes``: octets of files, by family; what is missing is left out. It is called
    in a thread.
    """

    def __init__(
        self,
        health: Health,
        queues: Callable[[], Iterable[Queue]],
        watchers: Mapping[str, Watcher],
        ledger: Mailboxes,
        clock: Clock,
        *,
        budget: Budget,
        memory: int,
        connections: Connections,
        alarms: Callable[[], Mapping[str, int]],
        expiring: Mapping[str, Expiring] | None = None,
        sizes: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._health = health
        self._queues = queues
        self._watchers = watchers
        self._ledger = ledger
        self._clock = clock
        self._budget = budget
        self._memory = memory
        self._connections = connections
        self._alarms = alarms
        self._expiring = {} if expiring is None else expiring
        self._sizes = sizes
        self._facts = Facts({}, {}, False, {}, {})
        self._ask_again_at = -math.inf
        self._asking = asyncio.Lock()

    async def text(self) -> AsyncIterator[bytes]:
        """The figures of now, a piece at a time; between two pieces others have their turn, so that many mailboxes
        hold up no mail."""
        facts = await self._asked()
        lines: list[str] = []
        for family, samples in self._families(facts):
            lines += (f"# HELP {family.name} {family.help}\n", f"# TYPE {family.name} {family.type}\n")
            for suffix, labels, value in samples:
                lines.append(f"{family.name}{suffix}{_labels(labels)} {_number(value)}\n")
                if len(lines) >= PIECE:
                    yield "".join(lines).encode()
                    lines.clear()
                    await asyncio.sleep(0)
        yield "".join(lines).encode()

    async def _asked(self) -> Facts:
        """What the ledger says, or said a moment ago: however often somebody scrapes, it is not asked more often."""
        async with self._asking:
            began = self._clock.monotonic()
            if began < self._ask_again_at:
                return self._facts
            ends, sizes = await asyncio.to_thread(self._looked_up, list(self._expiring.items()))
            try:
                standings, oldest = await within(PATIENCE_S, self._told())
                self._facts = Facts(standings, oldest, True, ends, sizes)
            except (LedgerUnavailable, TimeoutError):
                self._facts = Facts({}, {}, False, ends, sizes)
            took = self._clock.monotonic() - began
            self._ask_again_at = began + took + max(LEAST_REST_S, REST * took)
            return self._facts

    async def _told(self) -> tuple[Mapping[str, Standing], Mapping[str, datetime]]:
        return await self._ledger.standings(), await self._ledger.oldest()

    def _looked_up(self, parts: Sequence[tuple[str, Expiring]]) -> tuple[dict[str, datetime], Mapping[str, int]]:
        """Blocks. When logins end, the earliest of each part; and sizes of files."""
        ends: dict[str, datetime] = {}
        for name, part in parts:
            with suppress(Exception):  # the forecast tells of a plug-in's bug
                ends.update({name: min(end for _, end in found)} if (found := part.expiries()) else {})
        return ends, self._sizes()

    def _families(self, facts: Facts) -> Iterator[tuple[Family, Iterable[Sample]]]:
        now = self._clock.now()
        boxes = list(self._health.mailboxes.values())
        polled = [box for box in boxes if box.condition is not Condition.NOT_POLLED]
        hosts = {box.name: self._host(box.name) for box in polled}
        yield START, [_plain(self._health.started_at.timestamp())]
        yield (
            MAILBOX_UP,
            (("", (("mailbox", box.name), ("host", hosts[box.name])), float(_up(box, now))) for box in polled),
        )
        yield POLL_AGE, (_of(box, box.waited(now).total_seconds()) for box in polled)
        yield POLLS, (_of(box, box.polls) for box in polled)
        yield SESSIONS, (_of(box, box.sessions) for box in polled)
        yield FAILURES, _by_kind(polled, lambda box: box.failures)
        yield MESSAGES, _by_kind(polled, lambda box: box.outcomes)
        yield SIZE, (_of(box, box.size) for box in polled)
        yield LEDGER_UP, [_plain(float(facts.ledger_answers))]
        if facts.ledger_answers:
            known = [(box, facts.standings.get(box.name, Standing())) for box in polled]
            yield BACKLOG, (_of(box, box.waiting(standing.waiting)) for box, standing in known)
            yield (
                STANDING,
                (
                    ("", (("mailbox", box.name), ("kind", kind)), getattr(standing, kind))
                    for kind in ("claimed", "deferred", "undisposed")
                    for box, standing in known
                ),
            )
            yield (
                OLDEST,
                (
                    _of(box, max(0.0, (now - facts.oldest[box.name]).total_seconds()))
                    for box in polled
                    if box.name in facts.oldest
                ),
            )
        yield HOST_SESSIONS, (("", (("host", host),), count) for host, count in self._connections.by_host().items())
        yield from self._of_queues(now)
        yield ALARMS, (("", (("kind", kind),), count) for kind, count in self._alarms().items())
        yield MEMORY, [_plain(self._memory)]
        yield MEMORY_USED, [_plain(self._budget.used)]
        yield EXPIRES, _ends(facts.ends)
        yield from ((family, [_plain(facts.sizes[family.name])]) for family in FILES if family.name in facts.sizes)

    def _host(self, mailbox: str) -> str:
        watcher = self._watchers.get(mailbox)
        return "" if watcher is None else watcher.source.account.host

    def _of_queues(self, now: datetime) -> Iterator[tuple[Family, Iterable[Sample]]]:
        queues = list(self._queues())
        deep = [(queue.name, queue.depth) for queue in queues if queue.depth is not None]
        yield QUEUE_UP, (_at(queue.name, float(queue.takes_mail)) for queue in queues)
        yield QUEUE_FAILURES, (_at(queue.name, queue.failures) for queue in queues)
        yield RECEIPTS, (_at(queue.name, queue.receipts) for queue in queues)
        yield (
            REFUSALS,
            (
                ("", (("queue", queue.name), ("kind", kind)), queue.refusals[kind])
                for queue in queues
                for kind in ("passing", "permanent")
            ),
        )
        yield (
            DEPTH,
            (
                ("", (("queue", name), ("kind", kind)), count)
                for name, depth in deep
                for kind, count in (("ready", depth.ready), ("taken", depth.taken))
            ),
        )
        yield (
            DEPTH_OLDEST,
            (
                _at(name, max(0.0, (now - depth.oldest_at).total_seconds()))
                for name, depth in deep
                if depth.oldest_at is not None
            ),
        )
        yield LATENCY, self._latencies()

    def _latencies(self) -> Iterator[Sample]:
        for queue, histogram in list(self._health.latencies.items()):
            for bound, count in histogram.cumulated():
                yield "_bucket", (("queue", queue), ("le", _number(bound))), count
            yield "_sum", (("queue", queue),), histogram.total
            yield "_count", (("queue", queue),), histogram.count


def _up(box: MailboxHealth, now: datetime) -> bool:
    return box.last_poll_at is not None and box.condition is not Condition.PAUSED and not box.critical(now)


def _of(box: MailboxHealth, value: float) -> Sample:
    return "", (("mailbox", box.name),), value


def _at(queue: str, value: float) -> Sample:
    return "", (("queue", queue),), value


def _plain(value: float) -> Sample:
    return "", (), value


def _by_kind(boxes: Iterable[MailboxHealth], counts: Callable[[MailboxHealth], Mapping[str, int]]) -> Iterator[Sample]:
    for box in boxes:
        for kind, count in list(counts(box).items()):
            yield "", (("mailbox", box.name), ("kind", kind)), count


def _ends(ends: Mapping[str, datetime]) -> Iterator[Sample]:
    """By mailbox; of outgoings, which have no label of their own, the earliest."""
    outgoing = [end for part, end in ends.items() if part.startswith("outgoing ")]
    for part, end in ends.items():
        if part.startswith("mailbox "):
            yield "", (("kind", "mailbox"), ("mailbox", part.removeprefix("mailbox "))), end.timestamp()
    if outgoing:
        yield "", (("kind", "outgoing"),), min(outgoing).timestamp()


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else repr(float(value))


START = Family("mailpoller_start_time_seconds", "gauge", "When the daemon started, in seconds since 1970.")
MAILBOX_UP = Family(
    "mailpoller_mailbox_up", "gauge", "1 if it was polled in time and is neither refused, held nor paused, else 0."
)
POLL_AGE = Family(
    "mailpoller_mailbox_poll_age_seconds",
    "gauge",
    "How long ago the last poll was completed; of one that never was, how long a first one is awaited.",
)
POLLS = Family("mailpoller_mailbox_polls_total", "counter", "Polls that were completed.")
SESSIONS = Family("mailpoller_mailbox_sessions_total", "counter", "Sessions that were opened.")
FAILURES = Family(
    "mailpoller_mailbox_failures_total", "counter", "How often a failure was waited out, by the kind of its alarm."
)
MESSAGES = Family("mailpoller_mailbox_messages_total", "counter", "Messages that were settled, by outcome.")
SIZE = Family("mailpoller_mailbox_bytes_total", "counter", "Octets of the messages that were settled.")
LEDGER_UP = Family("mailpoller_ledger_up", "gauge", "1 if the ledger answers, else 0: then what it knows is left out.")
BACKLOG = Family(
    "mailpoller_mailbox_backlog_messages", "gauge", "Messages on the server without an outcome, as far as known."
)
STANDING = Family(
    "mailpoller_mailbox_open_messages",
    "gauge",
    "Messages that are claimed, deferred, or settled with something still to be done on the server (undisposed).",
)
OLDEST = Family(
    "mailpoller_mailbox_oldest_waiting_seconds",
    "gauge",
    "Age of the oldest message without an outcome, by the server's date; missing where none waits.",
)
HOST_SESSIONS = Family("mailpoller_host_sessions", "gauge", "Sessions that are open to a host.")
QUEUE_UP = Family("mailpoller_queue_up", "gauge", "1 if the queue takes mail, 0 if it is down or paused.")
QUEUE_FAILURES = Family("mailpoller_queue_failures_total", "counter", "How often the queue went down.")
RECEIPTS = Family("mailpoller_queue_receipts_total", "counter", "Deliveries that the queue holds durably.")
REFUSALS = Family("mailpoller_queue_refusals_total", "counter", "Deliveries that it refused, passing or permanent.")
DEPTH = Family(
    "mailpoller_queue_depth_messages",
    "gauge",
    "What the queue holds, ready or taken, a minute ago at most; missing where it cannot tell.",
)
DEPTH_OLDEST = Family("mailpoller_queue_oldest_seconds", "gauge", "Age of the oldest message that the queue holds.")
LATENCY = Family(
    "mailpoller_queue_latency_seconds",
    "histogram",
    "From the server's date of a message to the commit that the queue holds it.",
)
ALARMS = Family("mailpoller_alarms", "gauge", "Alarms that stand, by kind.")
MEMORY = Family("mailpoller_memory_budget_bytes", "gauge", "Octets of mail that may be in hand.")
MEMORY_USED = Family("mailpoller_memory_used_bytes", "gauge", "Octets of mail that are in hand, or reserved.")
EXPIRES = Family(
    "mailpoller_credential_expires_timestamp_seconds",
    "gauge",
    "When a login ends, in seconds since 1970, where that is known; of outgoings the first one.",
)
LEDGER_SIZE = Family("mailpoller_ledger_bytes", "gauge", "Octets of the ledger's file.")
LEDGER_LOG = Family("mailpoller_ledger_wal_bytes", "gauge", "Octets of the ledger's write-ahead log.")
SPOOL = Family("mailpoller_spool_bytes", "gauge", "Octets of large messages that lie in the spool.")
FREE = Family("mailpoller_state_free_bytes", "gauge", "Octets that are free where the state directory lies.")

FILES = (LEDGER_SIZE, LEDGER_LOG, SPOOL, FREE)
FAMILIES = (
    START, MAILBOX_UP, POLL_AGE, POLLS, SESSIONS, FAILURES, MESSAGES, SIZE, BACKLOG, STANDING, OLDEST,
    HOST_SESSIONS, QUEUE_UP, QUEUE_FAILURES, RECEIPTS, REFUSALS, DEPTH, DEPTH_OLDEST, LATENCY, ALARMS,
    MEMORY, MEMORY_USED, EXPIRES, LEDGER_UP, *FILES,
)  # fmt: skip
"""All of them, as the page has them."""
