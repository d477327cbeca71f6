"""From a configuration to a connection that is logged in, one step a function, so that a probe can time each."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from mailpoller import __version__
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.wire.auth import Credentials
from mailpoller.wire.dial import left_until
from mailpoller.wire.imap import authentication
from mailpoller.wire.imap.command import Request
from mailpoller.wire.imap.names import quote
from mailpoller.wire.imap.protocol import ImapClient, ImapProtocol
from mailpoller.wire.opening import connected
from mailpoller.wire.server import KeptServer
from mailpoller.wire.tls import secure

log = structlog.get_logger(__name__)


async def open_client(name: str, config: KeptServer, credentials: Credentials, *, utf8: bool = True) -> ImapClient:
    """Connect, secure, log in: all of the steps below. ``name`` is for the log: the mailbox's, or the queue's.

    Raises :class:`CredentialsRefused` or :class:`TransientError`; then nothing is left open.
    """
    client = ImapClient(config.host, config.effective_port, config.command_timeout.total_seconds())
    async with connected(client.protocol, config, client.protocol.lose) as deadline:
        await protect(client, config, left_until(deadline))
        if client.protocol.state != "AUTH" and config.tls == "starttls" and not is_protected(client.protocol):
            log.warning("tls.not_offered", mailbox=name, host=config.host, tls=config.tls)
        await log_in(client, credentials, utf8=utf8)
    return client


async def protect(client: ImapClient, config: KeptServer, seconds: float) -> None:
    """TLS as configured, and the greeting, within ``seconds``. Raises :class:`TransientError`."""
    protocol = client.protocol
    if config.tls == "tls":
        protocol.transport = await secure(protocol.transport, protocol, config.policy, config.host, seconds)
    await greeting(protocol, seconds)
    if config.tls in ("starttls", "starttls-required"):
        await start_tls(client, config, seconds)


async def greeting(protocol: ImapProtocol, seconds: float) -> None:
    """Wait for the greeting, and know the capabilities. Raises :class:`TransientError` with the server's words."""
    try:
        async with asyncio.timeout(seconds):
            status = await asyncio.shield(protocol.greeting)
            if status.code != "CAPABILITY":
                await protocol.capability()
    except TimeoutError:
        raise TransientError(
            f"no greeting within {seconds:g} s (is this an IMAP port, and is the TLS mode the right one?)"
        ) from None


async def start_tls(client: ImapClient, config: KeptServer, seconds: float) -> None:
    """STARTTLS (RFC 3501 section 6.2.1). Nothing that was said before it survives: not a capability, not an octet.

    Raises :class:`TransientError`, also where the mode demands TLS and the server has none, or if somebody slipped
    data in front of it.
    """
    protocol = client.protocol
    required = config.tls == "starttls-required"
    if protocol.state == "AUTH":
        if required:
            raise TransientError("TLS: the server logged us in before TLS could begin (PREAUTH)")
        return
    if "STARTTLS" not in protocol.capabilities:
        if required:
            raise TransientError("TLS: the server does not offer STARTTLS")
        return
    try:
        async with asyncio.timeout(seconds):
            answer = await protocol.run("STARTTLS")
    except TimeoutError:
        raise TransientError(f"TLS: no answer to STARTTLS within {seconds:g} s") from None
    if not answer.status.ok:
        if required:
            raise TransientError(f"TLS: the server refuses STARTTLS: {answer.status}")
        return
    transport = protocol.begin_tls()
    protocol.end_tls(await secure(transport, protocol, config.policy, config.host, seconds))
    await protocol.capability()


def is_protected(protocol: ImapProtocol) -> bool:
    """True if the connection is encrypted."""
    return protocol.transport is not None and protocol.transport.get_extra_info("ssl_object") is not None


async def log_in(client: ImapClient, credentials: Credentials, *, utf8: bool = True) -> None:
    """Authenticate, unless the server did that by itself (PREAUTH), and say who we are. ``utf8``: have mail with
    headers in UTF-8 shown as it is.

    Raises :class:`CredentialsRefused` or :class:`TransientError`.
    """
    protocol = client.protocol
    if protocol.state != "AUTH":
        await authentication.log_in(protocol, credentials, encrypted=is_protected(protocol))
    if "ID" in protocol.capabilities:
        # Providers (163.com, 126.com) let nobody select a folder who has not said who he is (RFC 2971). Not waited for.
        with contextlib.suppress(SessionLost):
            name_ourselves(protocol)
    if utf8 and (reason := await protocol.enable_utf8()):
        log.warning("unicode.refused", host=client.host, reason=reason)


def name_ourselves(protocol: ImapProtocol) -> Request:
    """Say who we are (RFC 2971). Raises :class:`SessionLost`."""
    words = f'("name" "mailpoller" "version" {quote(__version__)} "vendor" "mailpoller")'
    return protocol.submit("ID", words)
