"""Logging in by IMAP: AUTHENTICATE carries a SASL exchange, LOGIN a bare password; and what a refusal means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.wire.auth import Credentials
from mailpoller.wire.imap.names import quotable, quote
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.responses import Status
from mailpoller.wire.redaction import without
from mailpoller.wire.sasl.exchange import Exchange, answered, encoded, initial

# RFC 5530 section 3; Google says OVERQUOTA of its own bandwidth limits.
_PASSING_CODES = {
    "INUSE",
    "SERVERBUG",
    "CONTACTADMIN",
    "PRIVACYREQUIRED",
    "OVERQUOTA",
}
_REFUSING_CODES = {"AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED"}
_PASSING_WORDS = (
    "too many", "simultaneous", "maximum number of connections", "try again", "temporar", "unavailable", "rate limit",
    "throttl", "internal error", "system error", "generic failure", "maintenance", "not connected", "server busy",
    "timed out",
    "timeout", "web login required",
)  # fmt: skip


class Hiding(Protocol):
    """What a refusal may know of the login: what to mask, and why the server said no."""

    @property
    def secrets(self) -> Sequence[str]: ...

    @property
    def explanation(self) -> str: ...


async def log_in(protocol: ImapProtocol, credentials: Credentials, *, encrypted: bool) -> None:
    """Log in by the strongest way that both sides have; a token that is refused is replaced once.

    Raises :class:`CredentialsRefused` or :class:`TransientError` with the server's words, or what the credentials
    raise.
    """
    offered = {one.removeprefix("AUTH=") for one in protocol.capabilities if one.startswith("AUTH=")}
    while True:
        # Pinned, ``login`` means the command, which servers have without saying so.
        command = credentials.tokens is None and credentials.mechanism == "login"
        exchange = None if command else await credentials.exchange(offered, encrypted=encrypted)
        if exchange is None and "LOGINDISABLED" in protocol.capabilities:
            raise TransientError(
                "the server allows no login with a password on this connection (LOGINDISABLED): "
                "it wants TLS first, or another way to authenticate"
            )
        try:
            if exchange is None:
                await login(protocol, *await credentials.in_clear(encrypted=encrypted))
            else:
                await authenticate(protocol, exchange)
            break
        except CredentialsRefused:
            if not await credentials.refused(exchange):
                raise
    credentials.begun()


async def authenticate(protocol: ImapProtocol, exchange: Exchange) -> None:
    """AUTHENTICATE (RFC 3501 section 6.2.2), the first message along with it where the server has SASL-IR (RFC
    4959)."""
    first, words = exchange.first(), [exchange.name]
    protocol.hidden = exchange.secrets
    if first is not None and protocol.offers("SASL-IR"):
        words.append(initial(first))
        first = None
    before = protocol.capabilities
    request = protocol.submit("AUTHENTICATE", *words, converse=True)
    broken: MailpollerError | None = None
    try:
        while (challenge := await request.challenged()) is not None:
            if broken is not None:
                raise broken  # it goes on asking all the same
            try:
                said = await answered(exchange, challenge) if first is None else encoded(first)
            except MailpollerError as error:
                broken, said = error, "*"  # ends the exchange; the server's NO follows
            first = None
            protocol.reply(said)
        answer = await request.answer()
    finally:
        protocol.hidden = tuple(exchange.secrets)
        request.line = b""  # what it held need not stay in memory, nor in a traceback's frames
    if broken is not None:
        raise broken
    if not answer.status.ok:
        raise refusal(answer.status, exchange)
    exchange.conclude()
    await _logged_in(protocol, before)


async def login(protocol: ImapProtocol, user: str, password: str) -> None:
    """The LOGIN command (RFC 3501 section 6.2.3); what cannot be quoted goes as a literal, in UTF-8."""
    before = protocol.capabilities
    secrets = [password, encoded(f"\0{user}\0{password}".encode())]
    if quotable(user) and quotable(password):
        words, replies = [quote(user), quote(password)], []
        secrets.append(words[1][1:-1])
    else:
        name, secret = user.encode(), password.encode()
        words, replies = [f"{{{len(name)}}}"], [name + f" {{{len(secret)}}}".encode(), secret]
    protocol.hidden = secrets
    request = protocol.submit("LOGIN", *words, replies=replies)
    try:
        answer = await request.answer()
    finally:
        request.line = b""
        request.replies.clear()
    if not answer.status.ok:
        raise refusal(answer.status, _Password(secrets))
    await _logged_in(protocol, before)


class _Password:
    explanation = ""

    def __init__(self, secrets: Sequence[str]) -> None:
        self.secrets = secrets


async def _logged_in(protocol: ImapProtocol, before: set[str]) -> None:
    protocol.logged_in()
    if protocol.capabilities is before:  # not told along with the answer (RFC 3501 section 6.2.3)
        await protocol.capability()


def refusal(status: Status, hiding: Hiding) -> MailpollerError:
    """What a refused login means: wrong credentials, or something that may pass."""
    words = str(status)
    for secret in hiding.secrets:
        words = without(words, secret)
    if hiding.explanation:
        words += f" ({hiding.explanation})"
    text = status.text.lower()
    passing = status.busy or status.code in _PASSING_CODES or any(word in text for word in _PASSING_WORDS)
    if status.code not in _REFUSING_CODES and (passing or status.kind == "BAD"):
        return TransientError(f"the server does not log us in now: {words}")
    return CredentialsRefused(f"the server refuses the login: {words}")
