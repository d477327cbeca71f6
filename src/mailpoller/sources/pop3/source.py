"""The POP3 source: what connects, and no more often than the server wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import structlog

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Account
from mailpoller.core.ports import Session, Stage
from mailpoller.sources.pop3.authentication import login_delay
from mailpoller.sources.pop3.config import Pop3Settings
from mailpoller.sources.pop3.connecting import open_connection
from mailpoller.sources.pop3.memory import Memory
from mailpoller.sources.pop3.protocol import Pop3Protocol
from mailpoller.sources.pop3.session import Pop3Session
from mailpoller.wire.dial import is_loopback

log = structlog.get_logger(__name__)

PATIENCE = timedelta(seconds=10)
"""A longer pause is not waited for while a session begins: the engine does that better."""


class Pop3Source:
    """See :class:`mailpoller.core.ports.Source`."""

    def __init__(self, name: str, config: Pop3Settings, runtime: Runtime) -> None:
        self.account = Account("pop3", config.host.lower(), config.username)
        self._name = name
        self._config = config
        self._runtime = runtime
        self._credentials = config.credentials(runtime)
        self._memory = Memory()
        self._welcome_at = float("-inf")
        """From this instant on (monotonic seconds) the server lets us log in again."""
        if config.tls == "starttls":
            log.warning("tls.opportunistic", mailbox=name, host=config.host)
        elif config.tls == "none" and not is_loopback(config.host):
            log.warning("tls.off", mailbox=name, host=config.host)

    async def connect(self) -> Session:
        """See the port."""
        protocol = await self.log_in(PATIENCE)
        runtime = self._runtime
        return Pop3Session(self._name, self._config, self, protocol, self._memory, runtime.spool, runtime.clock)

    async def log_in(self, patience: timedelta) -> Pop3Protocol:
        """See :class:`~mailpoller.sources.pop3.session.Dialler`."""
        pause = self.pause
        if pause > patience:
            seconds = pause.total_seconds()
            raise TransientError(f"the server wants the next login in {seconds:.0f} s", retry_after=pause)
        if pause:
            await self._runtime.clock.sleep(pause.total_seconds())
        await self._credentials.ready()
        protocol = await open_connection(self._name, self._config, self._credentials)
        protocol.turnstile.pacer = self._runtime.pacer(self.account.host)
        self._welcome_at = self._runtime.clock.monotonic() + login_delay(protocol).total_seconds()
        return protocol

    @property
    def pause(self) -> timedelta:
        """See :class:`~mailpoller.sources.pop3.session.Dialler`."""
        return timedelta(seconds=max(0.0, self._welcome_at - self._runtime.clock.monotonic()))

    def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """See the port."""
        from mailpoller.sources.pop3.probe import probe

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
