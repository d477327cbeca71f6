"""The EWS source: what connects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import structlog

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.message import Account
from mailpoller.core.ports import Session, Stage
from mailpoller.remote.polled_session import opening
from mailpoller.sources.ews.authentication import Login, PasswordLogin, TokenLogin
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.config import EwsSettings, PasswordAuth
from mailpoller.sources.ews.login import log_in
from mailpoller.sources.ews.session import EwsSession
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.oauth import OAuthAuth
from mailpoller.wire.oauth.tokens import TokenSource, token_source

log = structlog.get_logger(__name__)


class EwsSource:
    """See :class:`mailpoller.core.ports.Source`."""

    def __init__(self, name: str, config: EwsSettings, runtime: Runtime) -> None:
        self.account = Account("ews", config.host, config.owner)
        self._name = name
        self._config = config
        self._runtime = runtime
        self._tokens = _token_source(config, runtime)
        if not config.secure and not is_loopback(config.host):
            log.warning("tls.off", mailbox=name, host=config.host)

    async def connect(self) -> Session:
        """See the port. Asks for the Inbox, which every mailbox has; that we may not see it is no reason to stay
        away."""
        client = self.client()
        async with opening(client):
            await log_in(client, self._config)
        client.pacer = self._runtime.pacer(self.account.host)
        return EwsSession(self._name, self._config, client, self._runtime.spool, self._runtime.clock)

    def ask_anew(self) -> None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        if self._tokens is not None:
            self._tokens.ask_anew()

    def token_left(self) -> timedelta | None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        return None if self._tokens is None else self._tokens.left()

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What ends when, as far as anybody knows; see :meth:`TokenSource.expiries`."""
        return [] if self._tokens is None else self._tokens.expiries()

    def client(self) -> EwsClient:
        """A new connection, not yet made."""
        return EwsClient(self._config, self._login(), self._runtime.clock)

    def _login(self) -> Login:
        config = self._config
        if self._tokens is not None:
            return TokenLogin(config.host, self._tokens)
        assert config.password is not None and isinstance(config.auth, PasswordAuth)
        mechanism = config.auth.mechanism
        return PasswordLogin(config.host, config.username, config.password, mechanism, secure=config.secure)

    def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """See the port."""
        from mailpoller.sources.ews.probe import probe

        return probe(self._config, self.client(), dispositions)


def _token_source(config: EwsSettings, runtime: Runtime) -> TokenSource | None:
    """Where tokens come from, or None. Microsoft's are for the server itself (hybrid modern authentication) and not
    for Exchange Online, which is what its scopes say unless others are configured."""
    auth = config.auth
    if not isinstance(auth, OAuthAuth):
        return None
    if auth.provider == "microsoft" and not auth.scopes:
        own = f"https://{config.host}"
        personal = [f"{own}/EWS.AccessAsUser.All", "offline_access"]
        scopes = [f"{own}/.default"] if auth.grant == "client_credentials" else personal
        auth = auth.model_copy(update={"scopes": scopes})
    return token_source(auth.terms("ews", config.username), runtime.state_directory, runtime.clock)
