"""Logging in: SASL (RFC 5034), USER and PASS, APOP (RFC 1939 section 7); which one is chosen, and what a refusal means."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from mailpoller.core.errors import ConfigError, CredentialsRefused, MailpollerError, TransientError
from mailpoller.sources.pop3.config import MechanismName
from mailpoller.sources.pop3.protocol import Pop3Protocol, Reply
from mailpoller.transport import sasl
from mailpoller.transport.wording import spoken

LONGEST_COMMAND = 255
"""Octets of a command, line end included (RFC 2449 section 4): a longer first message of SASL goes on a line of its own."""
LOGIN_DELAY = timedelta(minutes=1)
"""How long to stay away from a server that says ``[LOGIN-DELAY]`` and not how long that is."""

_STAMP = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
"""A msg-id in ASCII. Anything else is refused: odd stamps serve to find the password out (CVE-2007-1558)."""

_PASSING_CODES = {"IN-USE", "SYS/TEMP"}
_PASSING_WORDS = (
    "in use", "locked", "lock ", "busy", "too many", "simultaneous", "maximum number", "try again", "try later", "temporar",
    "unavailable", "rate limit", "throttl", "internal error", "timed out", "timeout", "login delay", "too often",
)  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class User:
    """USER and PASS."""

    user: str
    password: str


@dataclass(frozen=True, slots=True, repr=False)
class Apop:
    """APOP: MD5 over the greeting's stamp and the password."""

    user: str
    password: str
    stamp: str


Way = User | Apop | sasl.Exchange


def choose(name: MechanismName, user: str, password: str, protocol: Pop3Protocol, *, clear_allowed: bool) -> Way:
    """How to log in with a password. Raises :class:`TransientError` if the server offers no way that we may use.

    ``clear_allowed``: the configuration says by name that a password may travel without TLS.
    """
    clear = protocol.protected or clear_allowed
    stamp = _stamp(protocol)
    if name == "apop":
        if stamp is None:
            raise TransientError("the server offers no APOP: its greeting has no stamp")
        return Apop(user, password, stamp)
    if name != "user":
        offered = protocol.capabilities.get("SASL", ())
        exchange = sasl.by_password(offered, user, password, mechanism=name, clear=clear)
        hidden = exchange is not None and not exchange.readable
        if name == "auto" and stamp is not None and not protocol.protected and not hidden:
            return Apop(user, password, stamp)
        if exchange is not None and (clear or hidden):
            return exchange
    if not clear:
        raise TransientError("the connection is not encrypted, so the password is not sent; tls: none would allow it")
    return User(user, password)


async def authenticate(protocol: Pop3Protocol, way: Way) -> None:
    """Log in. Raises :class:`CredentialsRefused` or :class:`TransientError` with the server's words."""
    if isinstance(way, User):
        if any(one in way.password for one in "\r\n\0"):
            raise ConfigError("a password with line ends cannot be sent with USER and PASS")
        reply = await protocol.run("USER", way.user)
        if reply.ok:
            reply = await protocol.run("PASS", way.password)
        _check(protocol, reply, (way.password,))
    elif isinstance(way, Apop):
        digest = hashlib.md5((way.stamp + way.password).encode(), usedforsecurity=False).hexdigest()
        _check(protocol, await protocol.run("APOP", way.user, digest), (way.password,))
    else:
        await _exchange(protocol, way)


async def _exchange(protocol: Pop3Protocol, exchange: sasl.Exchange) -> None:
    """AUTH: in one line if it fits into one; else in two, which is also what Microsoft wants of tokens."""
    first = exchange.first()
    along = [] if first is None else [sasl.initial(first)]
    if len(" ".join(("AUTH", exchange.name, *along))) + 2 > LONGEST_COMMAND:
        along = []
    told = bool(along) or first is None
    trouble: MailpollerError | None = None
    request = protocol.converse("AUTH", exchange.name, *along)
    assert request.challenges is not None
    while (challenge := await request.challenges.get()) is not None:
        if not told and first is not None:
            told = True
            protocol.say(sasl.encoded(first))
            continue
        try:
            protocol.say(sasl.encoded(await exchange.answer(sasl.decoded(challenge))))
        except MailpollerError as error:
            trouble = error
            protocol.say("*")
    reply = await request.answer(protocol)
    if trouble is not None:
        raise trouble
    _check(protocol, reply, exchange.secrets, exchange.explanation)
    exchange.conclude()


def _stamp(protocol: Pop3Protocol) -> str | None:
    reply = protocol.greeting.reply
    found = None if reply is None else _STAMP.search(reply.text)
    return None if found is None else found[0]


def _check(protocol: Pop3Protocol, reply: Reply, secrets: Sequence[str], explanation: str = "") -> None:
    if not reply.ok:
        raise refusal(reply, secrets, explanation, login_delay(protocol))


def login_delay(protocol: Pop3Protocol) -> timedelta:
    """How far apart the server wants logins to be (RFC 2449 section 6.5); nothing if it does not say."""
    told = next(iter(protocol.capabilities.get("LOGIN-DELAY", ())), "")
    return (
        timedelta(seconds=min(int(told), 86_400))
        if told.isascii() and told.isdigit() and len(told) < 10
        else timedelta()
    )


def refusal(
    reply: Reply, secrets: Sequence[str] = (), explanation: str = "", delay: timedelta = timedelta()
) -> MailpollerError:
    """What a refused login means: wrong credentials, or something that may pass (RFC 2449 section 8, RFC 3206).

    ``delay``: what the server wants between logins.
    """
    words = spoken(reply.text, secrets) or "no reason"
    if explanation:
        words = f"{words} ({explanation})"
    if reply.code == "LOGIN-DELAY":
        return TransientError(f"the server wants fewer logins: {words}", retry_after=max(delay, LOGIN_DELAY))
    if reply.code in _PASSING_CODES:
        return TransientError(f"the server does not log us in now: {words}")
    if reply.code not in ("AUTH", "SYS/PERM") and any(word in reply.text.lower() for word in _PASSING_WORDS):
        return TransientError(f"the server does not log us in now: {words}")
    return CredentialsRefused(f"the server refuses the login: {words}")
