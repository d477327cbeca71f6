"""Fetching messages: a few at a time, each decoded straight into the spool, and cut at the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.spool import Spool
from mailpoller.remote.fetching import FetchingAbreast
from mailpoller.remote.gmail.client import AT_ONCE, MESSAGES_GET, GmailClient
from mailpoller.remote.gmail.errors import Missing
from mailpoller.sources.gmail.config import TRASH, UNREAD
from mailpoller.sources.gmail.encoded import EncodedIntake
from mailpoller.sources.gmail.looking import MINIMAL, instant, labels_of

DOING = "fetch a message"
_RAW = (("format", "raw"), ("fields", "id,labelIds,internalDate,raw"))


class Download(FetchingAbreast):
    """The fetching of some claims of the label ``label``. ``labels``: uid -> what a message that was had is labelled
    with."""

    def __init__(self, client: GmailClient, spool: Spool, label: str, claims: Sequence[Claim], limit: int) -> None:
        super().__init__(claims, AT_ONCE)
        self.labels: dict[str, frozenset[str]] = {}
        self._client = client
        self._spool = spool
        self._label = label
        self._limit = limit

    async def _fetch(self, claim: Claim) -> RawMessage | Gone:
        path = f"/messages/{quote(claim.ref.uid, safe='')}"

        def begin() -> EncodedIntake:
            return EncodedIntake(self._spool, self._limit)

        try:
            intake = await self._client.download(path, DOING, MESSAGES_GET, _RAW, begin)
        except Missing:
            return Gone(claim)
        assert isinstance(intake, EncodedIntake)
        try:
            if intake.overflowed:
                # What comes behind the message was not waited for.
                facts: Mapping[str, Any] = await self._client.get(path, DOING, MESSAGES_GET, MINIMAL)
            else:
                facts = intake.facts()
            labels = labels_of(facts.get("labelIds"))
            gone = TRASH in labels and self._label != TRASH
        except BaseException as error:
            intake.abort()
            if isinstance(error, Missing):
                return Gone(claim)
            raise
        if gone:
            # A person has thrown it away, and in the trash it stays for thirty days.
            intake.abort()
            return Gone(claim)
        self.labels[claim.ref.uid] = labels
        return RawMessage(
            claim, intake.finish(), truncated=intake.overflowed,
            received=instant(facts.get("internalDate")), flags=flags_of(labels),
        )  # fmt: skip


def flags_of(labels: frozenset[str]) -> tuple[str, ...]:
    """The flags of a message with these labels, as IMAP names them."""
    named = {"STARRED": "\\Flagged", "DRAFT": "\\Draft", "IMPORTANT": "$Important"}
    seen = () if UNREAD in labels else ("\\Seen",)
    return (*seen, *(flag for label, flag in named.items() if label in labels))
