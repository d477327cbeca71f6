"""The IMAP source: what connects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Literal

import structlog

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.message import Account
from mailpoller.core.ports import Session, Stage
from mailpoller.sources.imap.config import ImapSettings
from mailpoller.sources.imap.session import ImapSession
from mailpoller.sources.imap.trust import Trust
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.imap.connecting import open_client

log = structlog.get_logger(__name__)


class ImapSource:
    """See :class:`mailpoller.core.ports.Source`."""

    parallel: Literal[True] = True
    """See :class:`mailpoller.core.ports.Parallel`."""

    def __init__(self, name: str, config: ImapSettings, runtime: Runtime) -> None:
        self.account = Account("imap", config.host.lower(), config.username)
        self._name = name
        self._config = config
        self._runtime = runtime
        self._trust = Trust()
        self._credentials = config.credentials(runtime)
        if config.tls == "starttls":
            log.warning("tls.opportunistic", mailbox=name, host=config.host)
        elif config.tls == "none" and not is_loopback(config.host):
            log.warning("tls.off", mailbox=name, host=config.host)

    async def connect(self) -> Session:
        """See the port."""
        await self._credentials.ready()
        client = await open_client(self._name, self._config, self._credentials)
        client.protocol.turnstile.pacer = self._runtime.pacer(self.account.host)
        return ImapSession(
            self._name, self._config, client, self._runtime.spool, self._trust, self._runtime.clock,
            self._credentials.renew_in
        )  # fmt: skip

    def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """See the port."""
        from mailpoller.sources.imap.probe import probe

        return probe(self._config, self._credentials, dispositions)

    def ask_anew(self) -> None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        self._credentials.ask_anew()

    def token_left(self) -> timedelta | None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        return self._credentials.token_left()

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What of the login ends when (aware UTC), as far as it is known."""
        return self._credentials.expiries()
