"""Logging in: each mechanism, which one is chosen, and what a refusal means.

A further mechanism is one class here and one line in :func:`choose`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.sources.imap.names import quotable, quote
from mailpoller.sources.imap.protocol import ImapProtocol
from mailpoller.sources.imap.responses import Status

MechanismName = Literal["auto", "plain", "login"]

# RFC 5530 section 3 (INUSE, UNAVAILABLE, SERVERBUG …); LIMIT is Dovecot's, RFC 9051 registers it.
_PASSING_CODES = {
    "UNAVAILABLE",
    "INUSE",
    "LIMIT",
    "SERVERBUG",
    "CONTACTADMIN",
    "PRIVACYREQUIRED",
    "OVERQUOTA",
    "THROTTLED",
}
_REFUSING_CODES = {"AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED"}
_PASSING_WORDS = (
    "too many", "simultaneous", "maximum number of connections", "try again", "temporar", "unavailable", "rate limit",
    "throttl", "internal error", "not connected", "server busy", "timed out", "timeout", "web login required",
)  # fmt: skip


class Mechanism(Protocol):
    """One way to log in, with one user's credentials in it. Lives no longer than the login."""

    @property
    def command(self) -> Literal["LOGIN", "AUTHENTICATE"]:
        """Which command carries it."""

    @property
    def secrets(self) -> Sequence[str]:
        """What must not be shown, should the server repeat it."""

    def words(self, capabilities: set[str]) -> tuple[list[str], list[bytes]]:
        """The arguments of the command, and what to send each time the server asks to go on."""


@dataclass(frozen=True, slots=True, repr=False)
class Plain:
    """SASL PLAIN (RFC 4616): UTF-8, so any password. The first message goes along with SASL-IR (RFC 4959)."""

    user: str
    password: str
    command: Literal["AUTHENTICATE"] = "AUTHENTICATE"

    @property
    def secrets(self) -> Sequence[str]:
        return self.password, _base64(self._message())

    def _message(self) -> bytes:
        return f"\0{self.user}\0{self.password}".encode()

    def words(self, capabilities: set[str]) -> tuple[list[str], list[bytes]]:
        message = _base64(self._message())
        return (["PLAIN", message], []) if "SASL-IR" in capabilities else (["PLAIN"], [message.encode()])


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """The LOGIN command (RFC 3501 section 6.2.3); what cannot be quoted goes as a literal, in UTF-8."""

    user: str
    password: str
    command: Literal["LOGIN"] = "LOGIN"

    @property
    def secrets(self) -> Sequence[str]:
        return (self.password,)

    def words(self, capabilities: set[str]) -> tuple[list[str], list[bytes]]:
        if quotable(self.user) and quotable(self.password):
            return [quote(self.user), quote(self.password)], []
        user, password = self.user.encode(), self.password.encode()
        return [f"{{{len(user)}}}"], [user + f" {{{len(password)}}}".encode(), password]


def choose(name: MechanismName, user: str, password: str, capabilities: set[str]) -> Mechanism:
    """The mechanism to use. Raises :class:`TransientError` if the server offers none that we may use."""
    offers_plain = "AUTH=PLAIN" in capabilities
    if name == "plain" or (name == "auto" and offers_plain):
        return Plain(user, password)
    if "LOGINDISABLED" in capabilities:
        raise TransientError(
            "the server allows no login with a password on this connection (LOGINDISABLED): "
            "it wants TLS first, or another way to authenticate"
        )
    return Login(user, password)


async def authenticate(protocol: ImapProtocol, mechanism: Mechanism) -> None:
    """Log in. Raises :class:`CredentialsRefused` or :class:`TransientError` with the server's words."""
    arguments, replies = mechanism.words(protocol.capabilities)
    before = protocol.capabilities
    request = protocol.submit(mechanism.command, *arguments, replies=replies)
    try:
        answer = await request.answer()
    finally:
        request.line = b""  # the password need not stay in memory, nor in a traceback's frames
        request.replies.clear()
    if not answer.status.ok:
        raise refusal(answer.status, mechanism.secrets)
    protocol.state = "AUTH"
    if protocol.capabilities is before:  # not told along with the answer (RFC 3501 section 6.2.3)
        await protocol.capability()


def refusal(status: Status, secrets: Sequence[str] = ()) -> MailpollerError:
    """What a refused login means: wrong credentials, or something that may pass."""
    words = str(status)
    for secret in secrets:
        if secret:
            words = words.replace(secret, "********")
    text = status.text.lower()
    passing = status.code in _PASSING_CODES or any(word in text for word in _PASSING_WORDS)
    if status.code not in _REFUSING_CODES and (passing or status.kind == "BAD"):
        return TransientError(f"the server does not log us in now: {words}")
    return CredentialsRefused(f"the server refuses the login: {words}")


def _base64(octets: bytes) -> str:
    return b64encode(octets).decode()
