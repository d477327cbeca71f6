"""From a configuration to a connection that is logged in, one step a function, so that a probe can time each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import structlog

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.sources.imap.authentication import authenticate, choose
from mailpoller.sources.imap.config import ImapConfig
from mailpoller.sources.imap.protocol import ImapClient, ImapProtocol
from mailpoller.transport.tls import secure

log = structlog.get_logger(__name__)

Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def open_client(name: str, config: ImapConfig) -> ImapClient:
    """Connect, secure, log in: all of the steps below. ``name`` is the mailbox's, for the log.

    Raises :class:`CredentialsRefused` or :class:`TransientError`; then nothing is left open.
    """
    client = ImapClient(config.host, config.effective_port, config.command_timeout.total_seconds())
    try:
        seconds = config.connect_timeout.total_seconds()
        deadline = asyncio.get_running_loop().time() + seconds
        await connect(client, await resolve(config, seconds), seconds)
        await protect(client, config, max(0.1, deadline - asyncio.get_running_loop().time()))
        if client.protocol.state != "AUTH" and config.tls == "starttls" and not is_protected(client.protocol):
            log.warning("tls.not_offered", mailbox=name, host=config.host, tls=config.tls)
        await log_in(client, config)
        return client
    except BaseException as error:
        client.protocol.lose("connecting failed")
        if isinstance(error, SessionLost):
            # There was no session yet: what is lost is an attempt, and reconnecting is no remedy of its own.
            raise TransientError(str(error)) from error
        raise


async def resolve(config: ImapConfig, seconds: float) -> list[Address]:
    """The addresses of the host. Raises :class:`TransientError`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            found = await loop.getaddrinfo(config.host, config.effective_port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise TransientError(f"DNS: no answer about {config.host} within {seconds:g} s") from None
    except (socket.gaierror, UnicodeError) as error:
        raise TransientError(f"DNS: {config.host} is not found: {getattr(error, 'strerror', error)}") from None
    return list(found)


async def connect(client: ImapClient, addresses: list[Address], seconds: float) -> None:
    """Connect to the first address that answers, trying them in order, within ``seconds`` in all.

    Raises :class:`TransientError`.
    """
    loop = asyncio.get_running_loop()
    protocol = client.protocol
    last: Exception = OSError("no address")
    share = seconds / max(1, min(len(addresses), 4))
    for family, kind, number, _, address in addresses[:4]:
        sock = socket.socket(family, kind, number)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(share):
                await loop.sock_connect(sock, address)
                await loop.create_connection(lambda: protocol, sock=sock)
            return
        except (OSError, TimeoutError) as error:
            last = error
            sock.close()
        except BaseException:
            sock.close()
            raise
    if isinstance(last, TimeoutError):
        reason = f"no answer within {seconds:g} s"
    else:
        code = getattr(last, "errno", None)
        reason = os.strerror(code) if code else str(last)
    raise TransientError(f"cannot connect to {client.host} port {client.port}: {reason}")


async def protect(client: ImapClient, config: ImapConfig, seconds: float) -> None:
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


async def start_tls(client: ImapClient, config: ImapConfig, seconds: float) -> None:
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
    async with _within(seconds, "TLS: no answer to STARTTLS"):
        answer = await protocol.run("STARTTLS")
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


async def log_in(client: ImapClient, config: ImapConfig) -> None:
    """Authenticate, unless the server did that by itself (PREAUTH), and say who we are.

    Raises :class:`CredentialsRefused` or :class:`TransientError`.
    """
    protocol = client.protocol
    if protocol.state != "AUTH":
        await authenticate(
            protocol, choose(config.mechanism, config.username, config.password.reveal(), protocol.capabilities)
        )
    if "ID" in protocol.capabilities:
        # Providers (163.com, 126.com) let nobody select a folder who has not said who he is (RFC 2971). Not waited for.
        with contextlib.suppress(SessionLost):
            protocol.submit("ID", '("name" "mailpoller")')


@contextlib.asynccontextmanager
async def _within(seconds: float, complaint: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TransientError(f"{complaint} within {seconds:g} s") from None
