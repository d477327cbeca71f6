"""SMTP relays for tests: a real one on aiosmtpd that can be told to refuse, and a scripted one that can misbehave at
any step."""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from servers.certificates import Certificate
from servers.certificates import make_certificate as make_certificate
from servers.listener import Listener, cut


@dataclass(frozen=True)
class Received:
    """A mail that the relay took."""

    sender: str
    recipients: tuple[str, ...]
    octets: bytes
    options: tuple[str, ...]
    encrypted: bool
    user: str | None


@dataclass
class Relay:
    """A relay on aiosmtpd, on a free port of 127.0.0.1; ``async with`` starts and stops it.

    ``refuse`` maps a stage (``MAIL``, ``RCPT``, ``RCPT someone@example.com``, ``END``) to the answer it gets.
    """

    certificate: Certificate | None = None
    implicit: bool = False
    users: dict[str, str] = field(default_factory=dict)
    require_login: bool = False
    login_in_clear: bool = False
    eight_bit: bool = True
    utf8: bool = False
    size_limit: int = 0
    announce_size: bool = True
    reports: Literal["", "offered", "claimed"] = ""
    """RFC 3461; or said to be offered, and not known."""
    reports_misread: str = ""
    """An address of which it does not understand ORCPT."""
    port: int = 0
    refuse: dict[str, str] = field(default_factory=dict)

    received: list[Received] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    """Those about reports, of MAIL and RCPT."""
    connections: int = 0
    logins: list[tuple[str, str]] = field(default_factory=list)
    open: set[asyncio.BaseTransport] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        context = self.certificate.context() if self.certificate is not None else None
        self._server = await loop.create_server(
            lambda: _Protocol(self, None if self.implicit else context, loop),
            "127.0.0.1",
            self.port,
            ssl=context if self.implicit else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.hang_up()
        await asyncio.sleep(0)

    def hang_up(self) -> None:
        """Close every connection without a word."""
        for transport in list(self.open):
            cut(transport) if isinstance(transport, asyncio.WriteTransport) else transport.close()

    # aiosmtpd's hooks; their names are its own
    async def handle_EHLO(
        self, server: Any, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        hidden = {"250-8BITMIME"} if not self.eight_bit else set()
        said = [
            one
            for one in responses
            if one not in hidden and ((self.announce_size and self.size_limit) or not one.startswith("250-SIZE"))
        ]
        return [*said[:1], *(["250-DSN"] if self.reports else []), *said[1:]]

    async def handle_MAIL(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (answer := self.refuse.get("MAIL")) is not None:
            return answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 Ok"

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (answer := self.refuse.get(f"RCPT {address}", self.refuse.get("RCPT"))) is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        if (answer := self.refuse.get("END")) is not None:
            return answer
        octets = envelope.original_content or b""
        user = session.auth_data.decode() if session.authenticated else None
        self.received.append(
            Received(
                envelope.mail_from or "",
                tuple(envelope.rcpt_tos),
                octets,
                tuple(envelope.mail_options),
                session.ssl is not None or self.implicit,
                user,
            )
        )
        return f"250 2.0.0 Ok: queued as {len(self.received):06d}"


class _Protocol(SMTP):
    def __init__(self, relay: Relay, context: ssl.SSLContext | None, loop: asyncio.AbstractEventLoop) -> None:
        self._relay = relay
        super().__init__(
            relay,
            data_size_limit=relay.size_limit or None,
            enable_SMTPUTF8=relay.utf8,
            hostname="relay.test",
            tls_context=context,
            auth_required=relay.require_login,
            auth_require_tls=not (relay.login_in_clear or relay.implicit),
            authenticator=self._check_login if relay.users else None,
            loop=loop,
        )

    async def smtp_MAIL(self, arg: str) -> None:
        await super().smtp_MAIL(self._without_reports(arg))

    async def smtp_RCPT(self, arg: str) -> None:
        if (misread := self._relay.reports_misread) and misread in arg and "ORCPT" in arg:
            await self.push("501 5.5.4 Invalid arguments")
            return
        await super().smtp_RCPT(self._without_reports(arg))

    def _without_reports(self, arg: str) -> str:
        if self._relay.reports != "offered":
            return arg
        words = arg.split(" ")
        about = [one for one in words[1:] if one.startswith(("RET=", "ENVID=", "ORCPT=", "NOTIFY="))]
        self._relay.parameters += about
        return " ".join(one for one in words if one not in about)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._relay.connections += self._over_ssl is False
        self._relay.open.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._relay.open.discard(self.transport)
        super().connection_lost(error)

    def _check_login(self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        user, password = data.login.decode(), data.password.decode()
        self._relay.logins.append((user, password))
        if self._relay.users.get(user) == password:
            return AuthResult(success=True, auth_data=data.login)
        return AuthResult(success=False, handled=False)


@contextmanager
def relay_in_a_thread(**settings: Any) -> Iterator[Relay]:
    """A relay that goes on while the test blocks: for tests that start processes."""
    relay, started, stop = Relay(**settings), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with relay:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="relay")
    thread.start()
    try:
        assert started.wait(10)
        yield relay
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def original_in(mail: bytes) -> bytes:
    """The message that is attached to a quarantine mail, cut out by hand: no parser that might mend it on the way."""
    boundary = re.search(rb'boundary="([^"]+)"', mail)
    assert boundary is not None
    rule = b"\r\n--" + boundary[1]
    head, _, part = mail.rpartition(rule + b"--\r\n")[0].rpartition(rule + b"\r\n")
    assert head.count(rule) == 1, "the attachment is one part, whatever is in it"
    fields, _, body = part.partition(b"\r\n\r\n")
    return base64.b64decode(body) if b"base64" in fields else body


Answer = bytes | None

CLOSE = b""
"""As an answer: hang up."""
STALL = None
"""As an answer: say nothing, ever."""


@dataclass
class Scripted(Listener):
    """A relay that answers each verb as the script says; what it does not say is answered with success.

    Stages: ``GREETING``, every verb, and ``END`` for the end of the mail.
    """

    script: dict[str, Answer] = field(default_factory=dict)
    extensions: tuple[str, ...] = ("8BITMIME",)
    read_mail: bool = True
    reader: Callable[[asyncio.StreamReader], Awaitable[bytes]] | None = None
    """Reads the mail in place of the usual, as slowly as it likes."""
    cut_after_end: bool = False
    """Hang up when the end of a mail was answered."""
    buffer: int = 0
    """Octets of the socket's receive buffer; 0: as the system has it."""

    lines: list[bytes] = field(default_factory=list)
    connections: int = 0
    mails: list[bytes] = field(default_factory=list)

    limit = 1 << 26

    def listening(self) -> socket.socket:
        listening = super().listening()
        if self.buffer:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        return listening

    @property
    def verbs(self) -> list[str]:
        return [line.split(b" ")[0].upper().decode("latin-1") for line in self.lines]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not await self._answer("GREETING", b"220 relay.test\r\n", writer):
            return
        while line := await reader.readline():
            self.lines.append(line.rstrip())
            verb = line.split(b" ")[0].strip().upper().decode("latin-1")
            usual = b"250 Ok\r\n"
            if verb in ("EHLO", "LHLO"):
                said = [b"relay.test", *(one.encode() for one in self.extensions)]
                usual = b"".join(b"250-" + one + b"\r\n" for one in said[:-1]) + b"250 " + said[-1] + b"\r\n"
            elif verb == "DATA":
                usual = b"354 Go on\r\n"
            elif verb == "AUTH":
                usual = b"235 2.7.0 Welcome\r\n"
            elif verb == "QUIT":
                usual = b"221 Bye\r\n"
            if not await self._answer(verb, usual, writer):
                return
            if verb == "DATA" and usual.startswith(b"354") and self.script.get("DATA", b"354").startswith(b"354"):
                if self.reader is not None:
                    self.mails.append(await self.reader(reader))
                elif self.read_mail:
                    self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
                if not await self._answer("END", b"250 2.0.0 Ok: queued\r\n", writer) or self.cut_after_end:
                    return

    async def _answer(self, stage: str, usual: bytes, writer: asyncio.StreamWriter) -> bool:
        answer = self.script.get(stage, usual)
        if answer is STALL:
            await asyncio.sleep(3600)
        if answer == CLOSE:
            return False
        assert isinstance(answer, bytes)
        writer.write(answer)
        await writer.drain()
        return True
