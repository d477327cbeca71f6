"""The Graph source: what connects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.message import Account
from mailpoller.core.ports import Session, Stage
from mailpoller.remote.graph import GraphClient, gate_for
from mailpoller.remote.polled_session import opening
from mailpoller.remote.tokened import ByToken
from mailpoller.sources.graph.config import GraphSettings
from mailpoller.sources.graph.login import log_in
from mailpoller.sources.graph.session import GraphSession
from mailpoller.wire.oauth.tokens import token_source


class GraphSource(ByToken):
    """See :class:`mailpoller.core.ports.Source`."""

    def __init__(self, name: str, config: GraphSettings, runtime: Runtime) -> None:
        self.account = Account("graph", config.host, config.user)
        self._name = name
        self._config = config
        self._runtime = runtime
        self._terms = config.auth.terms("graph", config.user)
        self._tokens = token_source(self._terms, runtime.state_directory, runtime.clock)
        self._gate = gate_for(config.service, self._terms.client_id, config.user, runtime.clock)

    async def connect(self) -> Session:
        """See the port. Asks for the Inbox, which every mailbox has."""
        client = self.client()
        async with opening(client):
            await log_in(client)
        client.pacer = self._runtime.pacer(self.account.host)
        return GraphSession(self._name, self._config, client, self._runtime.spool, self._runtime.clock)

    def client(self) -> GraphClient:
        """A new client; nothing is asked yet."""
        config = self._config
        return GraphClient(
            config.service, config.user, self._tokens, self._gate,
            policy=config.policy, timeout=config.timeout, proxy=config.proxy,
        )  # fmt: skip

    def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """See the port."""
        from mailpoller.sources.graph.probe import probe

        return probe(self._config, self.client(), self._tokens, self._runtime.spool, dispositions)
