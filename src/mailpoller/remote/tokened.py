"""What a source says of the tokens that it logs in with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from mailpoller.wire.oauth.tokens import TokenSource


class ByToken:
    """A source whose login is OAuth 2.0 alone. See :class:`~mailpoller.core.ports.Tokened` and
    :class:`~mailpoller.core.ports.Expiring`."""

    _tokens: TokenSource

    def ask_anew(self) -> None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        self._tokens.ask_anew()

    def token_left(self) -> timedelta | None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        return self._tokens.left()

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What of the login ends when (aware UTC), as far as it is known."""
        return self._tokens.expiries()
