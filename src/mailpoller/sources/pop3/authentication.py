"""Logging in: SASL (RFC 5034), USER and PASS, APOP (RFC 1939 section 7); which one is chosen, and what a refusal
means."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from mailpoller.core.errors import ConfigError, CredentialsRefused, MailpollerError, TransientError
from mailpoller.sources.pop3.protocol import Pop3Protocol, Reply
from mailpoller.wire.auth import Credentials
from mailpoller.wire.redaction import spoken
from mailpoller.wire.sasl.exchange import Exchange, answered, encoded, initial

LONGEST_COMMAND = 255
"""Octets of a command, line end included (RFC 2449 section 4): a longer first message of SASL goes on a line of its
own."""
LOGIN_DELAY = timedelta(minutes=1)
"""How long to stay away from a server that says ``[LOGIN-DELAY]`` and not how long that is."""

_STAMP = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
"""A msg-id in ASCII. Anything else is refused: odd stamps serve to find the password out (CVE-2007-1558)."""

_PASSING_CODES = {"IN-USE", "SYS/TEMP"}
_PASSING_WORDS = (
    "in use", "locked", "lock ", "busy", "too many", "simultaneous", "maximum number", "try again", "try later",
    "temporar",
    "unavailable", "rate limit", "throttl", "internal error", "timed out", "timeout", "login delay", "too often",
)  # fmt: skip


async def log_in(protocol: Pop3Protocol, credentials: Credentials) -> None:
    """Log in by the strongest way that both sides have; a token that is refused is replaced once.

    Raises :class:`CredentialsRefused` or :class:`TransientError` with the server's words, or what the credentials
    raise.
    """
    encrypted = protocol.protected
    command = credentials.mechanism if credentials.tokens is None else ""
    offered = protocol.capabilities.get("SASL", ())
    while True:
        exchange = None
        if command not in ("user", "apop"):
            exchange = await credentials.exchange(offered, encrypted=encrypted)
        stamp = _stamp(protocol)
        if command == "apop" and stamp is None:
            raise TransientError("the server offers no APOP: its greeting has no stamp")
        shown = exchange is None or exchange.readable
        try:
            if stamp is not None and (command == "apop" or (command == "auto" and not encrypted and shown)):
                exchange = None
                # Not in clear, whatever the line is: APOP shows nobody the password.
                await _apop(protocol, stamp, *await credentials.in_clear(encrypted=True))
            elif exchange is None:
                await _user(protocol, *await credentials.in_clear(encrypted=encrypted))
            else:
                await authenticate(protocol, exchange)
            break
        except CredentialsRefused:
            if not await credentials.refused(exchange):
                raise
    credentials.begun()


async def _user(protocol: Pop3Protocol, user: str, password: str) -> None:
    """USER and PASS (RFC 1939 section 7)."""
    if any(one in password for one in "\r\n\0"):
        raise ConfigError("a password with line ends cannot be sent with USER and PASS")
    with _hiding(protocol, (password, f"\0{user}\0{password}")) as secrets:
        reply = await protocol.run("USER", user)
        if reply.ok:
            reply = await protocol.run("PASS", password)
    _check(protocol, reply, secrets)


async def _apop(protocol: Pop3Protocol, stamp: str, user: str, password: str) -> None:
    """APOP (RFC 1939 section 7): MD5 over the greeting's stamp and the password."""
    digest = hashlib.md5((stamp + password).encode(), usedforsecurity=False).hexdigest()
    with _hiding(protocol, (password, digest)) as secrets:
        reply = await protocol.run("APOP", user, digest)
    _check(protocol, reply, secrets)


async def authenticate(protocol: Pop3Protocol, exchange: Exchange) -> None:
    """AUTH (RFC 5034): in one line if it fits into one; else in two, which is also what Microsoft wants of tokens."""
    first, words = exchange.first(), [exchange.name]
    if first is not None and len(f"AUTH {exchange.name} {initial(first)}\r\n") <= LONGEST_COMMAND:
        words.append(initial(first))
        first = None
    broken: MailpollerError | None = None
    with _hiding(protocol, exchange.secrets) as secrets:
        request = protocol.converse("AUTH", *words)
        assert request.challenges is not None
        while (challenge := await request.challenges.get()) is not None:
            if broken is not None:
                raise broken  # it goes on asking all the same
            try:
                said = await answered(exchange, challenge) if first is None else encoded(first)
            except MailpollerError as error:
                broken, said = error, "*"  # ends the exchange; the server's -ERR follows
            first = None
            protocol.say(said)
        reply = await request.answer(protocol)
    if broken is not None:
        raise broken
    _check(protocol, reply, secrets, exchange.explanation)
    exchange.conclude()


@contextmanager
def _hiding(protocol: Pop3Protocol, secrets: Sequence[str]) -> Iterator[Sequence[str]]:
    """While these are on the wire, the protocol quotes no words of the server that have them."""
    protocol.hidden = secrets
    try:
        yield secrets
    finally:
        protocol.hidden = ()


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
