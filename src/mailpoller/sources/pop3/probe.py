"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import ConfigError, CredentialsRefused, MailpollerError, SessionLost, TransientError
from mailpoller.core.ports import Stage
from mailpoller.sources.pop3 import connecting
from mailpoller.sources.pop3.config import Pop3Config, impossible
from mailpoller.sources.pop3.maildrop import Contents, Knowledge, Maildrop
from mailpoller.sources.pop3.protocol import Pop3Protocol
from mailpoller.transport import dial
from mailpoller.transport.auth import Credentials
from mailpoller.transport.oauth import TokenRefused

_HEAD = 8 << 20


async def probe(
    config: Pop3Config, credentials: Credentials, dispositions: Sequence[Disposition]
) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    attempt = _Attempt(config, credentials, dispositions)
    try:
        for name, step in attempt.steps():
            began = time.monotonic()
            try:
                detail = await step()
            except MailpollerError as error:
                yield Stage(name, False, _since(began), str(error), attempt.advice(name, error))
                return
            yield Stage(name, True, _since(began), detail)
    finally:
        await attempt.close()


def _since(began: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - began)


class _Attempt:
    """One connection, made step by step; each step returns what there is to say about it."""

    def __init__(self, config: Pop3Config, credentials: Credentials, dispositions: Sequence[Disposition]) -> None:
        self._config = config
        self._credentials = credentials
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]
        self._protocol = Pop3Protocol(asyncio.get_running_loop(), config.command_timeout.total_seconds())
        self._maildrop = Maildrop(self._protocol)
        self._contents = Contents()
        self._addresses: list[dial.Address] = []
        self._seconds = config.connect_timeout.total_seconds()

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """In the order in which the TLS mode wants them."""
        steps: list[tuple[str, Callable[[], Awaitable[str]]]] = []
        if self._config.proxy is None:
            steps.append(("dns", self._dns))
        steps.append(("tcp", self._tcp))
        if self._config.tls == "tls":
            steps += [("tls", self._tls), ("greeting", self._greeting)]
        else:
            steps += [("greeting", self._greeting)]
            if self._config.tls != "none":
                steps.append(("tls", self._stls))
        return [*steps, ("login", self._login), ("folder", self._folder), ("message", self._message),
                ("disposition", self._disposition)]  # fmt: skip

    async def close(self) -> None:
        """QUIT if that is quick; nothing was marked."""
        if self._protocol.lost is None and self._protocol.transport is not None:
            with suppress(SessionLost):
                await self._maildrop.quit(2)
        self._protocol.lose("the probe is over")

    async def _dns(self) -> str:
        config = self._config
        self._addresses = await dial.resolve(config.host, config.effective_port, seconds=self._seconds)
        return ", ".join(dict.fromkeys(str(address[2][0]) for address in self._addresses))

    async def _tcp(self) -> str:
        config = self._config
        place = f"{config.host} port {config.effective_port}"
        if config.proxy is not None:
            sock = await config.proxy.connect(config.host, config.effective_port, seconds=self._seconds)
        else:
            sock = await dial.connect(self._addresses, place, seconds=self._seconds)
        await connecting.adopt(self._protocol, sock)
        by_way = "" if config.proxy is None else f" by way of the {config.proxy.place}"
        return f"port {config.effective_port}{by_way}"

    async def _tls(self) -> str:
        await connecting.begin_tls(self._protocol, self._config, self._seconds)
        return self._cipher()

    async def _stls(self) -> str:
        await connecting.start_tls(self._protocol, self._config, self._seconds)
        return self._cipher() if self._protocol.protected else "the server does not offer STLS: mail goes in clear"

    def _cipher(self) -> str:
        assert self._protocol.transport is not None
        cipher = self._protocol.transport.get_extra_info("cipher")
        return f"{cipher[1]} {cipher[0]}" if cipher else ""

    async def _greeting(self) -> str:
        await connecting.greeting(self._protocol, self._seconds)
        return str(self._protocol.greeting.reply)

    async def _login(self) -> str:
        await connecting.log_in(self._protocol, self._credentials)
        return "" if "PIPELINING" in self._protocol.capabilities else "without PIPELINING: one message a round trip"

    async def _folder(self) -> str:
        self._contents = await self._maildrop.look(Knowledge(), self._config.max_message_size)
        told = f"{len(self._contents.numbers)} messages"
        return told if self._contents.by_uidl else f"{told}; without UIDL: they are known by their headers"

    async def _message(self) -> str:
        if not self._contents.numbers:
            return "there is no message to try with"
        number = max(self._contents.numbers.values())
        reply, _ = await self._protocol.gather("TOP", str(number), "0", limit=_HEAD)
        if not reply.ok:
            raise TransientError(f"the server gives no header (TOP): {reply}")
        return "the newest message can be read"

    async def _disposition(self) -> str:
        if self._config.mode == "shadow":
            return "nothing is ever changed (mode: shadow)"
        for disposition in self._dispositions:
            if wish := impossible(disposition):
                raise TransientError(f"POP3 cannot {wish}")
        # Whether DELE is allowed can only be known by saying it.
        return "messages are deleted" if self._dispositions else "messages are left as they are"

    # --- advice ----------------------------------------------------------------------------------------------
    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about it."""
        config, said = self._config, str(error)
        host, port = config.host, config.effective_port
        if isinstance(error, ConfigError):
            return "Correct the configuration; the file or variable must be readable by the service's user."
        match stage:
            case "dns":
                return f"Check the spelling of host, and whether this machine resolves names: getent hosts {host}"
            case "tcp" if config.proxy is not None:
                return "Check the proxy's host, port and login, and whether it lets us through to this port."
            case "tcp":
                return f"Check host, port and firewall: nc -vz {host} {port}. POP3 is 995 with tls: tls, else 110."
            case "tls" if "not trusted" in said:
                return (
                    "If the server's own CA is right, name it with ca_file; a certificate that signs itself can be pinned: "
                    f"openssl s_client -connect {host}:{port} </dev/null | openssl x509 -noout -fingerprint -sha256"
                )
            case "tls" if "pinned" in said:
                return "If the certificate was renewed on purpose, put the new fingerprint into pin."
            case "tls" if "wrong version" in said or "no handshake" in said:
                return "This port may want STLS: try tls: starttls-required (usually port 110)."
            case "tls" if "STLS" in said:
                return "Try tls: tls with port 995."
            case "tls":
                return f"See what the server speaks: openssl s_client -connect {host}:{port}"
            case "greeting" if config.tls != "tls":
                return "If this port speaks TLS from the first octet, set tls: tls."
            case "greeting":
                return "Is this a POP3 server? If it counts connections, another client may hold too many."
            case "login" if isinstance(error, TokenRefused):
                return error.advice or "Ask the provider's administrator with the words above."
            case "login" if isinstance(error, CredentialsRefused) and self._credentials.tokens is not None:
                return _token_advice(host.lower(), config.username)
            case "login" if isinstance(error, CredentialsRefused):
                return _password_advice(host.lower())
            case "login" if "in clear" in said:
                return "Set tls: tls (port 995) or tls: starttls-required; tls: none sends the password in clear."
            case "login":
                return "If another client has the maildrop open, try again when it is done; it is locked meanwhile."
            case "disposition":
                return "Choose disposition: leave or disposition: delete, or poll the mailbox by IMAP."
            case _:
                return "Try again; if it stays, ask the server's operator with the words above."


_MICROSOFT = ("office365.com", "outlook.com", "outlook.de", "office.com", "office365.us", "outlook.cn")
_GOOGLE = ("gmail.com", "googlemail.com")


def _token_advice(host: str, username: str) -> str:
    """The provider gave a token and the mail server does not take it."""
    if host.endswith(_MICROSOFT):
        return (
            "The token is good, but not for this mailbox. With client_credentials: POP.AccessAsApp granted, New-ServicePrincipal with "
            f"the enterprise application's object id, Add-MailboxPermission for {username}; it takes up to half an hour. "
            "With a person's login: that person needs full access, and POP switched on for the mailbox."
        )
    if host.endswith(_GOOGLE):
        return f"The token is good, but not for this mailbox: check scopes and owner; POP must be on for {username}."
    return "The mail server must trust this provider, and the token must name this user: check username and scopes."


def _password_advice(host: str) -> str:
    if host.endswith(_MICROSOFT):
        return "Microsoft takes no passwords for POP3 any more: this mailbox needs OAuth 2.0."
    if host.endswith(_GOOGLE):
        return (
            "Google takes only app passwords (with two-step verification), and POP must be switched on in its settings."
        )
    return (
        "Check username (often the whole address) and password; POP3 may be switched off for the account. Where the server "
        "has no passwords for the mechanism it offers, pin another with auth.mechanism."
    )
