"""Listens on a Unix socket for entries, and answers each with what became of it."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import h11
import orjson
import structlog

from mailpoller.core.errors import (
    EntryForbidden,
    EntryKeyUsed,
    EntryPutOff,
    EntryRefused,
    EntryTooLarge,
    OutboxFull,
    TransientError,
)
from mailpoller.core.ports import EntryTaker
from mailpoller.core.record import record
from mailpoller.core.tasks import within
from mailpoller.intakes.http.request import LONGEST_HEAD, PIECE, Refused, Request
from mailpoller.storage.disk import require_place
from mailpoller.storage.local_socket import Peer, listen_at, peer_of, remove

log = structlog.get_logger(__name__)

CONNECTIONS = 256
"""Open at once; who comes then is cut off."""
CONNECTIONS_EACH = 32
"""Of one user, so that none keeps the others out; he is told to come again."""
LARGE_AT_ONCE = 4
"""Entries of more than a piece that are in memory; of one user there is one."""
LOOK_UP_DEADLINE = timedelta(seconds=5)
"""For the system, to say which groups a user is in."""
REQUEST_DEADLINE = timedelta(seconds=60)
"""For the whole entry, from the end of its header."""
TAKE_DEADLINE = timedelta(seconds=60)
"""For the disk and the ledger."""
ANSWER_DEADLINE = timedelta(seconds=5)
"""For whoever asked, to take the answer, and to end."""
STRANGER_DEADLINE = timedelta(seconds=1)
"""The same for who may not send: he is kept for no longer than it takes to come to the answer."""
LAST_ANSWERS = timedelta(seconds=10)
"""So long those who were heard are waited for when nobody else is."""
STILL_THERE = timedelta(seconds=5)
"""How often it is looked whether the socket is there still, and ours."""


@record
class Said:
    """An answer: its status, the object in its body, and more header fields."""

    status: int
    body: Mapping[str, Any]
    fields: Mapping[str, str] = field(default_factory=dict)


class HttpIntake:
    """See :class:`~mailpoller.core.ports.EntryListener`. One request a connection; the rules of HTTP are RFC 9110 and
    RFC 9112, a refusal is a problem of RFC 9457. Nobody's request, however it is written, costs another one his."""

    def __init__(self, path: Path, users: frozenset[str], groups: frozenset[str]) -> None:
        self._path = path
        self._users = users
        self._groups = groups
        self._talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._of_user: Counter[int] = Counter()
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._large_of_user: dict[int, asyncio.Semaphore] = {}

    async def serve(self, take: EntryTaker, ended: asyncio.Event, *, largest: int, opened: Callable[[], None]) -> None:
        """See :class:`~mailpoller.core.ports.EntryListener`."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._talks[task] = writer
            try:
                await self._talk(reader, writer, take, largest)
            finally:
                del self._talks[task]
                writer.close()

        mode = 0o666 if self._users or self._groups else 0o660
        try:
            listening = listen_at(self._path, mode)
            made = self._path.lstat()
            server = await asyncio.start_unix_server(talk, sock=listening, limit=LONGEST_HEAD)
        except OSError as error:
            raise TransientError(f"{self._path}: {error.strerror or error}") from None
        try:
            log.info("intake.listening", socket=str(self._path))
            opened()
            while not ended.is_set():
                await self._require_there(made)
                with suppress(TimeoutError):
                    async with asyncio.timeout(STILL_THERE.total_seconds()):
                        await ended.wait()
        finally:
            server.close()
            remove(self._path, made)
            if self._talks:
                await asyncio.wait(list(self._talks), timeout=LAST_ANSWERS.total_seconds())
            for task, writer in list(self._talks.items()):
                writer.transport.abort()
                task.cancel()

    async def _require_there(self, made: os.stat_result) -> None:
        """A socket whose file is gone is one that nobody finds: it is made anew."""
        try:
            found = self._path.lstat()
        except OSError:
            raise TransientError(f"{self._path}: the socket is gone") from None
        if (found.st_dev, found.st_ino) != (made.st_dev, made.st_ino):
            raise TransientError(f"{self._path}: something else lies in the socket's place")

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.EntryListener`: the socket is there or can be made, and whoever may send
        is known here."""
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        for name in self._users:
            try:
                pwd.getpwnam(name)
            except KeyError:
                raise TransientError(f"there is no user {name} on this machine") from None
        for name in self._groups:
            try:
                grp.getgrnam(name)
            except KeyError:
                raise TransientError(f"there is no group {name} on this machine") from None
        try:
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise TransientError(f"{self._path} is there, and is no socket")
        except FileNotFoundError:
            require_place(self._path.parent, 0)
        except OSError as error:
            raise TransientError(f"{self._path}: {error.strerror or error}") from None

    async def close(self) -> None:
        """There is nothing that outlasts :meth:`serve`."""

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, take: EntryTaker, largest: int
    ) -> None:
        request = Request(reader, writer)
        peer = peer_of(writer.get_extra_info("socket"))
        if peer is None or len(self._talks) > CONNECTIONS:
            writer.transport.abort()
            return
        self._of_user[peer.uid] += 1
        try:
            answer = await self._asked(request, peer, take, largest)
            if answer is not None:
                await _answer(request.protocol, writer, answer)
                await _hear_out(reader, STRANGER_DEADLINE if answer.status == 403 else ANSWER_DEADLINE)
        except (OSError, TimeoutError, h11.ProtocolError):
            writer.transport.abort()
        finally:
            self._of_user[peer.uid] -= 1
            if not self._of_user[peer.uid]:
                del self._of_user[peer.uid]
                self._large_of_user.pop(peer.uid, None)

    def _admitted(self, peer: Peer) -> bool:
        """Whether he may send. Looks names up."""
        if peer.uid == 0 or not (self._users or self._groups):
            return True
        if (name := peer.name) in self._users:
            return True
        allowed = set()
        for group in self._groups:
            with suppress(KeyError):
                allowed.add(grp.getgrnam(group).gr_gid)
        return bool(allowed.intersection((peer.gid, *os.getgrouplist(name, peer.gid))))

    async def _asked(self, request: Request, peer: Peer, take: EntryTaker, largest: int) -> Said | None:
        """The answer; None if there was no question."""
        try:
            if self._of_user[peer.uid] > CONNECTIONS_EACH:
                raise Refused(503, "this user has too many connections", retry_after="1")
            await self._require_admitted(peer)
            asked = await request.head(largest)
            if asked is None:
                return None
            async with AsyncExitStack() as turns:
                try:
                    async with asyncio.timeout(REQUEST_DEADLINE.total_seconds()):
                        if asked.length is None or asked.length > PIECE:
                            own = self._large_of_user.setdefault(peer.uid, asyncio.Semaphore(1))
                            await turns.enter_async_context(own)
                            await turns.enter_async_context(self._large)
                        octets = await request.body(largest)
                except TimeoutError:
                    raise Refused(408, "the entry takes too long") from None
                return await _taken(take, octets, asked.key)
        except Refused as error:
            return Said(error.status, {"detail": error.reason}, error.fields)
        except h11.RemoteProtocolError as error:
            return Said(error.error_status_hint, {"detail": f"this is no request: {error}"})
        except TimeoutError:
            return Said(408, {"detail": "the request takes too long"})

    async def _require_admitted(self, peer: Peer) -> None:
        try:
            admitted = await within(LOOK_UP_DEADLINE.total_seconds(), asyncio.to_thread(self._admitted, peer))
        except TimeoutError:
            raise Refused(503, "who asks cannot be looked up now", retry_after="30") from None
        if not admitted:
            log.info("intake.stranger", socket=str(self._path), uid=peer.uid)
            raise Refused(403, "this user may not send here")


async def _taken(take: EntryTaker, octets: bytes, key: str) -> Said:
    try:
        found = await within(TAKE_DEADLINE.total_seconds(), take(octets, key))
    except EntryForbidden as error:
        raise Refused(403, str(error)) from None
    except EntryKeyUsed as error:
        raise Refused(409, str(error)) from None
    except EntryTooLarge as error:
        raise Refused(413, str(error)) from None
    except EntryRefused as error:
        raise Refused(400, str(error)) from None
    except OutboxFull as error:
        raise Refused(507, str(error), retry_after="60") from None
    except EntryPutOff as error:
        raise Refused(503, str(error), retry_after="10") from None
    except TransientError as error:
        raise Refused(503, str(error), retry_after="30") from None
    except TimeoutError:
        reason = "it may be accepted still: hand it in again under the same key"
        raise Refused(503, reason, retry_after="30") from None
    except Exception as error:  # it is in the log
        raise Refused(500, f"this is a bug: {type(error).__name__}") from None
    answer = {
        "id": found.mail,
        "message_id": found.message_id,
        "recipients": found.recipients,
        "repeated": found.repeated,
    }
    return Said(202, answer)


async def _answer(protocol: h11.Connection, writer: asyncio.StreamWriter, said: Said) -> None:
    if protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    status, refused = said.status, said.status >= 400
    body = orjson.dumps({**({"title": _title(status), "status": status} if refused else {}), **said.body}) + b"\n"
    fields = {
        "Content-Type": "application/problem+json" if refused else "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Cache-Control": "no-store",
        **said.fields,
    }
    octets = protocol.send(h11.Response(status_code=status, headers=list(fields.items()))) or b""
    octets += (protocol.send(h11.Data(data=body)) or b"") + (protocol.send(h11.EndOfMessage()) or b"")
    async with asyncio.timeout(ANSWER_DEADLINE.total_seconds()):
        writer.write(octets)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


async def _hear_out(reader: asyncio.StreamReader, deadline: timedelta) -> None:
    """Let whoever is still sending come to the answer: a socket that is closed with octets in it is reset."""
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline.total_seconds()):
            while await reader.read(PIECE):
                pass
