"""The workers of a process: begun when they are first needed, ended when they hang."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

from mailpoller.core.body import Body, Contents
from mailpoller.core.errors import MachineTrouble
from mailpoller.core.message import RawMessage
from mailpoller.workers.frames import LARGEST, LENGTH, found_in, question

log = structlog.get_logger(__name__)

DEADLINE = timedelta(seconds=20)
"""For one body. The largest honest ones take two seconds on a slow machine."""
OPENING = timedelta(seconds=10)
"""For the parts of one message that take a reader of their own; each of these ends by itself within a second."""
IMPATIENT = timedelta(seconds=1)
"""Whoever has waited so long for a worker gets one more, of :data:`SPARE`."""
SPARE = 3
REMEMBERED = timedelta(hours=1)
"""So long after a mail of its has hung or killed a worker, a mailbox has spare workers alone."""
_FRAME = 1 << 16
_INHERITED = ("LANG", "LC_ALL", "PATH", "PYTHONPATH")
"""All that a worker has of our environment, where secrets may be (``env:``)."""


class Unread(Exception):
    """A body could not be read, for a reason that is the message's own, in one constant word."""


class NoWorker(MachineTrouble):
    """A worker cannot be begun, or all of them were taken: the machine's trouble, and not the message's."""


class Workers:
    """Reads bodies in ``count`` processes, and a few more while those are held up. A mailbox has one at a time.

    What hangs is killed after ``deadline``. A worker that dies may have been killed by somebody else, so its body is
    read once more in another one before the message is to blame.
    """

    def __init__(self, count: int, *, deadline: timedelta = DEADLINE) -> None:
        self._deadline = deadline.total_seconds()
        self._idle: list[asyncio.subprocess.Process] = []
        self._places = asyncio.Semaphore(count)
        self._spare = asyncio.Semaphore(SPARE)
        self._mailboxes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._hurt: dict[str, float] = {}
        """Mailbox -> until when it has spare workers alone."""

    async def read(self, raw: RawMessage, *, header: bool = False) -> Body:
        """The body of a message, which was parsed for it whole; with ``header`` that alone was parsed, and the body is
        empty. Raises :class:`Unread` and :class:`NoWorker`."""
        found = await self._answer(raw, question_of(raw, header=header), self._deadline)
        if not isinstance(found, Body):
            raise Unread("died")
        return found

    async def open(self, raw: RawMessage, closed: Sequence[str]) -> Contents:
        """What is in the parts of a message that are ``closed``, by their kinds. Raises :class:`Unread` and
        :class:`NoWorker`."""
        deadline = min(self._deadline, OPENING.total_seconds())
        found = await self._answer(raw, question_of(raw, closed=closed), deadline)
        if not isinstance(found, Contents):
            raise Unread("died")
        return found

    async def _answer(self, raw: RawMessage, asked: bytes, deadline: float) -> Body | Contents:
        mailbox = raw.claim.ref.folder.mailbox
        async with self._mailboxes[mailbox], self._place(mailbox):
            for last in (False, True):
                try:
                    return await self._read(raw, asked, deadline)
                except Unread as unread:
                    if last or str(unread) != "died":
                        self._hurt[mailbox] = asyncio.get_running_loop().time() + REMEMBERED.total_seconds()
                        raise
        raise AssertionError

    async def close(self) -> None:
        """End all of them."""
        while self._idle:
            await _end(self._idle.pop())

    @asynccontextmanager
    async def _place(self, mailbox: str) -> AsyncIterator[None]:
        places = self._places
        if self._hurt.get(mailbox, 0.0) > asyncio.get_running_loop().time():
            places = self._spare
        else:
            self._hurt.pop(mailbox, None)
        try:
            async with asyncio.timeout(IMPATIENT.total_seconds() if places is self._places else None):
                await places.acquire()
        except TimeoutError:
            places = self._spare
            await places.acquire()
        try:
            yield
        finally:
            places.release()

    async def _read(self, raw: RawMessage, asked: bytes, deadline: float) -> Body | Contents:
        worker = await self._worker()
        try:
            async with asyncio.timeout(deadline):
                found = await _ask(worker, raw, asked)
        except TimeoutError:
            await _end(worker)
            raise Unread("timed-out") from None
        except (OSError, EOFError, ValueError) as error:
            await _end(worker)
            log.warning("worker.died", pid=worker.pid, code=worker.returncode, error=type(error).__name__)
            raise Unread("died") from None
        except BaseException:
            await _end(worker)  # it is in the midst of something that nobody waits for
            raise
        self._idle.append(worker)
        if isinstance(found, str):
            raise Unread(found)
        return found

    async def _worker(self) -> asyncio.subprocess.Process:
        while self._idle:
            worker = self._idle.pop()
            if worker.returncode is None:
                return worker
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing that lies where the daemon was started is imported
                "-m",
                "mailpoller.workers.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # it could quote a mail
                env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            )
        except (OSError, MemoryError) as error:
            raise NoWorker(f"no process can be begun to read mail in: {error}") from None


def question_of(raw: RawMessage, *, header: bool = False, closed: Sequence[str] = ()) -> bytes:
    """What a worker is asked about a message."""
    octets = raw.octets
    return question(octets.size, None if octets.path is None else str(octets.path), header=header, closed=closed)


async def _ask(worker: asyncio.subprocess.Process, raw: RawMessage, asked: bytes) -> Body | Contents | str:
    """What the worker says. Raises :class:`OSError`, :class:`EOFError` and :class:`ValueError` for one that died or
    talks nonsense."""
    stdin, stdout = worker.stdin, worker.stdout
    assert stdin is not None and stdout is not None
    octets = raw.octets
    stdin.write(asked)
    if octets.path is None:
        view = octets.view()
        for begin in range(0, octets.size, _FRAME):
            stdin.write(view[begin : begin + _FRAME])
            await stdin.drain()
    await stdin.drain()
    (size,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
    if size > LARGEST:
        raise ValueError("an answer that is longer than any")
    return found_in(await stdout.readexactly(size))


async def _end(worker: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        worker.kill()
    await worker.wait()
