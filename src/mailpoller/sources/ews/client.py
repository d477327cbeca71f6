"""One connection to an Exchange server: a request at a time, answers read as they arrive, every wait bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import httpcore
import structlog

from mailpoller.core.errors import CredentialsRefused, MailpollerError, SessionLost, TransientError
from mailpoller.core.ports import Clock
from mailpoller.remote.polled_session import Asked
from mailpoller.sources.ews.authentication import Attempt, Challenge, Login, read_challenge
from mailpoller.sources.ews.config import EwsSettings
from mailpoller.sources.ews.reader import AnswerReader, Contents, Enough, Malformed, Node
from mailpoller.sources.ews.replies import BUSY, Busy, Reply, fault
from mailpoller.sources.ews.soap import Request, envelope
from mailpoller.wire.http import HttpCut, HttpError, HttpSilence, faults, retry_after
from mailpoller.wire.http.answer import headers_of, redirection, require_plain
from mailpoller.wire.http.connections import Connections
from mailpoller.wire.http.framing import Framing
from mailpoller.wire.http.network import open_pool
from mailpoller.wire.pace import Pace
from mailpoller.wire.redaction import spoken
from mailpoller.wire.retry import as_told

T = TypeVar("T")
log = structlog.get_logger(__name__)

ANSWER_LIMIT = 16 << 20
"""Octets of an answer besides message content: 512 changes have 0.5 MB, a sync state of a huge folder some MB."""
TRIES = 3
"""How often the same is asked of a server that is busy."""
PATIENCE = timedelta(seconds=10)
"""A back-off up to this is waited for; for a longer one the mailbox is given up until then."""
UNSAID = timedelta(seconds=2)
"""The back-off of a server that is busy and says no time."""

_REST = 64 << 10
"""Octets of a refusal's body that are read so that the connection can go on."""
_OVERALL = 20
"""An answer must be complete after this many silences, however lively the server is. The time in which it comes at
the pace of :data:`~mailpoller.wire.pace.LEAST` does not count."""
_KEPT = 100.0
"""Seconds that an idle connection is kept; IIS closes it after 120."""
_FRAMING = "mailpoller.framing"
"""Extension of a response: what its answer comes in."""
_LEGS = 8
"""Requests that one exchange takes at most, handshakes counted."""


class _Cut(Exception):
    """The connection failed; ``fresh`` if nothing of an answer had come."""

    def __init__(self, reason: str, *, fresh: bool) -> None:
        super().__init__(reason)
        self.fresh = fresh


class EwsClient(Asked):
    """Speaks with one server for one session. Every request takes its turn."""

    def __init__(self, config: EwsSettings, login: Login, clock: Clock) -> None:
        self._config = config
        self._login = login
        self._clock = clock
        self._turn = asyncio.Lock()
        self._pool: Connections | None = None
        self._pace = Pace(time.monotonic())
        self._used = False
        """The connection has carried an answer."""
        self._whole = False
        """The answer in hand was read to its end."""
        self._impersonated = config.mailbox if config.access == "impersonation" else None
        self._headers = {
            "content-type": "text/xml; charset=utf-8",
            "accept": "text/xml",
            "accept-encoding": "identity",
            "user-agent": "mailpoller",
        }
        if "@" in config.owner:
            # Whose mailbox is meant: lets Exchange route the request to the server that has it.
            self._headers["x-anchormailbox"] = config.owner.encode("ascii", "ignore").decode()

    @property
    def octets_in(self) -> int:
        """Octets of answers that have come."""
        return self._pace.octets

    async def ask(self, request: Request, doing: str) -> list[Reply]:
        """All replies to a request, one for each of its parts. ``doing``: what for, for errors (``list the folder``).

        A server that is busy for up to ten seconds is waited for. Raises :class:`SessionLost` (:class:`Busy` for
        longer), :class:`CredentialsRefused`, :class:`HttpError`, or what a fault means.
        """

        async def once() -> list[Reply]:
            async with aclosing(self.answers(request, doing)) as answers:
                replies = [reply async for reply in answers]
            for reply in replies:
                if reply.code in BUSY:
                    # Of many parts some may have been done; what is asked for twice is done once.
                    raise reply.trouble(doing)
            return replies

        return await self.patiently(once)

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work``, and again while the server is busy, after as long as it wishes; :class:`Busy` is for the whole
        session if that is long, or was in vain."""
        try:
            return await as_told(work, self._pause, tries=TRIES, sleep=self._clock.sleep)
        except Busy as busy:
            self.lost = self.lost or str(busy)
            raise

    async def answers(
        self, request: Request, doing: str, contents: Contents | None = None
    ) -> AsyncGenerator[Reply, None]:
        """As :meth:`ask`, each reply as soon as it is complete, without waiting for a busy server. To be closed
        (``aclosing``); whoever closes it early gives up the connection and nothing else. No other request
        before that."""
        self.check()
        async with self._turn:
            self.check()
            clean = self._whole = False
            try:
                for attempt in (1, 2):
                    kept = self._used
                    try:
                        async with aclosing(self._exchange(request, doing, contents)) as replies:
                            async for reply in replies:
                                yield reply
                        clean = True
                        return
                    except _Cut as cut:
                        if attempt == 2 or not (cut.fresh and kept):
                            raise self.lose(str(cut)) from None
                        # A connection that was kept may have been closed as we sent. All we ask for is harmless when
                        # repeated.
                        await self._hang_up()
                    except MailpollerError:
                        # A refusal that was read to its end leaves the connection, and the login on it, as good as it
                        # was.
                        clean = self._whole
                        raise
            finally:
                if not clean:
                    # Whatever ended it, a cancellation too: what is still under way on this connection is not ours
                    # any more.
                    await self._hang_up()

    def _pause(self, error: Exception, _attempt: int) -> float | None:
        """Seconds for which a server that is busy wants to be left alone; None for longer than we wait."""
        if not isinstance(error, Busy):
            return None
        wish = UNSAID if error.retry_after is None else error.retry_after
        if wish > PATIENCE:
            return None
        log.debug("server.busy", host=self._config.host, wait_s=wish.total_seconds())
        return wish.total_seconds()

    async def _hang_up(self) -> None:
        pool, self._pool, self._used = self._pool, None, False
        if pool is not None:
            await pool.aclose()

    # --- one exchange ------------------------------------------------------------------------------------------
    async def _exchange(self, request: Request, doing: str, contents: Contents | None) -> AsyncGenerator[Reply, None]:
        await self.in_pace(self._clock)
        body = envelope(request, self._impersonated)
        async with self._answered(body, doing) as response:
            reader = AnswerReader(limit=ANSWER_LIMIT, contents=contents)
            try:
                async for chunk in self._chunks(response, doing):
                    trouble: Exception | None = None
                    try:
                        reader.feed(chunk)
                    except Exception as error:
                        trouble = error
                    # What was complete before the answer broke is as good as ever.
                    while reader.arrived:
                        yield _expected(reader.arrived.pop(0), request)
                    if trouble is not None:
                        raise trouble
                whole = reader.finish()
            except Malformed as error:
                raise HttpError(f"{self._config.host}: {doing}: {error}") from None
            except (MailpollerError, _Cut, Enough, OSError):
                raise
            except Exception as error:  # not its words: they may quote anybody's mail
                kind = type(error).__name__
                raise HttpError(f"{self._config.host}: {doing}: the answer cannot be read ({kind})") from error
            self._used = self._whole = True
            if (refusal := fault(whole)) is not None:
                raise refusal.trouble(doing)
            if whole.find("Body", f"{request.operation}Response", "ResponseMessages") is None:
                raise HttpError(f"{self._config.host}: {doing}: an answer to another question")

    @asynccontextmanager
    async def _answered(self, body: bytes, doing: str) -> AsyncIterator[httpcore.Response]:
        """A response that holds SOAP, after whatever the login takes."""
        attempt = await self._login.begin()
        for _ in range(_LEGS):
            async with AsyncExitStack() as stack:
                response = await stack.enter_async_context(self._sent(attempt, body, doing))
                if response.status != 401:
                    if attempt.bare:
                        raise HttpError(f"{self._config.host}: a login is not answered with a challenge")
                    await self._judge(response, doing)
                    self._login.accepted()
                    yield response
                    return
                challenge = _challenge(response)
                await self._read_out(response, doing)
            attempt = await self._login.next(challenge)
        raise CredentialsRefused(f"{self._config.host}: the login does not come to an end")

    @asynccontextmanager
    async def _sent(self, attempt: Attempt, body: bytes, doing: str) -> AsyncIterator[httpcore.Response]:
        pool = await self._opened()
        headers = {**self._headers, **({"authorization": attempt.authorization} if attempt.authorization else {})}
        connect, silence = self._config.connect_timeout.total_seconds(), self._config.command_timeout.total_seconds()
        async with AsyncExitStack() as stack:
            with self._faults(doing, fresh=True):
                response = await stack.enter_async_context(
                    pool.stream(
                        b"POST",
                        self._config.url.encode("ascii"),
                        headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
                        content=b"" if attempt.bare else body,
                        extensions={
                            "timeout": {"connect": connect, "read": silence, "write": silence, "pool": silence}
                        },
                    )
                )
            response.extensions[_FRAMING] = Framing(response, f"{self._config.host}: {doing}")
            yield response

    async def _opened(self) -> Connections:
        if self._pool is None:
            config = self._config
            # NTLM logs in a connection, so there is one and all that belongs together goes over it.
            self._pool = await open_pool(
                config.policy, config.proxy, config.connect_timeout.total_seconds(), connections=1, kept=_KEPT
            )
        return self._pool

    # --- answers -----------------------------------------------------------------------------------------------
    async def _judge(self, response: httpcore.Response, doing: str) -> None:
        """Return if SOAP follows: an answer (200) or a fault (500)."""
        status, headers, host = response.status, headers_of(response), self._config.host
        place = f"{host}: {doing}"
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        require_plain(headers, place)
        if status in (200, 500) and kind in ("text/xml", "application/soap+xml"):
            return
        if 300 <= status < 400:
            raise HttpError(redirection(status, headers, host, place))
        if status == 403:
            raise CredentialsRefused(f"{place}: HTTP 403: EWS is not allowed to this login, or not on this way")
        if status in (429, 502, 503, 504):
            raise Busy(f"{place}: HTTP {status}", retry_after=retry_after(headers))
        if status == 200:
            raise HttpError(f"{place}: it answered with {spoken(kind) or 'no content type'} instead of XML")
        raise HttpError(f"{place}: HTTP {status}")

    async def _chunks(self, response: httpcore.Response, doing: str) -> AsyncGenerator[bytes, None]:
        limit = self._config.command_timeout.total_seconds() * _OVERALL
        ends = time.monotonic() + limit
        self._pace.begin(time.monotonic())
        framing: Framing = response.extensions[_FRAMING]
        with self._faults(doing, fresh=False):
            async with aclosing(_stream(response)) as stream:
                async for chunk in stream:
                    self._pace.octets += len(chunk)
                    if framing.came(len(chunk)):
                        await asyncio.sleep(0)
                    yield chunk
                    ends += self._pace.credit(time.monotonic())
                    if time.monotonic() > ends:
                        raise HttpError(f"{self._config.host}: {doing}: not complete within {limit:g} s")

    async def _read_out(self, response: httpcore.Response, doing: str) -> None:
        """Read the rest of a refusal, so that its connection can go on; a long one costs the connection."""
        taken = 0
        async with aclosing(self._chunks(response, doing)) as chunks:
            async for chunk in chunks:
                taken += len(chunk)
                if taken > _REST:
                    return

    @contextmanager
    def _faults(self, doing: str, *, fresh: bool) -> Iterator[None]:
        """Whatever the network raises, as :class:`_Cut`."""
        place = f"{self._config.host}: {doing}"
        try:
            with faults(place, self._config.command_timeout.total_seconds()):
                yield
        except (HttpCut, HttpSilence) as error:
            raise _Cut(str(error), fresh=fresh and isinstance(error, HttpCut)) from None
        except (HttpError, SessionLost, CredentialsRefused):
            raise
        except TransientError as error:  # dialling and TLS
            raise _Cut(str(error), fresh=False) from None


async def _stream(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    async for chunk in response.aiter_stream():
        yield chunk


def _expected(node: Node, request: Request) -> Reply:
    if node.name != f"{request.operation}ResponseMessage":
        raise Malformed("an answer to another question")
    return Reply.read(node)


def _challenge(response: httpcore.Response) -> Challenge:
    stream: Any = response.extensions.get("network_stream")
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    certificate = None if tls is None else tls.getpeercert(binary_form=True)
    return Challenge(read_challenge(response.headers), stream, certificate)
