"""Fetching messages: four at a time, each straight into the spool, and cut at the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.spool import Spool
from mailpoller.remote.fetching import FetchingAbreast
from mailpoller.remote.graph import Ask, Denied, GraphClient, Missing
from mailpoller.remote.graph.client import BATCHED
from mailpoller.remote.graph.gate import AT_ONCE
from mailpoller.sources.graph.items import item_of
from mailpoller.sources.graph.listing import PROPERTIES

Facts = tuple[datetime | None, tuple[str, ...]]
"""When the service received a message, and its flags."""

DOING = "fetch a message"


class Download(FetchingAbreast):
    """The fetching of some claims. ``facts``: of those that were listed lately."""

    def __init__(
        self, client: GraphClient, spool: Spool, claims: Sequence[Claim], limit: int, facts: Mapping[str, Facts]
    ) -> None:
        super().__init__(claims, AT_ONCE)
        self._client = client
        self._spool = spool
        self._limit = limit
        self._facts = {claim.ref.uid: found for claim in claims if (found := facts.get(claim.ref.uid)) is not None}

    async def _fetch_all(self) -> None:
        await self._learn()
        await super()._fetch_all()

    async def _learn(self) -> None:
        """Ask about those that were not listed lately: they were put off before, or an earlier process listed them."""
        unknown = [claim for claim in self._waiting if claim.ref.uid not in self._facts]
        for first in range(0, len(unknown), BATCHED):
            asked = unknown[first : first + BATCHED]
            asks = [Ask("GET", f"/messages/{quote(one.ref.uid, safe='')}?$select={PROPERTIES}") for one in asked]
            for claim, answer in zip(asked, await self._client.batch(asks, "look at messages"), strict=True):
                if answer.gone:
                    self._waiting.remove(claim)
                    self._arrive(Gone(claim))
                elif answer.ok:
                    item = item_of(answer.body)
                    self._facts[claim.ref.uid] = item.received, item.flags

    async def _fetch(self, claim: Claim) -> RawMessage | Gone:
        intake = self._spool.begin(self._limit)
        try:
            framed = await self._client.download(claim.ref.uid, intake, DOING)
        except BaseException as error:
            intake.abort()
            if isinstance(error, Missing) and error.item:
                return Gone(claim)
            if isinstance(error, Denied):
                # Rights and labels may keep one message from us, which must not stop the others.
                raise TransientError(str(error)) from None
            raise
        if not intake.size and not intake.overflowed:
            intake.abort()
            raise TransientError("the service gives no content for it")
        received, flags = self._facts.get(claim.ref.uid, (None, ()))
        # MIME has no mark of its own end.
        doubt = (
            ""
            if framed or intake.overflowed
            else "the service's answer had no length, so that a cut would look like its end"
        )
        return RawMessage(
            claim, intake.finish(), truncated=intake.overflowed, received=received, flags=flags, doubt=doubt
        )  # fmt: skip
