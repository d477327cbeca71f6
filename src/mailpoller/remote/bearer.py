"""Tokens for a client that has to know whose trouble it is when there is none."""

from __future__ import annotations

from mailpoller.core.errors import TransientError
from mailpoller.wire.http import Bearer


class TokenTrouble(TransientError):
    """There is no token at the moment: the provider's trouble and not the service's."""


class TellingBearer:
    """``tokens``, whose passing troubles can be told from the service's: they are :class:`TokenTrouble`."""

    def __init__(self, tokens: Bearer) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        try:
            return await self._tokens.token()
        except TransientError as error:
            raise TokenTrouble(str(error), retry_after=error.retry_after) from None

    async def refused(self, token: str) -> bool:
        return await self._tokens.refused(token)

    def taken(self, token: str) -> None:
        self._tokens.taken(token)
