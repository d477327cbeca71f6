"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that
fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import MailpollerError, SessionLost, TransientError
from mailpoller.core.ports import Stage
from mailpoller.sources.pop3 import connecting
from mailpoller.sources.pop3.config import Pop3Settings, impossible
from mailpoller.sources.pop3.maildrop import Contents, Knowledge, Maildrop
from mailpoller.sources.pop3.protocol import Pop3Protocol
from mailpoller.wire.auth import Credentials
from mailpoller.wire.oauth import provider_of
from mailpoller.wire.probe.server import ServerTrial
from mailpoller.wire.tls import agreed

_HEAD = 8 << 20


def probe(config: Pop3Settings, credentials: Credentials, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    return _Trial(config, credentials, dispositions).probe()


class _Trial(ServerTrial):
    service, starttls = "POP3", "STLS"

    def __init__(self, config: Pop3Settings, credentials: Credentials, dispositions: Sequence[Disposition]) -> None:
        self._protocol = Pop3Protocol(asyncio.get_running_loop(), config.command_timeout.total_seconds())
        super().__init__(config, self._protocol, credentials, dispositions)
        self._config = config
        self._maildrop = Maildrop(self._protocol)
        self._contents = Contents()

    async def _close(self) -> None:
        """QUIT if that is quick; nothing was marked."""
        if self._protocol.lost is None and self._protocol.transport is not None:
            with suppress(SessionLost):
                await self._maildrop.quit(2)
        self._protocol.lose("the probe is over")

    async def _tls(self) -> str:
        await connecting.begin_tls(self._protocol, self._config, self._seconds)
        return self._cipher()

    async def _start_tls(self) -> str:
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

    async def _changes(self) -> str:
        for disposition in self._dispositions:
            if wish := impossible(disposition):
                raise TransientError(f"POP3 cannot {wish}")
        # Whether DELE is allowed can only be known by saying it.
        return "messages are deleted"

    # --- advice ----------------------------------------------------------------------------------------------
    def _advice(self, stage: str, error: MailpollerError) -> str:
        match stage:
            case "login" if "in clear" in str(error):
                return "Set tls: tls (port 995) or tls: starttls-required; tls: none sends the password in clear."
            case "login":
                return "If another client has the maildrop open, try again when it is done; it is locked meanwhile."
            case "disposition":
                return "Choose disposition: leave or disposition: delete, or poll the mailbox by IMAP."
            case _:
                return ""

    def _password_advice(self) -> str:
        if provider_of(self._config.host) == "google":
            return (
                "Google takes only app passwords (with two-step verification), and POP must be switched on in its "
                "settings."
            )
        return (
            "Check username (often the whole address) and password; POP3 may be switched off for the account. Where "
            "the server has no passwords for the mechanism it offers, pin another with auth.mechanism."
        )
