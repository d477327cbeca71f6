"""The local socket through which the command line speaks to a running daemon: one JSON object each way, a line each."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from mailpoller.core.errors import LedgerUnavailable, MailpollerError, MessageGone, TransientError
from mailpoller.storage.local_socket import listen_at, peer_of, remove

log = structlog.get_logger(__name__)

LONGEST_REQUEST = 64 << 10
LONGEST_ANSWER = 8 << 20
READ_DEADLINE = timedelta(seconds=5)
"""For whoever has connected, to say what he wants."""
REQUEST_DEADLINE = timedelta(seconds=60)
REQUESTS = 16
"""Carried out at once; the others wait."""
BODIES = 2
"""Requests with a body that are taken at once: each is in memory."""
SMALL_BODY = 64 << 10
"""Octets of a body that are read before it is one of those: who sends none keeps nobody waiting."""
SMALL_BODIES = 16
"""Requests with no more than that that are carried out at once."""
BODY_STALLS = timedelta(seconds=5)
"""So long the next octets of a large body are waited for."""
CONNECTIONS = 100
"""Open at once; who comes then is turned away."""

_KINDS: Mapping[str, type[MailpollerError]] = {
    "gone": MessageGone,
    "ledger": LedgerUnavailable,
    "transient": TransientError,
}
"""The errors that a refusal tells apart; all others are plain :class:`MailpollerError` on the other side."""

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Answers requests on a Unix socket.

    A request is ``{"do": VERB, …}``; the answer is the handler's object with ``"ok": true``, or ``{"ok": false,
    "error": TEXT, "kind": KIND}``. Whoever may write to the socket may ask: its mode is 0660, its group the
    service's. Who connects and says nothing keeps nobody else from asking.

    ``bodies``: verb -> octets that may follow its request at most, as many as ``body`` says. Its handler finds them as
    ``octets``. Every handler finds the number of the user who asks as ``peer`` (SO_PEERCRED).
    """

    def __init__(self, path: Path, handlers: Mapping[str, Handler], bodies: Mapping[str, int] | None = None) -> None:
        self._path = path
        self._handlers = handlers
        self._bodies = bodies or {}
        self._carrying = asyncio.Semaphore(BODIES)
        self._carrying_small = asyncio.Semaphore(SMALL_BODIES)
        self._turns = asyncio.Semaphore(REQUESTS)
        self._connections = 0

    async def serve(self, ended: asyncio.Event) -> None:
        """Serve until ``ended``. A socket that cannot be made costs the control commands, not the mail."""
        try:
            listening = listen_at(self._path)
            made = self._path.lstat()
            server = await asyncio.start_unix_server(self._talk, sock=listening, limit=LONGEST_REQUEST)
        except OSError as error:
            log.warning("control.unavailable", reason=error.strerror or str(error))
            return
        try:
            async with server:
                await ended.wait()
        finally:
            remove(self._path, made)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > CONNECTIONS:
                return
            async with asyncio.timeout(READ_DEADLINE.total_seconds()):
                line = await reader.readline()
            request = self._request(line)
            if request is not None and request["do"] in self._bodies:
                await self._carry(request, reader, writer)
                return
            async with self._turns, asyncio.timeout(REQUEST_DEADLINE.total_seconds()):
                await self._reply(writer, await self._answer(request, writer))
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
        writer.write(json.dumps(answer, default=str).encode() + b"\n")
        await writer.drain()

    def _request(self, line: bytes) -> dict[str, Any] | None:
        """What is asked, if it is a request that we know."""
        try:
            request = json.loads(line)
            return request if isinstance(request, dict) and request["do"] in self._handlers else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    async def _carry(self, request: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A request with a body. Its turn comes when its body does."""
        size, most = request.get("body"), self._bodies[request["do"]]
        if not isinstance(size, int) or size < 0:
            await self._reply(writer, {"ok": False, "error": "the request lacks something, or has it wrong"})
            return
        if size > most:
            refusal = {"ok": False, "error": f"{size} octets are more than {most}", "kind": "refused"}
            await self._reply(writer, refusal)
            return
        async with asyncio.timeout(READ_DEADLINE.total_seconds()):
            octets = bytearray(await reader.readexactly(min(size, SMALL_BODY)))
        turns = self._carrying if size > SMALL_BODY else self._carrying_small
        async with turns, asyncio.timeout(REQUEST_DEADLINE.total_seconds()):
            while left := size - len(octets):
                async with asyncio.timeout(BODY_STALLS.total_seconds()):
                    piece = await reader.read(min(left, SMALL_BODY))
                if not piece:
                    return
                octets += piece
            await self._reply(writer, await self._answer({**request, "octets": bytes(octets)}, writer))

    async def _answer(self, request: dict[str, Any] | None, writer: asyncio.StreamWriter) -> Mapping[str, Any]:
        if request is None:
            return {"ok": False, "error": "not a request that this daemon knows"}
        handler = self._handlers[request["do"]]
        try:
            return {"ok": True, **await handler({**request, "peer": _peer(writer)})}
        except MailpollerError as error:
            return {"ok": False, "error": str(error), "kind": _kind(error)}
        except (KeyError, ValueError, TypeError):
            return {"ok": False, "error": "the request lacks something, or has it wrong"}
        except Exception:
            log.exception("control.failed", verb=str(request.get("do")))
            return {"ok": False, "error": "the request failed; the daemon's log says why"}


def _peer(writer: asyncio.StreamWriter) -> str:
    """The name of the user at the other end; nothing if the kernel does not tell."""
    peer = peer_of(writer.get_extra_info("socket"))
    return "" if peer is None else peer.name


def who_of(request: Mapping[str, Any]) -> str:
    """Who asks: as they call themselves, and as the system knows them if that is another name."""
    who, peer = str(request.get("who") or "")[:100], str(request.get("peer") or "")
    return who if not peer or who == peer else f"{who} (as {peer})" if who else peer


def _kind(error: MailpollerError) -> str:
    return next((kind for kind, known in _KINDS.items() if isinstance(error, known)), "refused")


def ask(
    path: Path, request: Mapping[str, Any], *, deadline: timedelta = REQUEST_DEADLINE, body: bytes | None = None
) -> dict[str, Any]:
    """Ask a running daemon and return its answer. ``body``: octets that follow the request.

    Raises :class:`TransientError` if none listens there, and the daemon's own error, in its words, if it refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
            wire.settimeout(deadline.total_seconds())
            wire.connect(str(path))
            asked = request if body is None else {**request, "body": len(body)}
            wire.sendall(json.dumps(asked, default=str).encode() + b"\n")
            if body:
                with suppress(BrokenPipeError, ConnectionResetError):  # it has said why before it has read it all
                    wire.sendall(body)
            with wire.makefile("rb") as answers:
                answer: dict[str, Any] = json.loads(answers.readline(LONGEST_ANSWER) or b"{}")
    except PermissionError:
        raise TransientError(f"{path}: permission denied; members of the service's group may ask the daemon") from None
    except TimeoutError:
        words = f"has not answered within {deadline.total_seconds():.0f} s, and may be at it still"
        raise TransientError(f"the daemon on {path} {words}: look before you ask again") from None
    except (OSError, ValueError) as error:
        raise TransientError(f"no daemon answers on {path}: {getattr(error, 'strerror', None) or error}") from None
    if not answer:
        raise TransientError(f"the daemon on {path} hung up without an answer")
    if not answer.pop("ok", False):
        words = str(answer.get("error") or "the daemon did not answer")
        raise _KINDS.get(str(answer.get("kind")), MailpollerError)(words)
    return answer
