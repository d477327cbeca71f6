"""SMTP as a client speaks it (RFC 5321), on aiosmtplib: kept connections, deadlines, and errors that are decisions.

What aiosmtplib is not asked to do, and why:

* its ``start_tls=None`` upgrades if it can, so that whoever strips STARTTLS gets the login in clear: here the mode decides;
* its ``login`` tries a wrong password with every mechanism in turn, which locks accounts: here one mechanism is chosen;
* its ``data`` has one time-out for the whole upload, so that a large mail on a slow line fails for ever: here every piece has one;
* its default name for EHLO asks the DNS without a deadline: here it is configured, the host's own, or an address literal.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import structlog
from aiosmtplib import SMTP, SMTPResponse
from aiosmtplib.errors import (
    SMTPAuthenticationError,
    SMTPConnectResponseError,
    SMTPException,
    SMTPHeloError,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from mailpoller.core.errors import ConfigError, CredentialsRefused, MailpollerError, MessageRejected, TransientError
from mailpoller.core.literals import Secret
from mailpoller.core.ports import Mail, Stage
from mailpoller.transport.retry import briefly
from mailpoller.transport.tls import TlsMode, TlsPolicy, describe

log = structlog.get_logger(__name__)

_PIECE = 1 << 16
_ANSWER_PATIENCE = 10
"""RFC 5321 section 4.5.3.2.6 gives the answer to a mail more time than any other: who gives up there sends it twice."""
_SLOWEST_LINE = 8192
"""Octets a second; a relay that takes a mail more slowly is not waited for."""
_QUIT_DEADLINE = 2.0


class RelayUnavailable(TransientError):
    """The relay cannot be reached or spoken to: no other mail would fare better now."""


class RelayCut(RelayUnavailable):
    """As its parent; and it failed at once, before the relay can have taken anything: a second try costs nothing."""


class NotCarried(MessageRejected):
    """The relay cannot carry the mail in this form; a lesser form may pass.

    ``lacks`` is ``8BITMIME`` (the mail has octets above 127) or ``SIZE`` (it is too large; ``limit`` is the most that the
    relay or the configuration allows, in octets, 0 if nobody said).
    """

    def __init__(self, message: str, *, lacks: str, limit: int = 0) -> None:
        super().__init__(message)
        self.lacks = lacks
        self.limit = limit


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Where the relay is and how it is spoken to. ``timeout`` is for every single step; ``max_size`` in octets."""

    host: str
    port: int
    tls: TlsMode
    policy: TlsPolicy
    username: str | None = None
    password: Secret | None = None
    timeout: timedelta = timedelta(seconds=30)
    helo: str | None = None
    max_size: int = 50_000_000
    connections: int = 2
    keep: timedelta = timedelta(seconds=15)

    @property
    def place(self) -> str:
        """Host and port, for errors and logs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Relay:
    """Sends mail through one relay, over at most ``connections`` connections, each kept open for ``keep`` after its last mail."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.connections)
        self._idle: list[Line] = []

    async def send(self, mail: Mail) -> str:
        """Return the relay's answer once it has taken the mail for at least one recipient.

        Recipients that were refused while another was accepted are named in the answer and logged: who wants the mail
        has it, and a second try would send it twice. Raises :class:`RelayUnavailable`, :class:`CredentialsRefused`,
        :class:`NotCarried`, :class:`MessageRejected`, or :class:`TransientError` for this mail alone.
        """
        if len(mail.octets) > self._settings.max_size:
            limit = self._settings.max_size
            raise NotCarried(f"{len(mail.octets)} octets are more than max_size, {limit}", lacks="SIZE", limit=limit)
        async with self._slots:
            return await briefly(lambda: self._send(mail), on=RelayCut)

    async def _send(self, mail: Mail) -> str:
        line = self._kept()
        try:
            if line is None:
                line = Line(self._settings)
                await line.open()
            return await line.send(mail)
        finally:
            if line is not None:
                self._keep(line)

    def _kept(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.retirement is not None:
                line.retirement.cancel()
            if line.ready:
                return line
            line.drop()
        return None

    def _keep(self, line: Line) -> None:
        """Keep the line if it stands between two mails; whatever was interrupted in the middle of one is dropped."""
        if not line.ready:
            line.drop()
            return
        self._idle.append(line)
        keep = self._settings.keep.total_seconds()
        line.retirement = asyncio.get_running_loop().call_later(keep, self._retire, line)

    def _retire(self, line: Line) -> None:
        self._idle.remove(line)
        line.retire()

    async def probe(self) -> AsyncIterator[Stage]:
        """Every stage up to the login, on a connection of its own; ends after the first that fails."""
        line = Line(self._settings)
        try:
            for name, step in line.steps():
                started = monotonic()
                try:
                    detail = await step()
                except MailpollerError as error:
                    elapsed = timedelta(seconds=monotonic() - started)
                    yield Stage(name, False, elapsed, str(error), _advice(name, self._settings, error))
                    return
                yield Stage(name, True, timedelta(seconds=monotonic() - started), detail)
            await line.quit()
        finally:
            line.drop()

    async def close(self) -> None:
        """End the kept connections; takes two seconds at most."""
        lines, self._idle = self._idle, []
        for line in lines:
            if line.retirement is not None:
                line.retirement.cancel()
        async with asyncio.TaskGroup() as group:
            for line in lines:
                group.create_task(line.quit(), name=f"quit {self._settings.place}")


class Line:
    """One connection to the relay, in one caller's hands at a time."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._timeout = settings.timeout.total_seconds()
        self._client = SMTP(
            hostname=settings.host,
            port=None,
            timeout=self._timeout,
            use_tls=settings.tls == "tls",
            start_tls=False,
            local_hostname="localhost",  # never used: every EHLO is given its name
        )
        self._addresses: Sequence[tuple[socket.AddressFamily, int, tuple[Any, ...]]] = ()
        self._socket: socket.socket | None = None
        self._name = ""
        self._between_mails = False
        self.retirement: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        """True if it is open, logged in, and no mail is half sent."""
        return self._between_mails and self._client.is_connected

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """The steps that open the line, in order, with the names of their stages; each tells what it found."""
        greet = "tls" if self._settings.tls == "tls" else "greeting"
        steps = [("dns", self._resolve), ("tcp", self._connect), (greet, self._greet)]
        if self._settings.tls.startswith("starttls"):
            steps.append(("tls", self._secure))
        return [*steps, ("login", self._login)]

    async def open(self) -> None:
        """Connect, secure, log in. Whoever gets an error calls :meth:`drop`."""
        for _, step in self.steps():
            await step()

    async def send(self, mail: Mail) -> str:
        """One mail transaction (RFC 5321 section 3.3). Afterwards the line is ready for the next one, or it is broken."""
        if not mail.recipients:
            raise MessageRejected("the mail has no recipient")
        options = self._options(mail)
        encoding = "utf-8" if b"SMTPUTF8" in options else "ascii"
        self._between_mails = False
        answer = await self._ask("MAIL", b"MAIL", b"FROM:" + _path(mail.sender, encoding), *options)
        if answer.code != 250:
            await self._reset()
            raise self._refused("sender", answer)
        refusals: list[SMTPResponse] = []
        for recipient in mail.recipients:
            answer = await self._ask("RCPT", b"RCPT", b"TO:" + _path(recipient, encoding))
            if answer.code not in (250, 251, 252):
                refusals.append(answer)
        if len(refusals) == len(mail.recipients):
            await self._reset()
            raise self._refused("recipients", next((one for one in refusals if one.code < 500), refusals[0]))
        answer = await self._ask("DATA", b"DATA")
        if answer.code != 354:
            await self._reset()
            raise self._refused("mail", answer)
        answer = await self._transfer(mail.octets)
        self._between_mails = answer.code != 421
        if answer.code != 250:
            raise self._refused("mail", answer)
        words = _words(answer)
        if refusals:
            others = f"{len(refusals)} of {len(mail.recipients)} recipients refused: {_words(refusals[0])}"
            log.warning(
                "recipient.refused",
                relay=self._settings.place,
                refused=len(refusals),
                recipients=len(mail.recipients),
                answer=_words(refusals[0]),
            )
            return f"{words} ({others})"
        return words

    def drop(self) -> None:
        """Close without a word: nothing more can be said on it."""
        self._between_mails = False
        if self._client.is_connected:
            self._client.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def retire(self) -> None:
        """Say QUIT and close without waiting for the answer."""
        if self.ready and self._client.protocol is not None:
            self._client.protocol.write(b"QUIT\r\n")
        self.drop()

    async def quit(self) -> None:
        """Say QUIT, wait a moment for the answer, and close."""
        try:
            if self._client.is_connected:
                await self._client.quit(timeout=_QUIT_DEADLINE)
        except (SMTPException, OSError):
            pass
        finally:
            self.drop()

    # --- opening -----------------------------------------------------------------------------------------------
    async def _resolve(self) -> str:
        with self._faults("looking up the host"):
            try:
                async with asyncio.timeout(self._timeout):
                    found = await asyncio.get_running_loop().getaddrinfo(
                        self._settings.host, self._settings.port, type=socket.SOCK_STREAM
                    )
            except (socket.gaierror, UnicodeError) as error:
                reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
                raise RelayUnavailable(f"{self._settings.host}: {reason}") from None
        self._addresses = [(family, protocol, address) for family, _, protocol, _, address in found]
        return ", ".join(dict.fromkeys(str(address[0]) for *_, address in self._addresses))

    async def _connect(self) -> str:
        """Try the addresses in the resolver's order; each gets its share of the time, so that one dead route spoils nothing."""
        loop = asyncio.get_running_loop()
        failure = RelayUnavailable(f"{self._settings.place}: no address")
        for family, protocol, address in self._addresses:
            # The protocol must be named: without it asyncio leaves Nagle's algorithm on, and every mail takes 40 ms more.
            candidate = socket.socket(family, socket.SOCK_STREAM, protocol)
            candidate.setblocking(False)
            try:
                async with asyncio.timeout(self._timeout / len(self._addresses)):
                    await loop.sock_connect(candidate, address)
            except TimeoutError:
                failure = RelayUnavailable(f"{self._settings.place}: no connection within {self._timeout:g} s")
                candidate.close()
            except OSError as error:
                failure = RelayCut(f"{self._settings.place}: {os.strerror(error.errno or 0).lower()}")
                candidate.close()
            except BaseException:
                candidate.close()
                raise
            else:
                self._socket = candidate
                return str(address[0])
        raise failure

    async def _greet(self) -> str:
        """TLS if it is implicit, the relay's greeting, and EHLO."""
        with self._faults("connecting"):
            context = await self._context() if self._settings.tls == "tls" else None
            taken, self._socket = self._socket, None
            await self._client.connect(sock=taken, tls_context=context)
        detail = self._check_peer() if self._settings.tls == "tls" else ""
        await self._hello()
        return detail

    async def _secure(self) -> str:
        if not self._client.supports_extension("starttls"):
            if self._settings.tls == "starttls-required":
                raise RelayUnavailable(f"{self._settings.place} offers no STARTTLS, and nothing is sent in clear")
            return "not offered: in clear"
        with self._faults("STARTTLS"):
            await self._client.starttls(tls_context=await self._context())
        detail = self._check_peer()
        await self._hello()
        return detail

    def _check_peer(self) -> str:
        tls: ssl.SSLObject = self._client.get_transport_info("ssl_object")
        try:
            self._settings.policy.check(tls.getpeercert(binary_form=True))
        except TransientError as error:
            raise RelayUnavailable(f"{self._settings.place}: {error}") from None
        return str(tls.version())

    async def _context(self) -> ssl.SSLContext:
        """The shared context; made in a thread, for the first one costs 40 ms."""
        try:
            return await asyncio.to_thread(self._settings.policy.context)
        except ConfigError as error:
            raise RelayUnavailable(str(error)) from None

    async def _hello(self) -> None:
        """EHLO, or HELO where EHLO is not understood (RFC 5321 section 3.2)."""
        self._name = self._settings.helo or _own_name() or _literal(self._client.get_transport_info("sockname"))
        with self._faults("EHLO"):
            try:
                await self._client.ehlo(hostname=self._name)
            except SMTPHeloError as error:
                if error.code not in (500, 502, 504) or not self._client.is_connected:
                    raise
                await self._client.helo(hostname=self._name)

    async def _login(self) -> str:
        username, password = self._settings.username, self._settings.password
        encrypted = self._client.get_transport_info("sslcontext") is not None
        if not encrypted and self._settings.tls == "starttls":
            _warn_once(self._settings.place)
        if username is None or password is None:
            self._between_mails = True
            return "anonymous"
        if not encrypted and self._settings.tls != "none":
            raise RelayUnavailable(f"{self._settings.place} offers no STARTTLS, and no password is sent in clear")
        try:
            secret = await asyncio.to_thread(password.reveal)
        except ConfigError as error:
            raise CredentialsRefused(str(error)) from None
        mechanism = await self._authenticate(username, secret, encrypted=encrypted)
        self._between_mails = True
        return mechanism

    async def _authenticate(self, username: str, secret: str, *, encrypted: bool) -> str:
        """Log in by the first mechanism that both sides know; the next one only if the relay says it does not know this one."""
        known = ("PLAIN", "LOGIN", "CRAM-MD5") if encrypted else ("CRAM-MD5", "PLAIN", "LOGIN")
        offered = [one for one in known if one.lower() in self._client.server_auth_methods]
        said = "no login that we know"
        for mechanism in offered:
            method = {
                "PLAIN": self._client.auth_plain,
                "LOGIN": self._client.auth_login,
                "CRAM-MD5": self._client.auth_crammd5,
            }[mechanism]
            with self._faults("the login"):
                try:
                    await method(username, secret)
                except SMTPAuthenticationError as error:
                    said = _scrubbed(_words(SMTPResponse(error.code, error.message)), username, secret)
                    if error.code == 421 or not self._client.is_connected:
                        raise RelayCut(f"{self._settings.place}: {said}") from None
                    if 400 <= error.code < 500:
                        raise RelayUnavailable(f"{self._settings.place} cannot check the login now: {said}") from None
                    if error.code != 504:
                        break
                else:
                    return mechanism
        raise CredentialsRefused(f"{self._settings.place} refused the login: {said}")

    # --- sending -----------------------------------------------------------------------------------------------
    def _options(self, mail: Mail) -> list[bytes]:
        """The parameters of MAIL (RFC 1870, 6152, 6531); raises before a word is said if the relay cannot carry the mail."""
        options, offers = [], self._client.supports_extension
        if offers("size"):
            said = self._client.esmtp_extensions["size"].strip()
            limit = int(said) if said.isdecimal() else 0
            if limit and len(mail.octets) > limit:
                words = f"{len(mail.octets)} octets are more than the {limit} that {self._settings.place} takes"
                raise NotCarried(words, lacks="SIZE", limit=limit)
            options.append(b"SIZE=%d" % len(mail.octets))
        if not mail.octets.isascii():
            if not offers("8bitmime"):
                raise NotCarried(f"{self._settings.place} takes no 8-bit mail", lacks="8BITMIME")
            options.append(b"BODY=8BITMIME")
        if not all(address.isascii() for address in (mail.sender, *mail.recipients)):
            if not offers("smtputf8"):
                raise MessageRejected(f"{self._settings.place} takes no addresses outside ASCII (SMTPUTF8)")
            options.append(b"SMTPUTF8")
        return options

    async def _ask(self, stage: str, *words: bytes) -> SMTPResponse:
        with self._faults(stage):
            answer = await self._client.execute_command(*words)
        if answer.code == 421:
            raise RelayCut(f"{self._settings.place} closes the connection: {_words(answer)}")
        if answer.code in (500, 502, 503, 504):  # about the conversation, not about the mail
            raise RelayUnavailable(f"{self._settings.place} answered {stage} with {_words(answer)}")
        return answer

    async def _transfer(self, octets: bytes) -> SMTPResponse:
        """The octets in pieces, each with its own deadline; the answer is read meanwhile, because a relay may refuse half-way."""
        protocol = self._client.protocol
        if protocol is None:
            raise RelayCut(f"{self._settings.place}: connection lost")
        limit = self._timeout * _ANSWER_PATIENCE + len(octets) / _SLOWEST_LINE
        complete = False

        async def upload() -> None:
            nonlocal complete
            for piece in _stuffed(octets):
                async with asyncio.timeout(self._timeout):
                    # The coroutine that StreamWriter.drain() awaits: the only flow control there is.
                    await protocol._drain_helper()
                protocol.write(piece)
            complete = True

        try:
            with self._faults("the mail"):
                async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
                    uploading = group.create_task(upload(), name=f"upload {self._settings.place}")
                    answer = await protocol.read_response(timeout=None)
                    uploading.cancel()
        except RelayCut as error:
            if complete:
                raise RelayUnavailable(f"{error}; it may have taken the mail") from None
            raise
        if not complete:
            self._client.close()
            if answer.code < 400:
                raise RelayUnavailable(
                    f"{self._settings.place} answered before the mail was complete: {_words(answer)}"
                )
        return answer

    async def _reset(self) -> None:
        """RSET: the transaction is over and the line may be used again."""
        answer = await self._ask("RSET", b"RSET")
        self._between_mails = answer.code == 250

    def _refused(self, what: str, answer: SMTPResponse) -> MailpollerError:
        """The decision that a refusal asks for (RFC 5321 section 4.2.1, RFC 3463, RFC 4954 section 6)."""
        said = f"{self._settings.place} refused the {what}: {_words(answer)}"
        status = re.match(r"\d\.\d{1,3}\.\d{1,3}", answer.message)
        if answer.code in (530, 534, 535, 538):
            return CredentialsRefused(said)
        if answer.code < 500:
            return TransientError(said)
        too_large = status[0] in ("5.3.4", "5.2.3") if status else answer.code == 552
        if too_large and what != "recipients":
            return NotCarried(said, lacks="SIZE")
        return MessageRejected(said)

    @contextmanager
    def _faults(self, stage: str) -> Iterator[None]:
        """Whatever aiosmtplib, asyncio and ssl raise, as one of our errors."""
        place = self._settings.place
        try:
            yield
        except ExceptionGroup as several:
            with self._faults(stage):
                raise several.exceptions[0] from None
        except MailpollerError:
            raise
        except TimeoutError:
            raise RelayUnavailable(f"{place}: {stage}: no answer within {self._timeout:g} s") from None
        except SMTPResponseException as error:
            kind = RelayCut if error.code == 421 or isinstance(error, SMTPConnectResponseError) else RelayUnavailable
            raise kind(f"{place}: {stage}: {_words(SMTPResponse(error.code, error.message))}") from None
        except (SMTPException, OSError) as error:
            cause = error if isinstance(error, ssl.SSLError) else error.__cause__
            if isinstance(cause, ssl.SSLError):
                raise RelayUnavailable(f"{place}: {describe(cause, self._settings.host, self._timeout)}") from None
            kind = RelayCut if isinstance(error, SMTPServerDisconnected | ConnectionError) else RelayUnavailable
            raise kind(f"{place}: {stage}: {' '.join(str(error).split())}") from None


_warned: set[str] = set()


def _warn_once(place: str) -> None:
    if place not in _warned:
        _warned.add(place)
        log.warning("relay.unencrypted", relay=place)


def _own_name() -> str | None:
    """The host's name if it is a full one; asks nobody."""
    name = socket.gethostname()
    return name if "." in name.strip(".") and re.fullmatch(r"[A-Za-z0-9.-]+", name) else None


def _literal(sockname: tuple[Any, ...]) -> str:
    """Our address as RFC 5321 section 4.1.3 writes it."""
    address = str(sockname[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _path(address: str, encoding: str) -> bytes:
    if re.search(r"[\s<>\x00-\x1f\x7f]", address):
        raise MessageRejected("an address holds characters that SMTP has no place for")
    return b"<" + address.encode(encoding) + b">"


def _stuffed(octets: bytes) -> Iterator[bytes]:
    """The octets in pieces, dots doubled at the start of lines, and the end of the mail (RFC 5321 section 4.5.2).

    A lone LF counts as a line end here: a relay that is lenient about it must not find an end of mail inside the mail.
    """
    before = b"\n"
    for start in range(0, len(octets), _PIECE):
        piece = octets[start : start + _PIECE]
        dot = b"." if before == b"\n" and piece.startswith(b".") else b""
        yield dot + piece.replace(b"\n.", b"\n..")
        before = piece[-1:]
    yield b".\r\n" if octets.endswith(b"\r\n") else b"\r\n.\r\n"


def _words(answer: SMTPResponse) -> str:
    """What the relay said, on one line and not too long."""
    text = "".join(one if one.isprintable() else " " for one in f"{answer.code} {answer.message}")
    return " ".join(text.split())[:300]


def _scrubbed(words: str, username: str, secret: str) -> str:
    """Without the secret, should the relay have repeated it."""
    plain = secret.encode()
    both = b"\0" + username.encode() + b"\0" + plain
    for form in (secret, base64.b64encode(plain).decode(), base64.b64encode(both).decode()):
        words = words.replace(form, "********") if form else words
    return words


def _advice(stage: str, settings: RelaySettings, error: MailpollerError) -> str:
    """What a sysadmin can do about a stage that failed."""
    if isinstance(error, CredentialsRefused):
        return "Check username and password; many providers want an app password, or have SMTP AUTH switched off."
    if stage == "dns":
        return "Check the spelling of host, and that this machine's resolver knows it."
    if stage == "tcp":
        return f"Check port {settings.port} and the firewalls between; submission is 587 (STARTTLS) or 465 (TLS), relays often 25."
    if stage == "tls" and settings.tls == "starttls-required":
        return "If the relay speaks TLS from the first octet (465), say tls: tls; if its certificate is your own, name ca_file or pin."
    if stage == "tls":
        return "If the relay wants STARTTLS (587), say tls: starttls-required; if its certificate is your own, name ca_file or pin."
    if stage == "greeting":
        return "Something else may answer on this port, or the relay does not want this machine; its log knows."
    return "Say tls: starttls-required, or tls: none if the line is safe, and check that the relay offers AUTH."
