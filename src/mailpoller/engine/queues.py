"""A configured queue: its sink, and the back-off that belongs to the queue and not to the mailboxes that use it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from datetime import timedelta
from enum import Enum
from random import sample
from typing import Any

import structlog

from mailpoller.core.delivery import QUARANTINE, Delivery, Payload, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import (
    ConfigError,
    CredentialsMissing,
    LedgerUnavailable,
    MachineTrouble,
    MailpollerError,
    QueueVanished,
    TransientError,
    machine_trouble,
)
from mailpoller.core.extras import without
from mailpoller.core.ports import (
    Clock,
    Consumed,
    Deep,
    Depth,
    DoubtKind,
    Durable,
    QueueRecord,
    Sifting,
    Sink,
    SinkDoubt,
    Unserving,
    Upkept,
)
from mailpoller.core.tasks import TaskGroup, within
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.recognition import Recognition
from mailpoller.engine.trials import IN_A_ROW, Trials
from mailpoller.engine.turns import Turns

log = structlog.get_logger(__name__)

DELIVER_DEADLINE = timedelta(minutes=10)
"""For a batch, at the slowest; a sink keeps finer deadlines of its own."""
CHECK_DEADLINE = timedelta(seconds=30)
CONCURRENT_CALLS = 8
"""Batches that one sink is handed at once, from different mailboxes."""

BELIEVED_AFTER = timedelta(minutes=2)
"""A queue that passed its check, and that nobody brings mail to, counts as up after so long."""

GONE = "the queue is no longer configured, or no longer so"

UPKEEP_INTERVAL = timedelta(minutes=1)

Listener = Callable[["Queue", bool, str], Awaitable[None]]
Concern = Callable[["Queue", str | None], Awaitable[None]]
Doubts = Callable[["Queue", DoubtKind, str | None], Awaitable[None]]


async def _ignore(queue: Queue, words: str | None) -> None:
    return None


async def _doubt_nothing(queue: Queue, kind: DoubtKind, words: str | None) -> None:
    return None


def _nothing() -> None:
    return None


class State(Enum):
    """Whether a queue takes mail."""

    UP = "up"
    DOWN = "down"
    """Failed; nothing is brought to it until its next try."""
    PROBING = "probing"
    """Its check passed; one message goes first, the rest follows if that is taken."""


def _blames_queue(answer: Receipt | Refusal) -> bool:
    return isinstance(answer, Refusal) and answer.blame == "queue"


def _in_a_row(reason: str) -> str:
    return f"{IN_A_ROW} different messages in a row were refused, and none taken: {reason}"


class Queue:
    """One named queue.

    ``listener`` is told of both edges (queue, is it up, why). ``on_ready`` is called whenever the queue takes mail
    again, for those who wait with mail for it. ``doubts`` is told every minute, of each kind of doubt that the sink
    has, how it is in words, or None; ``untaken`` since when nobody takes from it, or None; ``unserved``, after a
    delivery too, whenever it is others that the sink does not serve, or nobody any more. ``recognition`` knows whether
    it is the queue that it was; without one it is never in doubt.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        payload: Payload,
        octets_wanted: bool,
        retry_interval: timedelta,
        clock: Clock,
        listener: Listener | None = None,
        on_ready: Callable[[], None] = _nothing,
        doubts: Doubts = _doubt_nothing,
        untaken: Concern = _ignore,
        unserved: Concern = _ignore,
        recognition: Recognition | None = None,
        calls: Turns | None = None,
        formerly: str | None = None,
        paused: Callable[[], str] = str,
    ) -> None:
        self.name = name
        self.formerly = formerly
        """The name that it had before, if it was another."""
        self.sink = sink
        self.payload = payload
        self.octets_wanted = octets_wanted
        self.state = State.UP
        self.reason = ""
        self.vanished = False
        """True while it is down because what lies in its place is not the queue that was delivered to."""
        self.concerns: dict[str, str] = {}
        """What an operator should know although it takes mail, by kind: ``sink``, ``untaken``, ``unserved``."""
        self.receipts = 0
        """Since the start, as all that follow."""
        self.refusals: Counter[str] = Counter()
        """``permanent`` and ``passing`` ones."""
        self.failures = 0
        """How often it went down."""
        self.depth: Depth | None = None
        """What it held a minute ago at most; None if it cannot tell."""
        self.paused = paused
        """Why an operator wants nothing to be brought, in words, or nothing."""
        self.recognition = recognition
        self._clock = clock
        self._listener = listener
        self._on_ready = on_ready
        self._doubts = doubts
        self._untaken = untaken
        self._unserved = unserved
        self._unserved_said: str | None = None
        self._backoff = Backoff(retry_interval, retry_interval * 30)
        self._down_until = 0.0
        self._went_down = asyncio.Event()
        self._calls = calls or Turns(CONCURRENT_CALLS)
        self._trials = Trials()
        self._first = asyncio.Lock()
        self._opened = asyncio.Event()
        self._opened.set()
        self._retired = False
        self._under_way = 0
        self._empty = asyncio.Event()
        self._proven = False
        self._lacking = False
        """It is down because something is missing here: that is looked for every minute."""

    @property
    def takes_mail(self) -> bool:
        """False while there is no point in bringing anything."""
        return self.state is not State.DOWN and not self.paused()

    async def deliver(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """Bring a batch: same order and length. Raises :class:`TransientError` when the queue is down or goes down by
        it, and nothing of the batch is known to be held.

        A failure that is no :class:`MailpollerError` (a bug, or one message that the sink cannot stomach) is tried
        again one by one, so that one message never defers the others; what still fails alone is refused, not for good.
        So is a message at which a call failed, once others were taken since and it fails again, alone, while the
        queue passes its check. Ten different messages that are refused in a row are the queue's trouble, and count
        against none of them; what goes to a quarantine is not counted, as there is a next place for it.
        """
        if self._retired:
            raise TransientError(GONE)
        if reason := self.paused():
            raise TransientError(reason)
        self._under_way += 1
        try:
            if not self._opened.is_set():
                await self._opened.wait()
            if self.state is State.DOWN:
                raise TransientError(self.reason)
            if self.state is State.PROBING:
                async with self._first:
                    return await self._probe(batch)
            return await self._sort(batch)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._empty.set()

    def resumed(self) -> None:
        """It is paused no more: whoever waits with mail may bring it."""
        self._on_ready()

    def hold(self) -> None:
        """Let whoever brings something wait until :meth:`open`: another queue of this name has to end first."""
        self._opened.clear()

    def open(self) -> None:
        """Take what is brought."""
        self._opened.set()

    async def retire(self, grace: timedelta) -> bool:
        """Take nothing more, and wait until the sink has answered for all that it was handed: False if that takes too
        long.

        Nobody is told any more how it fares. The sink may be closed afterwards.
        """
        self._retired = True
        self._listener, self._on_ready = None, _nothing
        self._doubts, self._untaken, self._unserved = _doubt_nothing, _ignore, _ignore
        self._empty.clear()
        if self._under_way:
            try:
                async with asyncio.timeout(grace.total_seconds()):
                    await self._empty.wait()
            except TimeoutError:
                log.warning("queue.abandoned", queue=self.name, batches=self._under_way)
                return False
        return True

    async def _probe(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """After an outage: one message first, the rest if it was taken. Others may have probed while we waited.

        Only a receipt, or a word against this very message, is a sign that it is back. It may be one bad message that
        keeps the queue from all others, so each time another one is tried.
        """
        if not self.takes_mail:
            raise TransientError(self.reason)
        if self.state is not State.PROBING:
            return await self._sort(batch)
        answers: dict[int, Receipt | Refusal] = {}
        waiting = sample(range(len(batch)), len(batch))
        while waiting:
            chosen = waiting.pop()
            (answer,) = await self._bring([batch[chosen]])
            if isinstance(answer, Refusal) and answer.unasked:
                answers[chosen] = answer  # which tells nothing of the queue
                continue
            if isinstance(answer, Refusal) and (not answer.permanent or self._trials.in_vain):
                await self._failed(_in_a_row(answer.reason) if self._trials.in_vain else answer.reason, None)
                raise TransientError(self.reason)
            await self._up()
            answers[chosen] = answer
            break
        rest = sorted(waiting)
        try:
            more = await self._sort([batch[index] for index in rest]) if rest else []
        except TransientError as error:
            more = [Refusal(batch[index].delivery_id, str(error), blame="queue") for index in rest]
        answers.update(zip(rest, more, strict=True))
        return [answers[index] for index in range(len(batch))]

    async def _sort(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """Bring the batch; what was part of a call that failed, alone and last."""
        if isinstance(self.sink, Sifting) or len(batch) == 1:
            return await self._bring(batch)
        alone = [one for one in batch if one.delivery_id in self._trials]
        if not alone:
            return await self._bring(batch)
        together = [one for one in batch if one.delivery_id not in self._trials]
        answers = await self._bring(together) if together else []
        trouble: TransientError | None = None
        for one in alone:
            try:
                if not self.takes_mail:
                    raise TransientError(self.paused() or self.reason)
                answers += await self._bring([one])
            except TransientError as error:
                trouble = error
                break
        if trouble is not None and not answers:
            raise trouble
        said = {answer.delivery_id: answer for answer in answers}
        return [said.get(one.delivery_id) or Refusal(one.delivery_id, str(trouble), blame="queue") for one in batch]

    async def _bring(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        try:
            if self.recognition is not None and not self.recognition.certain:
                await self._promptly(self.recognition.require())
            async with self._calls.turn(batch[0].raw.claim.ref.folder.mailbox, len(batch)):
                answers = await self._call(batch)
            received = self._count(answers)
            if self.recognition is not None and self.recognition.count(received):
                await self._promptly(self.recognition.note())
            answers = await self._weighed(batch, answers)
            await self._hear_of_unserved()
            if not self._proven and not all(map(_blames_queue, answers)):
                await self._prove()
            return answers
        except LedgerUnavailable:
            raise  # not the queue's trouble
        except QueueVanished as error:
            await self._lost(error)
            raise TransientError(self.reason) from error
        except TransientError as error:
            suspected = self._may_be_its_own(batch, error)
            if suspected and self._trials.alone_again(batch) and await self.trouble() is None:
                return await self._weighed(batch, [Refusal(batch[0].delivery_id, str(error))])
            await self._failed(str(error), error.retry_after)
            if suspected and await self.trouble() is None:
                self._trials.failed(batch)
            raise
        except (ConfigError, CredentialsMissing, ModuleNotFoundError) as failure:
            lack = without(failure) if isinstance(failure, ModuleNotFoundError) else failure
            await self._failed(str(lack), None, lacking=True)
            raise TransientError(str(lack)) from failure
        except MailpollerError as error:
            await self._failed(str(error), None)
            raise TransientError(str(error)) from error
        except Exception as failure:
            if (trouble := machine_trouble(failure)) is not None:
                await self._failed(trouble, None)
                raise TransientError(trouble) from failure
            log.exception("queue.crashed", queue=self.name, batch=len(batch))
            if len(batch) == 1:
                words = "the sink failed in an unknown way; the log has the traceback"
                return await self._weighed(batch, [Refusal(batch[0].delivery_id, words)])
        return [answer for one in batch for answer in await self._bring([one])]

    def _count(self, answers: Sequence[Receipt | Refusal]) -> int:
        """How many of them are receipts."""
        refusals = [answer for answer in answers if isinstance(answer, Refusal)]
        for refusal in refusals:
            self.refusals["permanent" if refusal.permanent else "passing"] += 1
        received = len(answers) - len(refusals)
        self.receipts += received
        return received

    async def _weighed(self, batch: Sequence[Delivery], answers: list[Receipt | Refusal]) -> list[Receipt | Refusal]:
        """The answers, once it is known whose trouble the refusals among them are."""
        self._trials.answered(answer for one, answer in zip(batch, answers, strict=True) if one.queue != QUARANTINE)
        if not self._trials.in_vain or self.state is State.PROBING:
            return answers
        last = next((answer.reason for answer in reversed(answers) if isinstance(answer, Refusal)), "")
        await self._failed(_in_a_row(last), None)
        return [
            answer if one.queue == QUARANTINE else self._trials.acquitted(answer)
            for one, answer in zip(batch, answers, strict=True)
        ]

    def _may_be_its_own(self, batch: Sequence[Delivery], error: TransientError) -> bool:
        """May a call have failed for the sake of one message? A queue that fails its check too has no such excuse."""
        told = isinstance(self.sink, Sifting) or isinstance(error, MachineTrouble) or error.retry_after is not None
        return not told and self.state is not State.DOWN and batch[0].queue != QUARANTINE

    async def _promptly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await within(DELIVER_DEADLINE.total_seconds(), work)
        except TimeoutError:
            raise TransientError(f"no answer within {DELIVER_DEADLINE.total_seconds():.0f} s") from None

    async def _call(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        try:
            answers = list(await within(DELIVER_DEADLINE.total_seconds(), self._handed(batch)))
        except TimeoutError:
            raise TransientError(f"no receipt within {DELIVER_DEADLINE.total_seconds():.0f} s") from None
        if len(answers) != len(batch) or any(
            a.delivery_id != d.delivery_id for a, d in zip(answers, batch, strict=False)
        ):
            raise TransientError("the sink answered for other deliveries than it was given")
        return answers

    async def _handed(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        return await self.sink.deliver(batch)

    async def _failed(self, reason: str, retry_after: timedelta | None, *, lacking: bool = False) -> None:
        """A batch met the failure. Others that were under way meet the same one, and it counts once: else the wait
        would grow with the number of mailboxes."""
        if self.state is not State.DOWN:
            self._lacking = lacking
            await self._down(reason, retry_after)

    async def _lost(self, error: QueueVanished) -> None:
        """What lies there is not the queue that it was."""
        if self.state is not State.DOWN or not self.vanished:
            reason = str(error) if self.recognition is None else self.recognition.explained(error)
            await self._down(reason, None, vanished=True)

    async def _down(self, reason: str, retry_after: timedelta | None, *, vanished: bool = False) -> None:
        self.failures += 1
        wait = self._backoff.failed(at_least=retry_after)
        if self._lacking:
            wait = min(wait, UPKEEP_INTERVAL.total_seconds())
        edge = self.reason == "" or self.vanished is not vanished
        self.state, self.reason, self.vanished = State.DOWN, reason or "unknown", vanished
        if self.recognition is not None:
            self.recognition.doubt()
        self._down_until = self._clock.monotonic() + wait
        self._went_down.set()
        log.warning("queue.failed", queue=self.name, reason=self.reason, retry_s=round(wait, 1))
        if edge and self._listener is not None:
            await self._listener(self, False, self.reason)

    async def _up(self) -> None:
        self.state, self.reason, self.vanished, self._lacking = State.UP, "", False, False
        self._backoff.reset()
        self._on_ready()
        log.info("queue.recovered", queue=self.name)
        if self._listener is not None:
            await self._listener(self, True, "")

    async def tend(self) -> None:
        """Look after the queue for as long as the service runs."""
        async with TaskGroup() as group:
            group.create_task(self._whatever_fails(self._retry), name=f"retry {self.name}")
            group.create_task(self._whatever_fails(self._look_once), name=f"look at {self.name}")
            group.create_task(self._whatever_fails(self._keep_up), name=f"upkeep {self.name}")

    async def _whatever_fails(self, work: Callable[[], Awaitable[None]]) -> None:
        """One queue's bug ends neither the rest of its care nor the service."""
        while True:
            try:
                return await work()
            except Exception as error:
                self._say_crashed(error)
                await self._clock.sleep(UPKEEP_INTERVAL.total_seconds())

    async def _prove(self) -> None:
        """An alarm of an earlier run ends with the first delivery of this one."""
        self._proven = True
        if self.state is State.UP and self._listener is not None:
            try:
                await self._listener(self, True, "")
            except Exception:
                self._proven = False
                raise

    async def _look_once(self) -> None:
        """Is it the queue that it was? Where there is nothing to deliver, a check's word is enough for that it is
        up."""
        await self._recognise()
        await self._weigh_receipts()
        await self._clock.sleep(BELIEVED_AFTER.total_seconds())
        if not self._proven and self.state is State.UP and await self.trouble() is None:
            await self._prove()

    async def _recognise(self) -> None:
        """A queue that vanished is told of, also if nobody brings mail to it."""
        if self.recognition is None:
            return
        try:
            await within(CHECK_DEADLINE.total_seconds(), self.recognition.require())
        except QueueVanished as error:
            await self._lost(error)
        except (TimeoutError, MailpollerError) as error:
            log.debug("queue.unkept", queue=self.name, reason=str(error))

    async def _keep_up(self) -> None:
        """Give the sink its turn every minute, and pass on what it has to say."""
        while True:
            await self._clock.sleep(UPKEEP_INTERVAL.total_seconds())
            if self.recognition is not None:
                self.recognition.doubt()
            await self._recognise()
            if self.vanished:
                continue
            try:
                await within(DELIVER_DEADLINE.total_seconds(), self._turn())
            except QueueVanished as error:
                await self._lost(error)
            except (TimeoutError, MailpollerError) as error:
                # A queue that is really down is found out by the next delivery.
                log.debug("queue.unkept", queue=self.name, reason=str(error))
            except Exception as error:
                self._say_crashed(error)

    def _say_crashed(self, error: Exception) -> None:
        if (trouble := machine_trouble(error)) is not None:
            log.debug("queue.unkept", queue=self.name, reason=trouble)
        else:
            log.exception("queue.crashed", queue=self.name, batch=0)

    async def _turn(self) -> None:
        """One turn of the sink's."""
        if self.recognition is not None:
            await self.recognition.note()
        if isinstance(self.sink, Upkept):
            await self._doubt(await self.sink.upkeep())
        if isinstance(self.sink, Consumed):
            await self._concern("untaken", await self.sink.untaken(), self._untaken)
        if isinstance(self.sink, Deep):
            self.depth = await self.sink.depth()
        await self._hear_of_unserved()

    async def _hear_of_unserved(self) -> None:
        """Told when it changes. What an earlier process told stands until it is known better."""
        if not isinstance(self.sink, Unserving):
            return
        words = self.sink.unserved()
        if words is not None and words != self._unserved_said:
            self._unserved_said = words
            await self._concern("unserved", words or None, self._unserved)

    @property
    def durability(self) -> Durability | None:
        """What a receipt is worth in a power cut; None if the sink does not say, or nobody looked yet."""
        return self.sink.durability if isinstance(self.sink, Durable) else None

    async def _weigh_receipts(self) -> None:
        """At the start: a server whose answers are worth too little is told of before there is mail for it."""
        if not isinstance(self.sink, Durable):
            return
        if self.durability is None:
            trouble = await self.trouble()
            found = self.durability
            if trouble is not None and found is not None and found.doubt() and self.state is State.UP:
                await self._failed(trouble, None)
            return  # who asks a server logs what it said, whenever that is another thing
        if (found := self.durability) is not None:
            log.info("queue.durability", queue=self.name, finding=found.finding, setting=found.setting)
            if words := found.doubt():
                log.warning("queue.doubted", queue=self.name, reason=words)

    @property
    def doubts(self) -> Collection[DoubtKind]:
        """Every kind of doubt that the sink may have."""
        return self.sink.doubts if isinstance(self.sink, Upkept) else ()

    async def _doubt(self, doubts: Collection[SinkDoubt]) -> None:
        """Tell what the sink says, and that what it does not say is over. A kind that it never spoke of before is a
        bug of the sink: nobody would know how to end it."""
        said = {doubt.kind: doubt.detail for doubt in doubts}
        if unknown := said.keys() - set(self.doubts):
            names = ", ".join(sorted(kind.name for kind in unknown))
            raise RuntimeError(f"the sink has doubts that are not among its kinds: {names}")
        self._show("sink", "; ".join(said.values()) or None)
        for kind in self.doubts:
            await self._doubts(self, kind, said.get(kind))

    async def _concern(self, kind: str, words: str | None, told: Concern) -> None:
        self._show(kind, words)
        await told(self, words)

    def _show(self, kind: str, words: str | None) -> None:
        if words is None:
            self.concerns.pop(kind, None)
        else:
            self.concerns[kind] = words

    async def adopt(self) -> QueueRecord | None:
        """From now on what lies in the queue's place is the queue, or what is begun there: what was known of the one
        before.

        Raises :class:`MailpollerError` if it did not vanish.
        """
        if self.recognition is None:
            raise MailpollerError(f"the queue {self.name} bears no mark: there is nothing to adopt")
        record = await self.recognition.adopt()
        log.info("queue.adopted", queue=self.name, receipts=record.receipts if record else 0)
        if self.state is State.DOWN:
            trouble, vanished = await self._examine()
            if trouble is None:
                await self._up()
            else:
                await self._down(trouble, None, vanished=vanished)
        return record

    async def close(self) -> None:
        """Have noted how far the queue has got, and free what the sink holds."""
        if self.recognition is not None:
            await self.recognition.note()
        await self.sink.close()

    async def _retry(self) -> None:
        """When the queue is down, check it at its next try."""
        while True:
            await self._went_down.wait()
            await self._clock.sleep(max(0.0, self._down_until - self._clock.monotonic()))
            if self.state is not State.DOWN:
                self._went_down.clear()
                continue
            trouble, vanished = await self._examine()
            if self.state is not State.DOWN:
                self._went_down.clear()  # adopted meanwhile
            elif trouble is None:
                self._went_down.clear()
                self.state = State.PROBING
                self._on_ready()
                await self._believe()
            else:
                await self._down(trouble, None, vanished=vanished)

    async def _believe(self) -> None:
        """Give whoever has mail for the queue the time to try it; if nobody has any left, the check's word is
        enough."""
        try:
            async with asyncio.timeout(BELIEVED_AFTER.total_seconds()):
                await self._went_down.wait()
        except TimeoutError:
            if self.state is State.PROBING:
                await self._up()

    async def trouble(self) -> str | None:
        """Why a delivery could not succeed now, as far as can be told without one; None if it could."""
        return (await self._examine())[0]

    async def _ask(self) -> None:
        if self.recognition is not None:
            self.recognition.doubt()
            await self.recognition.require()
        await self.sink.check()

    async def _examine(self) -> tuple[str | None, bool]:
        """As :meth:`trouble`; and whether it is that the queue vanished."""
        try:
            await within(CHECK_DEADLINE.total_seconds(), self._ask())
        except TimeoutError:
            return f"no answer within {CHECK_DEADLINE.total_seconds():.0f} s", self.vanished
        except QueueVanished as error:
            return str(error) if self.recognition is None else self.recognition.explained(error), True
        except LedgerUnavailable as error:
            return str(error), self.vanished
        except (ConfigError, CredentialsMissing, ModuleNotFoundError) as failure:
            self._lacking = True
            return str(without(failure) if isinstance(failure, ModuleNotFoundError) else failure), False
        except MailpollerError as error:
            return str(error), False
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                return trouble, False
            log.exception("queue.crashed", queue=self.name, batch=0)
            return f"the sink failed in an unknown way ({type(error).__name__})", False
        return None, False
