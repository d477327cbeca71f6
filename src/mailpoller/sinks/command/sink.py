"""The queue whose receipt is a program's exit code: what is given to it, and what its end means for a batch."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from random import randrange
from time import monotonic
from typing import Literal

import structlog

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.tasks import TaskGroup
from mailpoller.sinks.command.process import Ended, Program, Stop, run
from mailpoller.sinks.command.verdict import in_words, verdict
from mailpoller.storage.blame import Blame
from mailpoller.storage.recent import Recent
from mailpoller.storage.thread import Pool, seen_out

log = structlog.get_logger(__name__)

_BUDGET_S = 90.0
"""No further program is started for a batch after so many seconds: what is known then is told before the engine gives
up on the batch."""
_IN_A_ROW = 10
"""Different messages that are put off, with none taken between, before no more are tried."""
_SIDE_BY_SIDE = 3
"""Of these, the ones that are tried in their order."""
_HANGS_S = 15.0
"""A program whose start takes so long is on a disk that hangs."""
_LONGEST_VALUE = 200
"""Characters of a value in the environment."""


class CommandQueue:
    """Runs a program for each delivery. A repeat that this process knows is not given to it again; after a restart it
    comes under the same delivery id."""

    def __init__(self, name: str, program: Program, *, events: bool, concurrency: int) -> None:
        self.octets_place: OctetsPlace = "inside" if events else "beside"
        self._name = name
        self._program = program
        self._events = events
        self.sifts: Literal[True] = True
        self._lanes = concurrency
        self._hands = asyncio.Semaphore(concurrency)
        self._pool: Pool | None = None
        self._looks: Pool | None = None
        """One thread: what a disk that hangs holds up is a check, and not a run."""
        self._recent = Recent()
        self._blame = Blame()
        self._row: set[str] = set()
        """Messages that were put off, as the queue's trouble, since the program last said what it makes of one."""

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """Run the program for each delivery; those that it put off before come last. The queue's trouble ends the
        batch: what was taken is told, the rest is put off.

        Raises :class:`TransientError` if it took and refused nothing.
        """
        answers: dict[str, Receipt | Refusal] = {
            one.delivery_id: SealedReceipt(one.delivery_id, repeated=True)
            for one in batch
            if one.delivery_id in self._recent
        }
        fresh = {one.delivery_id: one for one in batch if one.delivery_id not in answers}
        waiting = sorted(fresh.values(), key=lambda one: one.delivery_id in self._blame)
        troubles: list[TransientError] = []
        busy: list[str] = []
        ends = monotonic() + _BUDGET_S

        async def lane() -> None:
            while waiting and not (troubles or busy):
                if not await self._free_hand(ends - monotonic()):
                    busy.append("the program is too slow for so many at once")
                    return
                try:
                    if troubles or not waiting:
                        return
                    # Bad ones may stand side by side: after some of them, others are looked for further on.
                    delivery = waiting.pop(0 if len(self._row) < _SIDE_BY_SIDE else randrange(len(waiting)))
                    answers[delivery.delivery_id] = await self._deliver(delivery)
                except TransientError as error:
                    troubles.append(error)
                finally:
                    self._hands.release()
                if len(self._row) >= _IN_A_ROW:
                    self._row.clear()
                    words = f"{_IN_A_ROW} messages in a row were put off: {_reason(answers, delivery)}"
                    troubles.append(TransientError(words))

        if fresh:
            async with TaskGroup() as group:
                for number in range(min(self._lanes, len(fresh))):
                    group.create_task(lane(), name=f"command {self._name} {number}")
        put_off = [one for one in answers.values() if isinstance(one, Refusal) and one.blame == "queue"]
        if len(put_off) == len(answers) and (troubles or len(put_off) > 1):
            # Nobody can tell whether it is the messages; but they have nothing in common, apart from the program.
            raise troubles[0] if troubles else TransientError(put_off[0].reason)
        return list(_in_order(batch, answers, str((troubles or busy or [""])[0])))

    async def _free_hand(self, within_s: float) -> bool:
        """Wait until one more program may run. False if that takes too long."""
        if within_s <= 0:
            return False
        try:
            async with asyncio.timeout(within_s):
                return await self._hands.acquire()
        except TimeoutError:
            return False

    async def _deliver(self, delivery: Delivery) -> Receipt | Refusal:
        """One message. Raises :class:`TransientError` for what is the queue's trouble."""
        ended = await self._run(delivery)
        words, delivery_id = in_words(ended), delivery.delivery_id
        log.debug(
            "program.ended",
            queue=self._name,
            mid=delivery.mid,
            how=ended.how,
            code=ended.code,
            elapsed_s=round(ended.elapsed_s, 3),
        )
        match verdict(ended):
            case "taken":
                self._row.clear()
                self._blame.taken(delivery_id)
                self._recent.add([delivery_id])
                return SealedReceipt(delivery_id, "exit 0")
            case "message":
                self._row.clear()
                self._blame.settled(delivery_id)
                return Refusal(delivery_id, words, permanent=True)
            case "queue":
                raise TransientError(words)
            case "again":
                if (blame := self._blame.put_off(delivery_id)) == "queue":
                    self._row.add(delivery_id)
                return Refusal(delivery_id, words, blame=blame)

    async def _run(self, delivery: Delivery) -> Ended:
        if self._pool is None:
            self._pool = Pool(f"command-{self._name}", self._lanes)
        content = delivery.event.structured() if self._events else delivery.raw.octets
        stop = Stop()
        work = asyncio.get_running_loop().run_in_executor(
            self._pool, run, self._program, environment(delivery, self._program.path), content, stop
        )
        try:
            async with asyncio.timeout(self._program.timeout_s + _HANGS_S):
                return await asyncio.shield(work)
        except TimeoutError:
            raise TransientError(f"{self._program.words[0]} could not even be started: its disk hangs") from None
        finally:
            if not work.done():
                # Nobody may be left behind that works on a message which is somebody else's by then.
                stop.say()
                await seen_out(work)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Looks for the program, and starts nothing."""
        if self._looks is None:
            self._looks = Pool(f"command-{self._name}-check", 1)
        trouble = await asyncio.get_running_loop().run_in_executor(self._looks, _missing, self._program)
        if trouble:
            raise TransientError(trouble, advice="Look at command and directory, and who may run it.")

    @property
    def durability(self) -> Durability:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return Durability.promised("the exit code 0")

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        pools, self._pool, self._looks = (self._pool, self._looks), None, None
        for pool in pools:
            if pool is not None:
                pool.shutdown()


def environment(delivery: Delivery, path: str) -> Mapping[bytes, bytes]:
    """All that the program is given beside the message: ids and names of ours, and the words of rules, on one line
    each and not too long."""
    said = delivery.attributes
    values = {
        "PATH": path,
        "LANG": os.environ.get("LANG") or "C.UTF-8",
        "MAILPOLLER_MID": delivery.mid,
        "MAILPOLLER_DELIVERY_ID": delivery.delivery_id,
        "MAILPOLLER_QUEUE": delivery.queue,
        "MAILPOLLER_MAILBOX": delivery.raw.claim.ref.folder.mailbox,
        "MAILPOLLER_TOPIC": _plain(said.topic),
        "MAILPOLLER_PRIORITY": said.priority,
        "MAILPOLLER_TAGS": _plain(",".join(said.tags)),
        "MAILPOLLER_REASON": _plain(said.reason),
        "MAILPOLLER_TRUNCATED": "1" if delivery.raw.truncated else "",
    }
    return {name.encode(): os.fsencode(value) if name == "PATH" else value.encode() for name, value in values.items()}


def _plain(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text[:_LONGEST_VALUE])


def _missing(program: Program) -> str:
    """Why the program could not be started, in words; empty if it could."""
    first = program.words[0]
    if not program.directory.is_dir():
        return f"{program.directory} is no directory"
    if shutil.which(first, path=program.path) is None:
        return f"there is no program {first} that may be run" + ("" if "/" in first else f" in {program.path}")
    return ""


def _reason(answers: Mapping[str, Receipt | Refusal], delivery: Delivery) -> str:
    answer = answers.get(delivery.delivery_id)
    return answer.reason if isinstance(answer, Refusal) else "see the log"


def _in_order(
    batch: Sequence[Delivery], answers: Mapping[str, Receipt | Refusal], otherwise: str
) -> Iterator[Receipt | Refusal]:
    told: set[str] = set()
    for one in batch:
        answer = answers.get(one.delivery_id) or Refusal(one.delivery_id, otherwise, blame="queue")
        if isinstance(answer, Receipt) and one.delivery_id in told:
            answer = SealedReceipt(answer.delivery_id, answer.reference, repeated=True)
        told.add(one.delivery_id)
        yield answer
