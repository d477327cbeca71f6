"""The Gmail source: what connects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.message import Account
from mailpoller.core.ports import Session, Stage
from mailpoller.remote.gmail.account import ME
from mailpoller.remote.gmail.client import GmailClient
from mailpoller.remote.gmail.quota import quota_for
from mailpoller.remote.polled_session import opening
from mailpoller.remote.tokened import ByToken
from mailpoller.sources.gmail.config import GmailSettings
from mailpoller.sources.gmail.login import log_in
from mailpoller.sources.gmail.session import GmailSession
from mailpoller.wire.oauth.tokens import token_source


class GmailSource(ByToken):
    """See :class:`mailpoller.core.ports.Source`."""

    def __init__(self, name: str, config: GmailSettings, runtime: Runtime) -> None:
        self.account = Account("gmail", config.host, config.user)
        self._name = name
        self._config = config
        self._runtime = runtime
        terms = config.auth.terms("gmail", config.user)
        self._tokens = token_source(terms, runtime.state_directory, runtime.clock)
        whose = config.user if config.user != ME else f"{terms.owner} {terms.client_id}"
        self._quota = quota_for(config.url, whose, runtime.clock)

    async def connect(self) -> Session:
        """See the port. Asks for the profile, which every mailbox has."""
        client = self.client()
        async with opening(client):
            address = await log_in(client)
        client.pacer = self._runtime.pacer(self.account.host)
        user = address if self._config.user == ME else self._config.user
        return GmailSession(self._name, self._config, user, client, self._runtime.spool, self._runtime.clock)

    def client(self) -> GmailClient:
        """A new client; nothing is asked yet."""
        config = self._config
        return GmailClient(
            config.url, config.user, self._tokens, self._quota,
            policy=config.policy, timeout=config.timeout, proxy=config.proxy,
        )  # fmt: skip

    def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """See the port."""
        from mailpoller.sources.gmail.probe import probe

        return probe(self._config, self.client(), self._tokens, self._runtime.spool, dispositions)
