"""One connection to a relay: opening it step by step, asking on it, closing it."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from aiosmtplib import SMTP, SMTPResponse
from aiosmtplib.errors import (
    SMTPConnectResponseError,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
)
from aiosmtplib.protocol import SMTPProtocol

from mailpoller.core.errors import ConfigError, CredentialsMissing, CredentialsRefused, MailpollerError, TransientError
from mailpoller.wire import dial
from mailpoller.wire.auth import Credentials
from mailpoller.wire.names import Address, resolve, written
from mailpoller.wire.redaction import spoken
from mailpoller.wire.sasl.exchange import Exchange, answered, encoded, initial
from mailpoller.wire.smtp.terms import RelayCut, RelaySettings, RelayUnavailable, words_of
from mailpoller.wire.tls import describe
from mailpoller.wire.unasked import Allowance

log = structlog.get_logger(__name__)

_QUIT_DEADLINE = 2.0
_INITIAL_LIMIT = 450
"""Characters of a first message that still go along with AUTH: a command has at most 512 octets (RFC 4954 section 4),
an answer 12,288."""


class Line:
    """One connection to the relay, in one caller's hands at a time.

    ``between_mails`` is True from the login on, except while a mail is being sent; whoever sends one keeps it true.
    ``reports``: reports may be asked for, if the relay offers them.
    """

    def __init__(self, settings: RelaySettings) -> None:
        self.settings = settings
        self._timeout = settings.timeout.total_seconds()
        self.client = SMTP(
            hostname=settings.host.removesuffix("."),  # for the certificate; it is we who connect
            port=None,
            timeout=self._timeout,
            use_tls=settings.tls == "tls",
            start_tls=False,
            local_hostname="localhost",  # never used: every EHLO is given its name
        )
        self._addresses: Sequence[Address] = ()
        self._socket: socket.socket | None = None
        self._hidden: Sequence[str] = ()
        """Secrets on the wire, while we log in: masked wherever the relay's words are quoted."""
        self.between_mails = False
        self.reports = True
        self.retirement: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """True if it is open, logged in, and no mail is half sent."""
        return self.between_mails and self.client.is_connected

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """The steps that open the line, in order, with the names of their stages; each tells what it found."""
        greet = "tls" if self.settings.tls == "tls" else "greeting"
        steps = [("dns", self._resolve), ("tcp", self._connect), (greet, self._greet)]
        if self.settings.socket is not None:
            steps = [("socket", self._connect_socket), (greet, self._greet)]
        if self.settings.tls.startswith("starttls"):
            steps.append(("tls", self._secure))
        return [*steps, ("login", self._login)]

    async def open(self) -> None:
        """Connect, secure, log in. Whoever gets an error calls :meth:`drop`."""
        for _, step in self.steps():
            await step()

    def drop(self) -> None:
        """Close without a word: nothing more can be said on it."""
        self.between_mails = False
        if self.client.is_connected:
            self.client.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def retire(self) -> None:
        """Say QUIT and close without waiting for the answer."""
        if self.ready and self.client.protocol is not None:
            self.client.protocol.write(b"QUIT\r\n")
        self.drop()

    async def quit(self) -> None:
        """Say QUIT, wait a moment for the answer, and close."""
        try:
            if self.client.is_connected:
                await self.client.quit(timeout=_QUIT_DEADLINE)
        except (SMTPException, OSError):
            pass
        finally:
            self.drop()

    # --- opening -----------------------------------------------------------------------------------------------
    async def _resolve(self) -> str:
        if self.settings.proxy is not None:
            return "asked at the proxy"
        with self._wanting():
            self._addresses = await resolve(self.settings.host, self.settings.port, seconds=self._timeout)
        return written(self._addresses)

    async def _connect(self) -> str:
        settings = self.settings
        with self._wanting(), self.faults("connecting"):
            if settings.proxy is not None:
                self._socket = await settings.proxy.connect(settings.host, settings.port, seconds=self._timeout)
                return f"by way of the {settings.proxy.place}"
            self._socket = await dial.connect(self._addresses, settings.place, seconds=self._timeout)
            return str(self._socket.getpeername()[0])

    async def _connect_socket(self) -> str:
        with self.faults("connecting"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            async with asyncio.timeout(self._timeout):
                await asyncio.get_running_loop().sock_connect(self._socket, str(self.settings.socket))
        return str(self.settings.socket)

    async def _greet(self) -> str:
        """TLS if it is implicit, the relay's greeting, and EHLO."""
        with self.faults("connecting"):
            context = await self._context() if self.settings.tls == "tls" else None
            taken, self._socket = self._socket, None
            await self.client.connect(sock=taken, tls_context=context)
            _bound(self.client.protocol)
        detail = self._check_peer() if self.settings.tls == "tls" else ""
        await self._hello()
        return detail

    async def _secure(self) -> str:
        if not self.client.supports_extension("starttls"):
            if self.settings.tls == "starttls-required":
                raise RelayUnavailable(f"{self.settings.place} offers no STARTTLS, and nothing is sent in clear")
            return "not offered: in clear"
        with self.faults("STARTTLS"):
            await self.client.starttls(tls_context=await self._context())
        detail = self._check_peer()
        await self._hello()
        return detail

    def _check_peer(self) -> str:
        tls: ssl.SSLObject = self._told_by_transport("ssl_object")
        try:
            self.settings.policy.check(tls.getpeercert(binary_form=True))
        except TransientError as error:
            raise RelayUnavailable(f"{self.settings.place}: {error}") from None
        return str(tls.version())

    def _told_by_transport(self, what: str) -> Any:
        with self.faults("the connection"):
            return self.client.get_transport_info(what)

    async def _context(self) -> ssl.SSLContext:
        """The shared context; made in a thread, for the first one costs 40 ms."""
        try:
            return await asyncio.to_thread(self.settings.policy.context)
        except ConfigError as error:
            raise RelayUnavailable(str(error)) from None

    async def _hello(self) -> None:
        """EHLO, or HELO where EHLO is not understood (RFC 5321 section 3.2); LHLO in LMTP (RFC 2033 section 4.1)."""
        name = self.settings.helo or _own_name() or _literal(self._told_by_transport("sockname"))
        if self.settings.lmtp:
            with self.faults("LHLO"):
                answer = await self.client.execute_command(b"LHLO", name.encode("ascii"))
                if answer.code != 250:
                    raise SMTPHeloError(answer.code, answer.message)
                self.client.last_ehlo_response = answer
            return
        with self.faults("EHLO"):
            try:
                await self.client.ehlo(hostname=name)
            except SMTPHeloError as error:
                if error.code not in (500, 502, 504) or not self.client.is_connected:
                    raise
                await self.client.helo(hostname=name)

    async def _login(self) -> str:
        credentials = self.settings.credentials
        encrypted = self._told_by_transport("sslcontext") is not None
        if not encrypted and self.settings.tls == "starttls":
            _warn_once(self.settings.place)
        mechanism = "anonymous"
        if credentials is not None:
            if not encrypted and self.settings.tls != "none":
                raise RelayUnavailable(f"{self.settings.place} offers no STARTTLS, and no password is sent in clear")
            mechanism = await self._authenticate(credentials, encrypted=encrypted)
        self.between_mails, self._hidden = True, ()
        return mechanism

    async def _authenticate(self, credentials: Credentials, *, encrypted: bool) -> str:
        """Log in by the strongest mechanism that both sides have; by the next one only if the relay says it does not
        know this one, for every try with a wrong password is a step towards a locked account. A token that is refused
        is replaced once."""
        offered = {one.upper() for one in self.client.server_auth_methods}
        said = "no login that we know"
        while True:
            with self._wanting():
                exchange = await credentials.exchange(offered, encrypted=encrypted)
                if exchange is None and said == "no login that we know":
                    await credentials.in_clear(
                        encrypted=encrypted
                    )  # tells, if it is for that reason that there is no way
            if exchange is None:
                raise CredentialsRefused(f"{self.settings.place} refused the login: {said}")
            try:
                unknown = await self._converse(exchange)
            except CredentialsRefused:
                if not await credentials.refused(exchange):
                    raise
                continue
            if unknown is None:
                credentials.accepted()
                return exchange.name
            said = unknown
            if exchange.name not in offered:
                raise CredentialsRefused(f"{self.settings.place} refused the login: {said}")
            offered.discard(exchange.name)

    async def _converse(self, exchange: Exchange) -> str | None:
        """AUTH (RFC 4954): None if we are logged in, the relay's words if it does not know the mechanism."""
        first, words = exchange.first(), [b"AUTH", exchange.name.encode("ascii")]
        if first is not None and len(initial(first)) <= _INITIAL_LIMIT:
            words.append(initial(first).encode("ascii"))
            first = None
        self._hidden = exchange.secrets
        with self.faults("the login"):
            answer = await self.client.execute_command(*words)
            while answer.code == 334:
                try:
                    said = await answered(exchange, answer.message) if first is None else encoded(first)
                except MailpollerError:
                    await self.client.execute_command(b"*")
                    raise
                first = None
                answer = await self.client.execute_command(said.encode("ascii"))
        if answer.code == 235:
            with self._wanting():
                exchange.conclude()
            return None
        told = spoken(f"{answer.code} {answer.message}", exchange.secrets)
        if exchange.explanation:
            told += f" ({exchange.explanation})"
        if answer.code == 421 or not self.client.is_connected:
            raise RelayCut(f"{self.settings.place}: {told}")
        if 400 <= answer.code < 500:
            raise RelayUnavailable(f"{self.settings.place} cannot check the login now: {told}")
        if answer.code == 504:
            return told
        raise CredentialsRefused(f"{self.settings.place} refused the login: {told}")

    @contextmanager
    def _wanting(self) -> Iterator[None]:
        """What keeps us from connecting or logging in, before a word was said: a passing trouble of the whole relay,
        or for a human."""
        try:
            yield
        except ConfigError as error:
            raise CredentialsMissing(str(error)) from None
        except RelayUnavailable:
            raise
        except dial.NoConnection as error:
            kind = RelayCut if error.at_once else RelayUnavailable
            raise kind(f"{self.settings.place}: {error.reason}") from None
        except TransientError as error:
            raise RelayUnavailable(f"{self.settings.place}: {error}", retry_after=error.retry_after) from None

    # --- open --------------------------------------------------------------------------------------------------
    async def ask(self, stage: str, *words: bytes) -> SMTPResponse:
        """Say a command and return the answer. Raises :class:`RelayUnavailable` if there is none, or none about the
        mail."""
        with self.faults(stage):
            answer = await self.client.execute_command(*words)
        if answer.code == 421:
            raise RelayCut(f"{self.settings.place} closes the connection: {words_of(answer)}")
        if answer.code in (500, 502, 503, 504):  # about the conversation, not about the mail
            raise RelayUnavailable(f"{self.settings.place} answered {stage} with {words_of(answer)}")
        return answer

    @contextmanager
    def faults(self, stage: str) -> Iterator[None]:
        """Whatever aiosmtplib, asyncio and ssl raise, as one of our errors."""
        place = self.settings.place
        try:
            yield
        except ExceptionGroup as several:
            with self.faults(stage):
                raise several.exceptions[0] from None
        except MailpollerError:
            raise
        except TimeoutError:
            raise RelayUnavailable(f"{place}: {stage}: no answer within {self._timeout:g} s") from None
        except SMTPResponseException as error:
            kind = RelayCut if error.code == 421 or isinstance(error, SMTPConnectResponseError) else RelayUnavailable
            raise kind(f"{place}: {stage}: {spoken(f'{error.code} {error.message}', self._hidden)}") from None
        except (SMTPException, OSError) as error:
            cause = error if isinstance(error, ssl.SSLError) else error.__cause__
            if isinstance(cause, ssl.SSLError):
                raise RelayUnavailable(f"{place}: {describe(cause, self.settings.host, self._timeout)}") from None
            kind = RelayCut if isinstance(error, SMTPServerDisconnected | ConnectionError) else RelayUnavailable
            raise kind(f"{place}: {stage}: {spoken(str(error), self._hidden)}") from None


def _bound(protocol: SMTPProtocol | None) -> None:
    """Cut the connection of a relay that goes on talking: aiosmtplib drops what nobody asked for, and reads on for
    ever."""
    if protocol is None:
        return
    loop = asyncio.get_running_loop()
    allowance, receive = Allowance(loop.time()), protocol.data_received

    def received(data: bytes) -> None:
        if getattr(protocol, "_response_pending", True) or allowance.spend(len(data), loop.time()):
            receive(data)
        elif isinstance(protocol.transport, asyncio.Transport):
            protocol.transport.abort()

    vars(protocol)["data_received"] = received


_warned: set[str] = set()


def _warn_once(place: str) -> None:
    if place not in _warned:
        _warned.add(place)
        log.warning("relay.unencrypted", relay=place)


def _own_name() -> str | None:
    """The host's name if it is a full one; asks nobody."""
    name = socket.gethostname()
    return name if "." in name.strip(".") and re.fullmatch(r"[A-Za-z0-9.-]+", name) else None


def _literal(sockname: tuple[Any, ...] | str | bytes) -> str:
    """Our address as RFC 5321 section 4.1.3 writes it."""
    if not isinstance(sockname, tuple):  # of a Unix socket, a name or nothing
        return "localhost"
    address = str(sockname[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
