"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that fails."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, MailpollerError, SessionLost, TransientError
from mailpoller.core.ports import Stage
from mailpoller.sources.pop3 import connecting
from mailpoller.sources.pop3.config import Pop3Config, impossible
from mailpoller.sources.pop3.maildrop import Contents, Knowledge, Maildrop
from mailpoller.sources.pop3.protocol import Pop3Protocol
from mailpoller.transport.auth import Credentials
from mailpoller.transport.dial import adopt
from mailpoller.transport.oauth import provider_of
from mailpoller.transport.probe import Approach, Step, stages
from mailpoller.transport.tls import agreed

_HEAD = 8 << 20


def probe(config: Pop3Config, credentials: Credentials, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    attempt = _Attempt(config, credentials, dispositions)
    return stages(attempt.steps(), attempt.advice, attempt.close)


class _Attempt:
    """One connection, made step by step; each step returns what there is to say about it."""

    def __init__(self, config: Pop3Config, credentials: Credentials, dispositions: Sequence[Disposition]) -> None:
        self._config = config
        self._credentials = credentials
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]
        self._protocol = Pop3Protocol(asyncio.get_running_loop(), config.command_timeout.total_seconds())
        self._maildrop = Maildrop(self._protocol)
        self._contents = Contents()
        self._seconds = config.connect_timeout.total_seconds()
        self._approach = Approach(
            config.host, config.effective_port, config.proxy, config.connect_timeout,
            usual="POP3 is 995 with tls: tls, else 110.",
        )  # fmt: skip

    def steps(self) -> list[Step]:
        """In the order in which the TLS mode wants them."""
        steps: list[Step] = self._approach.steps(self._take)
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

    async def _take(self, sock: socket.socket) -> None:
        await adopt(self._protocol, sock)

    async def _tls(self) -> str:
        await connecting.begin_tls(self._protocol, self._config, self._seconds)
        return self._cipher()

    async def _stls(self) -> str:
        await connecting.start_tls(self._protocol, self._config, self._seconds)
        return self._cipher() if self._protocol.protected else "the server does not offer STLS: mail goes in clear"

    def _cipher(self) -> str:
        assert self._protocol.transport is not None
        return agreed(self._protocol.transport)

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
        match stage:
            case "tls" if "wrong version" in said or "no handshake" in said:
                return "This port may want STLS: try tls: starttls-required (usually port 110)."
            case "tls" if "STLS" in said:
                return "Try tls: tls with port 995."
            case "dns" | "tcp" | "tls":
                return self._approach.advice(stage, error)
            case "greeting" if config.tls != "tls":
                return "If this port speaks TLS from the first octet, set tls: tls."
            case "greeting":
                return "Is this a POP3 server? If it counts connections, another client may hold too many."
            case "login" if advice := self._credentials.advice(error):
                return advice
            case "login" if isinstance(error, CredentialsRefused):
                return _password_advice(config.host)
            case "login" if "in clear" in said:
                return "Set tls: tls (port 995) or tls: starttls-required; tls: none sends the password in clear."
            case "login":
                return "If another client has the maildrop open, try again when it is done; it is locked meanwhile."
            case "disposition":
                return "Choose disposition: leave or disposition: delete, or poll the mailbox by IMAP."
            case _:
                return "Try again; if it stays, ask the server's operator with the words above."


def _password_advice(host: str) -> str:
    provider = provider_of(host)
    if provider == "microsoft":
        return "Microsoft takes no passwords for POP3 any more: this mailbox needs OAuth 2.0."
    if provider == "google":
        return (
            "Google takes only app passwords (with two-step verification), and POP must be switched on in its settings."
        )
    return (
        "Check username (often the whole address) and password; POP3 may be switched off for the account. Where the server "
        "has no passwords for the mechanism it offers, pin another with auth.mechanism."
    )
