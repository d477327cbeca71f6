"""HTTP as a client of one service speaks it (RFC 9110), on httpcore: bounded, with deadlines, and errors that are
decisions.

httpx is httpcore with redirects, cookies, proxies from the environment and decompression on top. A bearer token must
never follow a redirect, two mailboxes must share no cookie, and a small answer must not unpack to a large one: all of
it would have to be switched off, so it is left away. Connections are made as for every other protocol
(:mod:`~mailpoller.wire.dial`, :mod:`~mailpoller.wire.tls`), so that a pin is checked before a token is sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode, urlsplit

import orjson

from mailpoller.core.errors import ConfigError, MailpollerError
from mailpoller.core.spool import Intake
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.http.errors import (
    HttpCut,
    HttpError,
    HttpStatus,
    SpoolTrouble,
    Unauthorized,
    error_of,
    faults,
    retry_after,
)
from mailpoller.wire.http.framing import Framing
from mailpoller.wire.pace import PacedTimeout
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.redaction import spoken
from mailpoller.wire.retry import briefly
from mailpoller.wire.tls import TlsPolicy

if TYPE_CHECKING:
    import httpcore

    from mailpoller.wire.http.connections import Connections
from mailpoller.wire.http.answer import HttpAnswer, headers_of, redirection, require_plain

ANSWER_LIMIT = 4 << 20
"""Octets of an answer that is held in memory, unless a request says otherwise."""
_ERROR_LIMIT = 64 << 10
"""Octets of an error's body that are read for its code and message."""
_PATIENCE = 20
"""An answer must be complete after this many time-outs, however lively the server is. The time in which it comes at
the pace of :data:`~mailpoller.wire.pace.LEAST` does not count."""
_FRAMING = "mailpoller.framing"
"""Extension of a response: what its answer comes in."""
_PACED = "mailpoller.paced"
"""Extension of a response: the deadline of its answer."""
_PIECE = 64 << 10
"""Octets that are sent in one go; each of these may take the whole time-out."""
_KEPT = 60.0
"""Seconds that an idle connection is kept."""


class Bearer(Protocol):
    """Who has tokens; see :class:`mailpoller.wire.oauth.TokenSource`."""

    async def token(self) -> str:
        """A token that is good for some minutes. Raises :class:`CredentialsRefused` or :class:`TransientError`."""

    async def refused(self, token: str) -> bool:
        """The service did not take this token. True if the next :meth:`token` is another one."""

    def taken(self, token: str) -> None:
        """The service took this token."""


class HttpClient:
    """Talks to one service, which is one origin: no request and no token goes to another host, whatever a link says.

    ``base`` is the service's URL; a path is relative to it, and a full URL (a link to the next page) must be of the
    same origin. ``bearer``: whose tokens go along; a refused one is replaced once. ``timeout``: for connecting, and
    for every silence; an answer is complete after twenty of them or given up, those not counted in which it comes at
    1 KB a second. ``octets_in``: of all answers. ``connections`` are kept open for ``kept`` seconds. Nothing is
    followed: a redirect is an error that names its target's host. ``confidential``: every request holds a secret, so
    that none goes in clear.
    """

    def __init__(
        self,
        base: str,
        *,
        bearer: Bearer | None = None,
        policy: TlsPolicy | None = None,
        timeout: timedelta = timedelta(seconds=30),
        connections: int = 4,
        proxy: Proxy | None = None,
        headers: Mapping[str, str] | None = None,
        confidential: bool = False,
        kept: float = _KEPT,
    ) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.query:
            raise ConfigError("a service's URL is https://HOST or https://HOST/PATH")
        self.host = parts.hostname
        self._origin = _origin(base)
        self._prefix = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._secure = parts.scheme == "https" or is_loopback(self.host)
        self._confidential = confidential or bearer is not None
        self._bearer = bearer
        self._policy = policy or TlsPolicy()
        self._timeout = timeout.total_seconds()
        self._connections = connections
        self._kept = kept
        self.octets_in = 0
        self._proxy = proxy
        self._headers = {"accept-encoding": "identity", "user-agent": "mailpoller", **(headers or {})}
        self._pool: Connections | None = None

    async def request(
        self,
        method: str,
        target: str = "",
        *,
        doing: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        form: Mapping[str, str] | None = None,
        content: bytes | None = None,
        secrets: Sequence[str] = (),
        limit: int = ANSWER_LIMIT,
        takes: Sequence[int] = (),
    ) -> HttpAnswer:
        """Ask, and return a complete answer of at most ``limit`` octets.

        ``target``: a path below the base, or a URL of the same origin. ``doing``: what for, in two words, for errors
        (``list messages``); the target itself is never shown, for it names people. One of ``json``, ``form`` and
        ``content`` may be the body. ``secrets``: what must not be shown in an error. ``takes``: statuses besides 2xx
        that are answers for the caller.

        Raises :class:`HttpStatus`; :class:`Unauthorized` for a 401; :class:`HttpError` for all else; what
        the bearer raises. A GET whose connection breaks is repeated at once.
        """
        body, kind = _body(json, form, content)
        extra = {**({"content-type": kind} if kind else {}), **(headers or {})}

        async def once() -> HttpAnswer:
            async with self._ask(method, target, doing, query, extra, body, secrets, takes) as response:
                return await self._whole(response, doing, limit)

        return await briefly(once, on=HttpCut, tries=3 if method == "GET" else 1)

    async def download(
        self,
        target: str,
        intake: Intake,
        *,
        doing: str,
        headers: Mapping[str, str] | None = None,
        refuses: Collection[str] = (),
    ) -> bool:
        """GET into ``intake``, as it arrives. What lies beyond its limit is not read: the connection is given up
        instead.

        False: the answer had neither a length nor chunks (RFC 9112 section 6.3, rule 8), so that a cut looks like its
        end; nobody who has no other mark of the end may believe it. ``refuses``: media types, in lower case, of what
        is certainly not that which is wanted. Raises as :meth:`request`; the caller ends the intake, whose octets are
        then worth nothing.
        """
        async with self._ask("GET", target, doing, None, headers or {}, b"", (), ()) as response:
            headers = headers_of(response)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind in refuses:
                raise HttpError(f"{self.host}: to {doing} it answered with {spoken(kind)}")
            if response.status != 200:
                # 206 is a part that nobody asked for, 203 what somebody in between has made of it.
                raise HttpError(f"{self.host}: to {doing} it answered with HTTP {response.status}")
            await self._spooled(response, intake, doing)
            return "content-length" in headers or "transfer-encoding" in headers

    async def _spooled(self, response: httpcore.Response, intake: Intake, doing: str) -> None:
        async with aclosing(self._chunks(response, doing)) as chunks:
            async for chunk in chunks:
                try:
                    intake.write(chunk)
                except OSError as error:
                    raise SpoolTrouble(f"cannot spool a message: {error.strerror}") from error
                if intake.overflowed:
                    return

    async def close(self) -> None:
        """Close every connection. A later request opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    # --- one request -------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def _ask(
        self,
        method: str,
        target: str,
        doing: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: bytes,
        secrets: Sequence[str],
        takes: Sequence[int],
    ) -> AsyncIterator[httpcore.Response]:
        """Send, with a token if there is one, with another token if that was refused; a response that is an answer."""
        url = self._url(target, query, doing)
        if not self._secure and (self._confidential or secrets):
            raise ConfigError(f"{self.host}: a token or a secret goes over https:// only")
        async with self._deadline(doing) as paced:
            for attempt in (1, 2):
                token = await self._bearer.token() if self._bearer is not None else ""
                sent = {**self._headers, **headers, **({"authorization": f"Bearer {token}"} if token else {})}
                async with self._stream(method, url, sent, body, doing) as response:
                    response.extensions[_PACED] = paced
                    if 200 <= response.status < 300 or response.status in takes:
                        if self._bearer is not None:
                            self._bearer.taken(token)
                        yield response
                        return
                    trouble = await self._trouble(response, doing, [*secrets, token] if token else secrets, url)
                if not isinstance(trouble, Unauthorized) or self._bearer is None:
                    raise trouble
                if not await self._bearer.refused(token) or attempt == 2:
                    raise trouble

    @asynccontextmanager
    async def _stream(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, doing: str
    ) -> AsyncIterator[httpcore.Response]:
        pool = await self._opened()
        content: bytes | AsyncIterator[bytes] | None = body or (b"" if method in ("POST", "PUT", "PATCH") else None)
        if len(body) > _PIECE:
            headers = {**headers, "content-length": str(len(body))}
            content = _pieces(body)
        silence = {"connect": self._timeout, "read": self._timeout, "write": self._timeout, "pool": self._timeout * 4}
        with faults(f"{self.host}: {doing}", self._timeout):
            async with pool.stream(
                method,
                url,
                headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
                content=content,
                extensions={"timeout": silence},
            ) as response:
                response.extensions[_FRAMING] = Framing(response, f"{self.host}: {doing}")
                yield response

    async def _opened(self) -> Connections:
        if self._pool is None:
            from mailpoller.wire.http.network import open_pool

            made = await open_pool(
                self._policy, self._proxy, self._timeout, connections=self._connections, kept=self._kept
            )
            self._pool = self._pool or made  # somebody else may have been faster
        return self._pool

    def _url(self, target: str, query: Mapping[str, str] | None, doing: str) -> str:
        """The URL to ask, of our origin. Raises :class:`HttpError`: links come from the service and may be wrong."""
        whole = target
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", target):
            whole = self._prefix + (target if not target or target.startswith(("/", "?")) else f"/{target}")
        try:
            origin = _origin(whole)
        except ValueError:
            origin = None
        if origin != self._origin or any(one <= " " or one > "~" for one in whole):
            raise HttpError(f"{self.host}: to {doing} it gave a link that leads elsewhere, which is not followed")
        if query:
            whole += ("&" if urlsplit(whole).query else "?") + urlencode(query)
        return whole.partition("#")[0]

    # --- answers -----------------------------------------------------------------------------------------------
    async def _whole(self, response: httpcore.Response, doing: str, limit: int) -> HttpAnswer:
        headers = headers_of(response)
        told = headers.get("content-length", "")
        parts: list[bytes] = []
        size = int(told) if told.isdigit() and len(told) < 16 else 0
        taken = 0
        if size <= limit:
            async with aclosing(self._chunks(response, doing)) as chunks:
                async for chunk in chunks:
                    taken += len(chunk)
                    if taken > limit:
                        break
                    parts.append(chunk)
        if max(size, taken) > limit:
            raise HttpError(f"{self.host}: to {doing} it answered with more than {limit:,} octets")
        return HttpAnswer(response.status, headers, b"".join(parts), self.host)

    async def _chunks(self, response: httpcore.Response, doing: str) -> AsyncGenerator[bytes, None]:
        require_plain(headers_of(response), f"{self.host}: {doing}")
        paced, framing = response.extensions.get(_PACED), response.extensions[_FRAMING]
        with faults(f"{self.host}: {doing}", self._timeout):
            async for chunk in response.aiter_stream():
                self.octets_in += len(chunk)
                if isinstance(paced, PacedTimeout):
                    paced.came(len(chunk))
                if framing.came(len(chunk)):
                    await asyncio.sleep(0)
                yield chunk

    async def _trouble(
        self, response: httpcore.Response, doing: str, secrets: Sequence[str], url: str
    ) -> MailpollerError:
        """What an answer that is an error means."""
        status, headers = response.status, headers_of(response)
        place = f"{self.host}: {doing}"
        if 300 <= status < 400:
            return HttpStatus(redirection(status, headers, self.host, place), status=status)
        body = b""
        try:
            async with aclosing(self._chunks(response, doing)) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) >= _ERROR_LIMIT:
                        break
        except HttpError:
            pass  # what has come is enough for an error; it must not turn into another one
        code, words = error_of(body[:_ERROR_LIMIT], headers.get("content-type", ""), secrets, [url])
        told = f"{place}: HTTP {status}" + (f" {code}" if code else "") + (f": {words}" if words else "")
        if status == 401:
            return Unauthorized(told, code=code, words=words)
        return HttpStatus(told, status=status, code=code, words=words, retry_after=retry_after(headers))

    # --- faults ------------------------------------------------------------------------------------------------
    @asynccontextmanager
    async def _deadline(self, doing: str) -> AsyncIterator[PacedTimeout]:
        limit = self._timeout * _PATIENCE
        try:
            async with asyncio.timeout(limit) as whole:
                yield PacedTimeout(whole)
        except TimeoutError:
            if not whole.expired():
                raise
            raise HttpError(f"{self.host}: {doing}: not complete within {limit:g} s") from None


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port (RFC 6454 section 4). Raises ValueError, also for a URL with a user in it."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or not parts.hostname:
        raise ValueError("no plain URL")
    scheme = parts.scheme.lower()
    return scheme, parts.hostname.lower(), parts.port or (443 if scheme == "https" else 80)


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


def _body(json: object, form: Mapping[str, str] | None, content: bytes | None) -> tuple[bytes, str]:
    """The octets of a body and their media type, empty if the caller's headers name it."""
    if json is not None:
        return orjson.dumps(json), "application/json"
    if form is not None:
        return urlencode(form).encode("ascii"), "application/x-www-form-urlencoded"
    return content or b"", ""
