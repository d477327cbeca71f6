"""Whether a queue takes mail: what it fails by, when it is tried again, and what proves that it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from enum import Enum

import structlog

from mailpoller.core.errors import (
    ConfigError,
    CredentialsMissing,
    LedgerUnavailable,
    MailpollerError,
    QueueVanished,
    machine_trouble,
)
from mailpoller.core.extras import without
from mailpoller.core.ports import BlobStore, Clock, Sink
from mailpoller.core.tasks import within
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.recognition import Recognition

log = structlog.get_logger(__name__)

CHECK_DEADLINE = timedelta(seconds=30)

BELIEVED_AFTER = timedelta(minutes=2)
"""A queue that passed its check, and that nobody brings mail to, counts as up after so long."""

LOOKED_FOR = timedelta(minutes=1)
"""How often at least what is missing here is looked for."""

Told = Callable[[bool, str], Awaitable[None]]


class State(Enum):
    """Whether a queue takes mail."""

    UP = "up"
    DOWN = "down"
    """Failed; nothing is brought to it until its next try."""
    PROBING = "probing"
    """Its check passed; one message goes first, the rest follows if that is taken."""


class Availability:
    """The state of one queue, and its back-off.

    ``told`` hears of both edges (is it up, why); ``ready`` is called whenever it takes mail again.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        retry_interval: timedelta,
        clock: Clock,
        told: Told,
        ready: Callable[[], None],
        recognition: Recognition | None,
        blobs: BlobStore | None = None,
    ) -> None:
        self.state = State.UP
        self.reason = ""
        self.vanished = False
        """True while it is down because what lies in its place is not the queue that was delivered to."""
        self.proven = False
        """True once a delivery, or time with a check, said that an earlier process's trouble is over."""
        self.failures = 0
        """How often it went down."""
        self.down_until = 0.0
        """When it is tried again, by the monotonic clock."""
        self._name = name
        self._sink = sink
        self._clock = clock
        self._told = told
        self._ready = ready
        self._recognition = recognition
        self._blobs = blobs
        self._backoff = Backoff(retry_interval, retry_interval * 30)
        self._went_down = asyncio.Event()
        self._lacking = False
        """It is down because something is missing here: that is looked for every minute."""

    async def failed(self, reason: str, retry_after: timedelta | None, *, lacking: bool = False) -> None:
        """A batch met the failure. Others that were under way meet the same one, and it counts once: else the wait
        would grow with the number of mailboxes."""
        if self.state is not State.DOWN:
            self._lacking = lacking
            await self._down(reason, retry_after)

    async def lost(self, error: QueueVanished) -> None:
        """What lies there is not the queue that it was."""
        if self.state is not State.DOWN or not self.vanished:
            reason = str(error) if self._recognition is None else self._recognition.explained(error)
            await self._down(reason, None, vanished=True)

    async def up(self) -> None:
        """It took mail, or was believed to."""
        self.state, self.reason, self.vanished, self._lacking = State.UP, "", False, False
        self._backoff.reset()
        self._ready()
        log.info("queue.recovered", queue=self._name)
        await self._told(True, "")

    async def prove(self) -> None:
        """An alarm of an earlier run ends with the first delivery of this one."""
        self.proven = True
        if self.state is State.UP:
            try:
                await self._told(True, "")
            except Exception:
                self.proven = False
                raise

    async def trouble(self) -> str | None:
        """Why a delivery could not succeed now, as far as can be told without one; None if it could."""
        return (await self._examine())[0]

    async def adopted(self) -> None:
        """What lies in its place is the queue from now on: if it was down, look at it again."""
        if self.state is State.DOWN:
            trouble, vanished = await self._examine()
            if trouble is None:
                await self.up()
            else:
                await self._down(trouble, None, vanished=vanished)

    async def recognise(self) -> None:
        """A queue that vanished, or whose blobs did, is told of, also if nobody brings mail to it."""
        try:
            if self._recognition is not None:
                await within(CHECK_DEADLINE.total_seconds(), self._recognition.require())
            if self._blobs is not None:
                await within(CHECK_DEADLINE.total_seconds(), self._blobs.check())
        except QueueVanished as error:
            await self.lost(error)
        except (TimeoutError, MailpollerError) as error:
            log.debug("queue.unkept", queue=self._name, reason=str(error))

    async def retry(self) -> None:
        """When the queue is down, check it at its next try. Never returns."""
        while True:
            await self._went_down.wait()
            await self._clock.sleep(max(0.0, self.down_until - self._clock.monotonic()))
            if self.state is not State.DOWN:
                self._went_down.clear()
                continue
            trouble, vanished = await self._examine()
            if self.state is not State.DOWN:
                self._went_down.clear()  # adopted meanwhile
            elif trouble is None:
                self._went_down.clear()
                self.state = State.PROBING
                self._ready()
                await self._believe()
            else:
                await self._down(trouble, None, vanished=vanished)

    async def prove_in_time(self) -> None:
        """Where there is nothing to deliver, a check's word is enough for that it is up."""
        await self._clock.sleep(BELIEVED_AFTER.total_seconds())
        if not self.proven and self.state is State.UP and await self.trouble() is None:
            await self.prove()

    async def _down(self, reason: str, retry_after: timedelta | None, *, vanished: bool = False) -> None:
        self.failures += 1
        wait = self._backoff.failed(at_least=retry_after)
        if self._lacking:
            wait = min(wait, LOOKED_FOR.total_seconds())
        edge = self.reason == "" or self.vanished is not vanished
        self.state, self.reason, self.vanished = State.DOWN, reason or "unknown", vanished
        if self._recognition is not None:
            self._recognition.doubt()
        self.down_until = self._clock.monotonic() + wait
        self._went_down.set()
        log.warning("queue.failed", queue=self._name, reason=self.reason, retry_s=round(wait, 1))
        if edge:
            await self._told(False, self.reason)

    async def _believe(self) -> None:
        """Give whoever has mail for the queue the time to try it; if nobody has any left, the check's word is
        enough."""
        try:
            async with asyncio.timeout(BELIEVED_AFTER.total_seconds()):
                await self._went_down.wait()
        except TimeoutError:
            if self.state is State.PROBING:
                await self.up()

    async def _ask(self) -> None:
        if self._recognition is not None:
            self._recognition.doubt()
            await self._recognition.require()
        await self._sink.check()
        if self._blobs is not None:
            await self._blobs.check()

    async def _examine(self) -> tuple[str | None, bool]:
        """As :meth:`trouble`; and whether it is that the queue vanished."""
        try:
            await within(CHECK_DEADLINE.total_seconds(), self._ask())
        except TimeoutError:
            return f"no answer within {CHECK_DEADLINE.total_seconds():.0f} s", self.vanished
        except QueueVanished as error:
            return str(error) if self._recognition is None else self._recognition.explained(error), True
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
            log.exception("queue.crashed", queue=self._name, batch=0)
            return f"the sink failed in an unknown way ({type(error).__name__})", False
        return None, False
