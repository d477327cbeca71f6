"""From a configuration to a connection that is logged in, one step a function, so that a probe can time each."""

from __future__ import annotations

import asyncio

import structlog

from mailpoller.core.errors import TransientError
from mailpoller.sources.pop3 import authentication
from mailpoller.sources.pop3.config import Pop3Settings
from mailpoller.sources.pop3.protocol import Pop3Protocol
from mailpoller.wire.auth import Credentials
from mailpoller.wire.dial import left_until
from mailpoller.wire.opening import connected
from mailpoller.wire.tls import secure

log = structlog.get_logger(__name__)


async def open_connection(name: str, config: Pop3Settings, credentials: Credentials) -> Pop3Protocol:
    """Connect, secure, log in: all of the steps below. ``name`` is the mailbox's, for the log.

    Raises :class:`CredentialsRefused` or :class:`TransientError`; then nothing is left open.
    """
    protocol = Pop3Protocol(asyncio.get_running_loop(), config.command_timeout.total_seconds())
    async with connected(protocol, config, protocol.lose) as deadline:
        await protect(protocol, config, left_until(deadline))
        if config.tls == "starttls" and not protocol.protected:
            log.warning("tls.not_offered", mailbox=name, host=config.host, tls=config.tls)
        await log_in(protocol, credentials)
    return protocol


async def protect(protocol: Pop3Protocol, config: Pop3Settings, seconds: float) -> None:
    """TLS as configured, and the greeting, within ``seconds``. Raises :class:`TransientError`."""
    if config.tls == "tls":
        await begin_tls(protocol, config, seconds)
    await greeting(protocol, seconds)
    if config.tls in ("starttls", "starttls-required"):
        await start_tls(protocol, config, seconds)


async def begin_tls(protocol: Pop3Protocol, config: Pop3Settings, seconds: float) -> None:
    """TLS from here on. Raises :class:`TransientError`."""
    protocol.end_tls(await secure(protocol.begin_tls(), protocol, config.policy, config.host, seconds))


async def greeting(protocol: Pop3Protocol, seconds: float) -> None:
    """Wait for the greeting, and know the capabilities. Raises :class:`TransientError` with the server's words."""
    try:
        async with asyncio.timeout(seconds):
            reply = await protocol.greeting.answer(protocol)
            if not reply.ok:
                raise TransientError(f"the server does not want us now: {reply}")
            await protocol.capability()
    except TimeoutError:
        raise TransientError(
            f"no greeting within {seconds:g} s (is this a POP3 port, and is the TLS mode the right one?)"
        ) from None


async def start_tls(protocol: Pop3Protocol, config: Pop3Settings, seconds: float) -> None:
    """STLS (RFC 2595 section 4). Nothing that was said before it survives: not a capability, not an octet.

    Raises :class:`TransientError`, also where the mode demands TLS and the server has none, or if somebody slipped
    data in front of it.
    """
    required = config.tls == "starttls-required"
    # Servers that are older than CAPA may have STLS all the same.
    if protocol.capabilities and "STLS" not in protocol.capabilities:
        if required:
            raise TransientError("TLS: the server does not offer STLS")
        return
    try:
        async with asyncio.timeout(seconds):
            reply = await protocol.run("STLS")
            if not reply.ok:
                protocol.stay_clear()
                if required:
                    raise TransientError(f"TLS: the server refuses STLS: {reply}")
                return
            await begin_tls(protocol, config, seconds)
            await protocol.capability()
    except TimeoutError:
        raise TransientError(f"TLS: no end of STLS within {seconds:g} s") from None


async def log_in(protocol: Pop3Protocol, credentials: Credentials) -> None:
    """Authenticate, after UTF8 (RFC 6856 section 2) where it is offered: without it some servers give a notice of
    their own, or something rewritten, instead of a mail with UTF-8 in its header. Raises :class:`CredentialsRefused`
    or :class:`TransientError`."""
    if "UTF8" in protocol.capabilities:
        await protocol.run("UTF8")  # if it is refused, all is as it was
    await authentication.log_in(protocol, credentials)
    if "USER" in protocol.capabilities.get("LOGIN-DELAY", ()):
        await protocol.capability()  # it is another one for each user, and known now (RFC 2449 section 6.5)
