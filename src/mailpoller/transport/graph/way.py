"""The way to Graph, as a live probe of the source and of the outgoing walks it: name, connection, TLS, token."""

from __future__ import annotations

from datetime import timedelta

from mailpoller.core.errors import MailpollerError
from mailpoller.transport.http import Bearer
from mailpoller.transport.probe import Step, WebApproach
from mailpoller.transport.proxy import Proxy
from mailpoller.transport.tls import TlsPolicy


class WayToGraph:
    """The steps up to the token."""

    def __init__(
        self, url: str, policy: TlsPolicy, proxy: Proxy | None, timeout: timedelta, tokens: Bearer
    ) -> None:  # fmt: skip
        self._approach = WebApproach(url, policy, proxy, timeout, named="cloud or url")
        self._tokens = tokens

    def steps(self) -> list[Step]:
        """In their order."""
        return [*self._approach.steps(), ("login", self._login)]

    async def close(self) -> None:
        """Cut what is open."""
        await self._approach.close()

    async def _login(self) -> str:
        await self._tokens.token()
        return "there is a token"

    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about a step of the way; empty for other stages, and where the error says it."""
        if stage == "login":
            advice = getattr(error, "advice", "")
            return advice or "Check tenant, client_id, the secret and its expiry: Entra, App registrations."
        return self._approach.advice(stage, error)
