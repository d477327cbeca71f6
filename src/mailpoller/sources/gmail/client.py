"""The Gmail API as a client of one mailbox speaks it: every request takes its turn, pays its units, and fails with a decision."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.ports import Clock
from mailpoller.core.spool import Intake
from mailpoller.sources.gmail.errors import MessageTrouble, decided, is_throttled, may_pass, wish_of
from mailpoller.sources.gmail.quota import Quota
from mailpoller.transport.bearer import TellingBearer, TokenTrouble
from mailpoller.transport.http import Bearer, HttpAnswer, HttpClient, HttpCut, HttpStatus, Unauthorized
from mailpoller.transport.proxy import Proxy
from mailpoller.transport.retry import briefly
from mailpoller.transport.throttle import LONGEST_PAUSE
from mailpoller.transport.tls import TlsPolicy

AT_ONCE = 6
"""Requests in flight in one session."""
TRIES = 4
"""How often a request that may pass later is made, all told, before the engine is left to wait."""
FIRST_WAIT = 0.3
"""Seconds before a request that failed inside the service is made again; doubled each time."""

# What a request costs, in quota units (Gmail API, Usage limits).
PROFILE = LABELS_LIST = 1
HISTORY_LIST = 2
LABELS_CREATE = MESSAGES_LIST = MESSAGES_GET = MESSAGES_MODIFY = 5
BATCH_MODIFY = 50

Query = Sequence[tuple[str, str]]
"""The options of a request; one may occur twice."""

T = TypeVar("T")


class GmailClient:
    """Speaks to one mailbox. Paths are below ``/gmail/v1/users/USER``; ``units`` is what a request costs.

    Every request raises :class:`SessionLost` when there is no answer that can be used (and then every later one does),
    :class:`CredentialsRefused` for a token that is not taken and for what we may not do, :class:`Busy`, :class:`Missing`,
    :class:`Invalid`, and :class:`TransientError` for all else. All requests are harmless when repeated.
    """

    def __init__(
        self,
        url: str,
        user: str,
        tokens: Bearer,
        quota: Quota,
        clock: Clock,
        *,
        policy: TlsPolicy,
        timeout: timedelta,
        proxy: Proxy | None = None,
    ) -> None:
        self.lost: str | None = None
        self._mailbox = f"/gmail/v1/users/{quote(user, safe='@')}"
        self._quota = quota
        self._clock = clock
        self._http = HttpClient(
            url, bearer=TellingBearer(tokens), policy=policy, timeout=timeout, proxy=proxy, connections=AT_ONCE,
            headers={"accept": "application/json"},
        )  # fmt: skip

    @property
    def host(self) -> str:
        return self._http.host

    def check(self) -> None:
        """Raise :class:`SessionLost` if the session is."""
        if self.lost is not None:
            raise SessionLost(self.lost)

    async def get(self, path: str, doing: str, units: int, query: Query = ()) -> dict[str, Any]:
        """GET a JSON object."""

        async def once() -> dict[str, Any]:
            return (await self._http.request("GET", self._target(path, query), doing=doing)).object()

        return await self._in_turn(once, units)

    async def post(
        self, path: str, doing: str, units: int, body: Mapping[str, object], query: Query = ()
    ) -> HttpAnswer:
        """POST JSON. A connection that breaks is made anew at once, for what is asked for twice is done once."""

        async def once() -> HttpAnswer:
            return await self._http.request("POST", self._target(path, query), doing=doing, json=body)

        return await self._in_turn(lambda: briefly(once, on=HttpCut), units)

    async def download(self, path: str, doing: str, units: int, query: Query, begin: Callable[[], Intake]) -> Intake:
        """GET into an intake that ``begin`` makes for each attempt, as it arrives. The caller ends it; that of a failed attempt is ended."""

        async def once() -> Intake:
            intake = begin()
            try:
                await self._http.download(self._target(path, query), intake, doing=doing)
            except BaseException:
                intake.abort()
                raise
            return intake

        return await self._in_turn(lambda: briefly(once, on=HttpCut), units)

    async def close(self) -> None:
        """Close the connections. Nothing can be asked afterwards."""
        self.lost = self.lost or "the session was closed"
        await self._http.close()

    def _target(self, path: str, query: Query) -> str:
        return f"{self._mailbox}{path}" + (f"?{urlencode(query)}" if query else "")

    async def _in_turn(self, once: Callable[[], Awaitable[T]], units: int) -> T:
        """Do it when it is our turn; again, when the service says that it is too busy now and will not be for long."""
        for attempt in range(TRIES):
            self.check()
            await self._quota.take(units)
            self.check()
            try:
                done = await once()
            except (HttpStatus, Unauthorized) as error:
                if isinstance(error, Unauthorized) or not may_pass(error):
                    raise decided(error) from None
                wish = wish_of(error, self._clock.now())
                throttled = is_throttled(error)
                wait = self._quota.throttled(wish) if throttled else FIRST_WAIT * 2**attempt * random.uniform(0.8, 1.2)
                if wait > LONGEST_PAUSE or attempt == TRIES - 1:
                    raise decided(error, wish) from None
                if not throttled:
                    await self._clock.sleep(wait)
            except (TokenTrouble, MessageTrouble):
                raise
            except TransientError as error:
                self.lost = self.lost or str(error)
                raise SessionLost(self.lost, retry_after=error.retry_after) from None
            else:
                self._quota.served()
                return done
        raise AssertionError("the last attempt returns or raises")
