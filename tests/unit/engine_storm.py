"""The service in a storm: every port fails in every way it may, processes die and are started again.

Everything of the engine is real and put together as the application does it; nothing waits for real, so that an hour
takes milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from given import given
from simulated_time import SimulatedLoop
from storm_world import LARGEST, LEDGER, QUEUES, SINK, SOURCE, STRIKES, Climate, World

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.parts import Bystander, MailboxParts, MailboxPlan, Ports
from mailpoller.assembly.shares import Bounds
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.delivery import QUARANTINE, Delivery, Disposed, Outcome, Question, Receipt, Refusal, Settlement
from mailpoller.core.errors import (
    CredentialsRefused,
    LedgerUnavailable,
    MailpollerError,
    MessageRejected,
    QueueVanished,
    SessionLost,
    TransientError,
)
from mailpoller.core.message import Claim, Folder, Gone, Message, MessageRef, Page, Position, RawMessage
from mailpoller.core.ports import Mark, Start, Wake
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.spool import Spool
from mailpoller.core.verdict import Effect, Match
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.availability import State
from mailpoller.engine.batch_runner import BatchRunner
from mailpoller.engine.batcher import Limits
from mailpoller.engine.health import Health
from mailpoller.engine.notify import Notifier
from mailpoller.engine.numbering import HEAD
from mailpoller.engine.observer import Observer
from mailpoller.engine.pass_result import PassResult
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.queues import Queue
from mailpoller.testing.fake_mailbox import FakeMail
from mailpoller.testing.fake_sink import FakeSink
from mailpoller.testing.fake_source import FakeSession, FakeSource
from mailpoller.testing.faults import Faults
from mailpoller.testing.memory_ledger import MemoryLedger, MemoryMessage

__all__ = ["LEDGER", "SINK", "SOURCE", "Climate", "simulate"]

HOUR = 3600.0
GRACE = timedelta(seconds=30)
CALM_S = 600.0
"""How often, in fair weather, it is looked whether anything is left: a look costs more than ten minutes of polls."""


def transient() -> Exception:
    return TransientError("it will pass")


def later() -> Exception:
    return TransientError("come back later", retry_after=timedelta(seconds=90))


def lost() -> Exception:
    return SessionLost("the connection is gone")


def refused() -> Exception:
    return CredentialsRefused("wrong password")


def rejected() -> Exception:
    return MessageRejected("not even this is taken")


def bug() -> Exception:
    return RuntimeError("a bug")


def unavailable() -> Exception:
    return LedgerUnavailable("the disk is full")


# --- the ports
# ---------------------------------------------------------------------------------------------------------
class _Weather(Faults):
    """The steps of a fake source, exposed to the world's weather."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    async def at(self, step: str) -> None:
        name = step.partition(":")[0]
        if step.startswith("open:"):
            return
        errors = [transient, later, lost] if name != "connect" else [transient, later, refused]
        if name == "close":
            errors = [lost]
        if self._process.world.climate.bugs:
            errors.append(bug)
        await self._process.world.at(self._process, name, errors)


class StormSource(FakeSource):
    """A server in the weather of its world."""

    def __init__(self, process: Process, name: str) -> None:
        world = process.world
        super().__init__(
            world.servers[name],
            _Weather(process),
            name=name,
            folders=world.folders,
            witness=process.witness,
            lies=lambda settlement: world.lie(),
        )
        self.process = process

    async def connect(self) -> FakeSession:
        await self.faults.at("connect")
        session = StormSession(self)
        self.sessions.append(session)
        return session


class StormSession(FakeSession):
    """Looks, too, whether the engine keeps to what the port allows at the same time."""

    def __init__(self, source: StormSource) -> None:
        super().__init__(source)
        self._process, self._world = source.process, source.process.world
        self._busy: Counter[str] = Counter()
        self._incarnation = self._world.incarnations[source.name]

    def _alive(self) -> None:
        if self._incarnation != self._world.incarnations[self._source.name]:
            self.lost = self.lost or "the server was put back"
        super()._alive()

    @contextlib.contextmanager
    def _at_work(self, what: str, *others: str, most: int = 1) -> Any:
        self._busy[what] += 1
        crowd = [other for other in others if self._busy[other]]
        self._world.promise(not crowd and self._busy[what] <= most, f"{what} while {crowd or what} is under way")
        try:
            yield
        finally:
            self._busy[what] -= 1

    async def open(self, name: str) -> Folder:
        with self._at_work("open", "fetch", "settle", "wait"):
            return await super().open(name)

    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        async for page in super().pending(folder, since, start):
            if self._world.rng.random() < 0.3 and len(page.refs) > 1:
                # In two pages, the first of which allows no advance; some sizes are not known.
                half = len(page.refs) // 2
                yield Page(page.refs[:half], listed=page.listed)
                page = replace(page, refs=[MessageRef(ref.folder, ref.uid) for ref in page.refs[half:]])
            yield page

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        world = self._world
        head = limit == HEAD
        with self._at_work("fetch", "open", "wait", most=3):
            # Before the step, which may hang for longer than a queue is up.
            world.promise(head or not self._process.in_vain(), "mail is fetched that no queue would take")
            await self._step("fetch")
            for claim in world.rng.sample(claims, len(claims)) if world.rng.random() < 0.3 else claims:
                await self._fault("fetch")
                self._alive()
                found = self._current(claim.ref.folder).shown.get(claim.ref.uid)
                if found is None:
                    yield Gone(claim)
                    continue
                mail = world.mail(found.octets)
                if head:
                    yield self._raw(claim, found, limit)
                    continue
                mail.downloads += 1
                row = world.store.of_mid(claim.mid)
                world.promise(row is not None and row.state == "claimed", f"{mail.text} is fetched without a claim")
                if mail.shows("doubtful"):
                    yield replace(self._raw(claim, replace(found, octets=found.octets[:-5]), limit), doubt="cut off")
                    continue
                if mail.shows("unanswered"):
                    continue
                if mail.shows("unfetchable"):
                    raise TransientError("this one cannot be read now")
                if mail.shows("hangs up"):
                    self.lost = "the server hung up"
                    raise SessionLost(self.lost)
                yield self._raw(claim, found, limit)

    def _raw(self, claim: Claim, mail: FakeMail, limit: int) -> RawMessage:
        intake = self._process.spool.begin(limit)
        intake.write(mail.octets)
        return RawMessage(claim, intake.finish(), intake.overflowed, len(mail.octets), self._date(mail), ())

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        with self._at_work("settle", "open", "wait"):
            return await super().settle(settlements)

    async def wait(self, limit: timedelta) -> Wake:
        with self._at_work("wait"):
            await self._step("wait")
            place = self._mailbox.folders[self._source.watched[0]]
            before = place.uid_next if self._seen_by_wait is None else self._seen_by_wait
            try:
                async with asyncio.timeout(limit.total_seconds()):
                    while place.uid_next == before:
                        await self._world.arrived.wait()
                        self._alive()
            except TimeoutError:
                return Wake.LIMIT
            return Wake.NEWS


class StormSink(FakeSink):
    """A queue in the weather of its world; what it holds outlives the process."""

    def __init__(self, process: Process, name: str) -> None:
        super().__init__()
        self.name = name
        self.held = process.world.held[name]
        self._process, self._world = process, process.world
        self._expected: Mark | None = None

    # --- see mailpoller.core.ports.Marked
    async def mark(self) -> Mark | None:
        self._process.alive(transient)
        return self._world.places.get(self.name)

    async def renewed(self) -> Mark | None:
        return await self.mark()

    def expect(self, mark: Mark | None) -> None:
        self._expected = mark

    def place(self) -> str:
        return f"the place of {self.name}"

    def _recognised(self) -> None:
        """As a sink must: what is not the queue that is expected is left alone."""
        found = self._world.places.get(self.name)
        if self._expected is not None and (trouble := self._expected.unlike(found, self.place())):
            raise QueueVanished(trouble)

    def _begun(self) -> None:
        """Begin the queue if there is none. The ledger must not know one then, unless an operator gave that up."""
        world, name = self._world, self.name
        found = world.places.get(name)
        (record,) = world.store.connection.execute("SELECT max(identity) FROM queue WHERE name = ?", (name,)).fetchone()
        world.promise(record is None or (found is not None and found.identity == record), f"{name} is begun in silence")
        if found is None:
            found = Mark(f"{world.rng.random()}", 0, self.place())
        world.places[name] = Mark(found.identity, found.height + 1, found.place)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        world = self._world
        await self._fault("deliver")
        self._recognised()
        answers: list[Receipt | Refusal] = []
        mails = [world.mail(delivery.raw.octets.head(400)) for delivery in batch]
        if any(mail.shows("crashes the queue") for mail in mails if self.name in QUEUES):
            raise RuntimeError("this one is too much")
        for delivery, mail in zip(batch, mails, strict=True):
            await self._fault("hold")
            row = world.store.of_mid(delivery.mid)
            world.promise(row is not None and row.state == "claimed", f"{mail.text} is delivered without a claim")
            if self.name in QUEUES and mail.shows("refused"):
                answers.append(Refusal(delivery.delivery_id, "never", permanent=True))
            elif self.name in QUEUES and mail.shows("not now"):
                answers.append(Refusal(delivery.delivery_id, "not now"))
            else:
                self._recognised()
                self._begun()
                world.brought.add(mail.text)
                answers.append(self._hold(delivery))
        await self._fault("answer")
        if world.strikes("answer"):
            return answers[1:]
        return answers

    async def check(self) -> None:
        self._process.alive(transient)
        if self.name in self._world.out:
            raise TransientError("out of order")
        if self._world.strikes("check"):
            raise TransientError("not well")
        self._recognised()
        self._process.checked(self.name)

    async def _fault(self, step: str) -> None:
        await self._world.at(
            self._process, step, [transient, later, rejected, *([bug] if self._world.climate.bugs else [])]
        )
        if self.name in self._world.out:
            self._world.faults["out"] += 1
            raise TransientError("out of order")


class StormLedger(MemoryLedger):
    """The ledger of one process. As on disk, what is asked for is done even if the caller is cancelled meanwhile."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.clock, process.world.store)
        self._process, self._world = process, process.world

    def _advancing(self, folder: Folder, position: Position) -> None:
        before = self._world.store.folders[folder.mailbox, folder.name][-1].position
        passed = [
            mail.uid
            for mail in self._world.servers[folder.mailbox].folders[folder.name].listed()
            if int(before or 1) <= int(mail.uid) < int(position) and not self._world.recorded(folder, mail)
        ]
        self._world.promise(not passed, f"the position passes {len(passed)} messages that are not recorded")

    def _fail_if_asked(self, step: str, *, after: bool) -> None:
        self._process.alive(unavailable)
        if not self._world.calm and self._world.rng.random() < self._world.climate.deaths:
            self._process.die()
            raise unavailable()
        if self._world.rng.random() < 0.5 and self._world.strikes(step):
            raise bug() if self._world.climate.bugs and self._world.rng.random() < 0.1 else unavailable()


def _late(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    done = getattr(MemoryLedger, name)

    @functools.wraps(done)
    async def late(self: StormLedger, *args: Any, **how: Any) -> Any:
        async def work() -> Any:
            await self._world.pause(2.0)
            self._process.alive(unavailable)
            if name == "advance":
                self._advancing(*args)
            return await done(self, *args, **how)

        task = asyncio.create_task(work())
        try:
            answer = await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            task.cancelled() or task.exception()
            raise
        return answer

    return late


for _name in (
    "open_folder", "complete", "unknown", "claim", "suspects", "due", "at_risk", "cleared", "release",
    "disposed", "repeats", "advance", "settle", "defer",
):  # fmt: skip
    setattr(StormLedger, _name, _late(_name))


class StormAlarm(Alarm):
    """Nobody is mailed; the world keeps what was to be told."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.ledger, None, (), process.world.clock)
        self._told_to = process.world

    def tell(self, kind: Kind, subject: str, detail: str, *, group: str = "") -> None:
        self._told_to.alarms.add(f"{kind.value}:{subject}")
        super().tell(kind, subject, detail, group=group)


class Oracle:
    """The rule of every mailbox: it knows the truth about a message, and may be the death of the process."""

    needs_body = False
    name = "oracle"

    def __init__(self, process: Process) -> None:
        self._process = process

    def judge(self, message: Message) -> Match | None:
        process, world = self._process, self._process.world
        if process.dead:
            return None
        mail = world.mails[message.subject]
        if mail.shows("kills"):
            process.die()
        elif mail.shows("exhausts"):
            raise MemoryError
        elif mail.shows("crashes a rule"):
            raise ValueError("a rule's bug")
        if mail.trait == "discarded":
            return Match(Effect(discard=True))
        return Match(Effect(queues=mail.routes[-1]))


class Witness:
    """Stands between one mailbox's batch runner and its watcher."""

    def __init__(self, process: Process, watcher: Observer) -> None:
        self._process, self._watcher = process, watcher
        self.settled_count = 0

    def progressed(self) -> None:
        self._watcher.progressed()

    def listed(self, count: int) -> None:
        self._watcher.listed(count)

    def unfetched(self, folder: Folder, count: int) -> None:
        self._watcher.unfetched(folder, count)

    def settled(self, outcome: Outcome) -> None:
        self._watcher.settled(outcome)
        self.settled_count += 1
        if not self._process.dead:
            world = self._process.world
            # What ended as gone, or never came whole, may be there again and end otherwise.
            world.seen[outcome.claim.mid, outcome.claim.generation] += outcome.kind not in ("gone", "doubtful")
            row = world.store.of_mid(outcome.claim.mid)
            world.promise(row is not None and row.state == "settled", "an outcome is told before it is committed")

    def skipped(self, outcomes: Sequence[Outcome]) -> None:
        self._watcher.skipped(outcomes)

    def deferred(self, claims: Sequence[Claim], reason: str) -> None:
        self._watcher.deferred(claims, reason)

    def disposed(self, failed: Sequence[Disposed], applied: Sequence[Disposed]) -> None:
        self._watcher.disposed(failed, applied)

    def fault(self, event: str, detail: str, mid: str) -> None:
        self._watcher.fault(event, detail, mid)

    def absence(self, detail: str) -> None:
        self._watcher.absence(detail)

    def questioned(self, folder: Folder, questions: Sequence[Question]) -> None:
        self._watcher.questioned(folder, questions)

    def replaced(self, count: int) -> None:
        self._watcher.replaced(count)


class Onlooker(Bystander):
    """Stands by for the world."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def observer(self, mailbox: str, observer: Observer) -> Observer:
        return Witness(self._process, observer)

    def edge(self, queue: Queue, up: bool) -> None:
        self._process.edge(queue.name, up)


# --- a process
# -----------------------------------------------------------------------------------------------------------
class Process:
    """The service, put together as the application does it, from its start to its end or death."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.task: asyncio.Task[Any] | None = None
        world.starts += 1
        self.spool = Spool(world.directory, threshold=1_000)
        self.spool.prepare()
        clock = world.clock
        self.ledger = StormLedger(self)
        self.stop = asyncio.Event()
        self._down_since: dict[str, float] = defaultdict(lambda: float("inf"))
        health = Health(clock)
        alarm = StormAlarm(self)
        self.fleet = fleet = Fleet(
            Ports(
                self.ledger,
                alarm,
                health,
                Runtime(clock, self.spool, world.directory),
                self.stop,
                bystander=Onlooker(self),
            ),
            Bounds(
                memory=world.memory,
                memory_per_mailbox=max(1_000, world.memory // 2),
                limits=Limits(world.batch, 20_000, STRIKES),
                poll_budget=timedelta(minutes=15),
                connections=world.connections,
                judging=1,
            ),
            self._sink(QUARANTINE),
        )
        self.budgets = [fleet.shares.budget]
        for name in QUEUES:
            fleet.add_queue(name, self._sink(name))
        for name in world.servers:
            self._look_at(fleet.add_mailbox(self._plan(name)))
        self.every_queue = [*fleet.queues.values(), *fleet.own.values()]
        self.turns = [fleet.shares.judging, fleet.shares.recording]
        self.connections = fleet.shares.connections
        self.supervisor = fleet.supervisor(notifier=Notifier(""), grace=GRACE, services={})

    def _look_at(self, parts: MailboxParts) -> None:
        parts.watcher.runner = Checked(parts.runner)
        self.budgets.append(parts.budget)

    def _plan(self, name: str) -> MailboxPlan:
        config = given(
            SourceConfig,
            StormSource(self, name),
            start="all",
            poll_interval="5m",
            reconnect_interval="10s",
            max_message_size=LARGEST,
            **self.world.disposition,
        )
        return MailboxPlan(
            name,
            config,
            Pipeline(mailbox=name, default_queue="support", rules=[Oracle(self)]),
            reachable=self.world.reachable,
            bodies_wanted=False,
        )

    async def _change(self) -> None:
        """Change the fleet every now and then, as an operator might."""
        world, fleet = self.world, self.fleet
        while world.climate.changes or world.climate.vanishing:
            await asyncio.sleep(10)
            await self.adopt()
            if world.calm or world.rng.random() > world.climate.changes:
                continue
            name = world.rng.choice([*world.servers, *QUEUES])
            if name in QUEUES:
                self.every_queue.append(await fleet.replace_queue(name, self._sink(name)))
            elif world.rng.random() < 0.5:
                self._look_at(await fleet.replace_mailbox(self._plan(name)))
            else:
                await fleet.remove_mailbox(name)
                await world.clock.sleep(world.rng.choice((0, 0, 60)))
                self._look_at(fleet.add_mailbox(self._plan(name)))
            world.changed += 1

    async def adopt(self) -> None:
        """An operator gives up the queues that vanished and will not be put back."""
        for name in list(self.world.given_up):
            queue = self.fleet.queues[name]
            if queue.vanished:
                with contextlib.suppress(MailpollerError):
                    await queue.adopt()
                    self.world.given_up.discard(name)
                    self.world.moved_away.pop(name, None)

    def _sink(self, name: str) -> SinkConfig:
        return given(SinkConfig, StormSink(self, name), payload="summary", raw=True, retry_interval="10s")

    def edge(self, name: str, up: bool) -> None:
        """A queue went down, or takes mail again."""
        self._down_since[name] = float("inf") if up else self.world.clock.monotonic()

    def checked(self, name: str) -> None:
        """A queue that is down passed its check: one message may try it."""
        self._down_since[name] = self.world.clock.monotonic()

    def in_vain(self) -> bool:
        """True if every queue that mail could go to has been down for long."""
        long_ago = self.world.clock.monotonic() - 120
        return bool(self.world.reachable) and all(
            self.fleet.queues[name].state is State.DOWN and self._down_since[name] < long_ago for name in QUEUES
        )

    # --- life and death ------------------------------------------------------------------------------------------
    def alive(self, error: Callable[[], Exception]) -> None:
        """Raise ``error`` if this process is no more: nothing that it does has an effect."""
        if self.dead:
            raise error()

    def die(self) -> None:
        """Killed, now: what is committed is committed, and nothing else."""
        assert self.task is not None
        self.dead = True
        self.world.deaths += 1
        self.world.faults["death"] += 1
        at_risk: Counter[str] = Counter()
        for message in self.world.store.messages.values():
            if message.state == "claimed" and message.at_risk:
                at_risk[message.ref.folder.mailbox] += 1
                self.world.of(message).deaths += 1
        self.world.promise(all(n == 1 for n in at_risk.values()), f"several are at risk at once: {at_risk}")
        self.task.cancel()

    async def run(self, until: Callable[[], bool]) -> None:
        """Live until something holds, then stop in good order; or until death."""
        self.task = asyncio.create_task(self.supervisor.run(), name="service")
        changing = asyncio.create_task(self._change(), name="changes")
        while not self.task.done() and not self.dead and not until():
            await asyncio.wait({self.task}, timeout=CALM_S if self.world.calm else self.world.rng.uniform(5, 15))
        changing.cancel()
        await asyncio.wait({changing})
        self.world.promise(changing.cancelled() or not changing.exception(), f"a change fails: {changing}")
        if not self.task.done() and not self.dead:
            self.stop.set()
            await asyncio.wait({self.task}, timeout=GRACE.total_seconds() + 20)
            self.world.promise(self.task.done() or self.dead, "the service does not stop")
        if not self.task.done():
            await asyncio.wait({self.task}, timeout=3600)
            self.world.promise(self.task.done(), "a task does not end when it is cancelled")
        if self.task.done() and not self.task.cancelled() and self.task.exception() is not None:
            self.world.promise(self.dead, f"the service ends with {self.task.exception()!r}")
        await asyncio.sleep(0)  # for generators that were left behind
        await asyncio.sleep(0)
        self._nothing_left()

    def _nothing_left(self) -> None:
        """However it ended, nothing is in hand."""
        promise = self.world.promise
        promise(
            not any(budget.used for budget in self.budgets),
            f"octets stay reserved: {[budget.used for budget in self.budgets]}",
        )
        promise(not any(turns.taken or turns.waiting for turns in self.turns), "a turn is never over")
        promise(not any(queue.handover.calls.taken for queue in self.every_queue), "a call to a queue is never over")
        promise(self.connections.open == 0, "a connection's place is never given back")
        promise(not list(self.world.directory.iterdir()), "octets stay in the spool")
        others = [task for task in asyncio.all_tasks() if task.get_name().split()[0] not in ("history", "life")]
        promise(not others, f"tasks are left: {others}")
        if not self.dead and not any(self.world.faults[step] for step in LEDGER):
            claimed = [
                row for row in self.world.store.messages.values() if row.state == "claimed" and self.present(row)
            ]
            promise(not claimed, f"{len(claimed)} claims stay open")

    def present(self, row: MemoryMessage) -> bool:
        """True if a row is of its folder's present numbering."""
        folder = row.ref.folder
        return self.world.store.folders[folder.mailbox, folder.name][-1].id == folder

    def witness(self, settlement: Settlement) -> None:
        """Called when the server is about to be told."""
        world = self.world
        row = world.store.of_mid(settlement.mid)
        world.promise(row is not None and row.state == "settled", "the server is told what the ledger does not know")
        self._spares_strangers(settlement)
        if row is None or row.outcome is None or not (settlement.disposition.delete or settlement.disposition.move):
            return
        if row.outcome.kind in ("delivered", "quarantined"):
            kept = row.receipts and all(
                any(held.mid == row.mid for held in world.held[queue].values()) for queue in row.receipts
            )
            world.promise(kept, "a message is deleted that no queue holds")
        world.promise(
            not settlement.disposition.delete or world.of(row).trait != "large" or row.outcome.kind == "repeated",
            "a message is deleted of which a part was downloaded",
        )

    def _spares_strangers(self, settlement: Settlement) -> None:
        """Whoever bears the name now has been brought to a queue, if the message is to go."""
        world, ref = self.world, settlement.ref
        found = world.servers[ref.folder.mailbox].folders[ref.folder.name].shown.get(ref.uid)
        if found is None or not (settlement.disposition.delete or settlement.disposition.move):
            return
        mail = world.mail(found.octets)
        world.promise(mail.text in world.brought or mail.trait == "discarded", f"{mail.text} is destroyed undelivered")

    async def once(self) -> bool:
        """Work off what is there, as ``run --once`` does."""
        self.task = asyncio.create_task(self.supervisor.drain(), name="service")
        await asyncio.wait({self.task})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._nothing_left()
        return not self.dead and self.task.result()


class Checked:
    """A batch runner whose result is looked at after every pass."""

    def __init__(self, runner: BatchRunner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    async def carry(self, session: Any, folder: Folder, since: Position | None, start: Start, **how: Any) -> PassResult:
        witness = self._runner._observer
        assert isinstance(witness, Witness)
        before = witness.settled_count
        result = await self._runner.carry(session, folder, since, start, **how)
        world = witness._process.world
        world.promise(
            result.settled == witness.settled_count - before,
            f"the result says {result.settled} were settled, the observer heard of {witness.settled_count - before}",
        )
        world.promise(not self._runner.holds_claims or world.faults["release"], "claims stay in hand after a pass")
        return result


# --- a history -------------------------------------------------------------------------------------------------------
async def history(world: World) -> None:
    """A stormy hour with as many processes as it takes, then fair weather until nothing is left to do; and the
    audit."""
    clock = world.clock
    life = asyncio.create_task(world.live(HOUR), name="life")
    while not life.done():
        stops = world.rng.random() < world.climate.stops
        ends = clock.monotonic() + (world.rng.expovariate(1 / 400) if stops else 1e9)
        await Process(world).run(lambda ends=ends: life.done() or clock.monotonic() > ends)  # type: ignore[misc]
        await asyncio.sleep(5)
    world.calm = True
    for mail in world.mails.values():
        if mail.trait in ("hangs up", "unfetchable", "unanswered"):
            mail.times = 0
    patience = clock.monotonic() + timedelta(days=3).total_seconds()
    rested = float("inf")
    before: object = None

    def rest() -> bool:
        nonlocal rested, before
        if world.unfinished():
            world.accept_absences()
            return clock.monotonic() > patience
        if before is None:
            rested, before = clock.monotonic() + 1200, world.traffic()
        return clock.monotonic() > rested

    if world.climate.once:
        while clock.monotonic() < patience:
            done = await Process(world).once()
            world.accept_absences()
            left = world.unfinished()
            world.promise(not done or not left, f"run --once says that all is done: {left[:3]}")
            if not left:
                break
            await asyncio.sleep(600)
    for _ in range(200):
        process = Process(world)
        await process.run(rest)
        if not process.dead:
            break
        await asyncio.sleep(5)
    world.promise(before is None or world.traffic() == before, "something is fetched or delivered again")
    world.audit()


def simulate(seed: int, climate: Climate, directory: Path) -> World:
    """One history, to its end."""

    async def begin() -> World:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("history")
        world = World(seed, climate, directory)
        await history(world)
        return world

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(begin())
