"""Fetching messages: a few at a time, each decoded straight into the spool, and cut at the limit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.spool import Spool
from mailpoller.sources.gmail.client import AT_ONCE, MESSAGES_GET, GmailClient
from mailpoller.sources.gmail.config import TRASH, UNREAD
from mailpoller.sources.gmail.encoded import EncodedIntake
from mailpoller.sources.gmail.errors import Missing
from mailpoller.transport.throttle import Busy

DOING = "fetch a message"
_RAW = (("format", "raw"), ("fields", "id,labelIds,internalDate,raw"))
_MINIMAL = (("format", "minimal"), ("fields", "id,labelIds,internalDate"))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Download:
    """The fetching of some claims of the label ``label``. :meth:`run` reads to the end whatever becomes of the consumer, who takes from
    ``arrived`` whenever ``news`` is set; what could not be had is in ``failed``: uid -> why. ``labels``: uid -> what a message that
    was had is labelled with.
    """

    def __init__(self, client: GmailClient, spool: Spool, label: str, claims: Sequence[Claim], limit: int) -> None:
        self.arrived: deque[RawMessage | Gone] = deque()
        self.news = asyncio.Event()
        self.failed: dict[str, TransientError] = {}
        self.labels: dict[str, frozenset[str]] = {}
        self._client = client
        self._spool = spool
        self._label = label
        self._limit = limit
        self._waiting = deque(claims)

    async def run(self) -> None:
        """Fetch everything. Raises :class:`SessionLost` and :class:`CredentialsRefused`, the first that occurs."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(min(AT_ONCE, len(self._waiting))):
                    group.create_task(self._work(), name=f"{DOING} {number}")
        except ExceptionGroup as several:
            raise next(
                (one for one in several.exceptions if isinstance(one, SessionLost)), several.exceptions[0]
            ) from None
        finally:
            self.news.set()

    def drop(self) -> None:
        """Close what nobody will take."""
        while self.arrived:
            answer = self.arrived.popleft()
            if isinstance(answer, RawMessage):
                answer.octets.close()

    async def _work(self) -> None:
        while self._waiting:
            claim = self._waiting.popleft()
            try:
                self._arrive(await self._fetch(claim))
            except (SessionLost, CredentialsRefused):
                raise
            except Busy as error:
                # Nobody is served now: what is left is not asked for.
                self.failed[claim.ref.uid] = error
                while self._waiting:
                    self.failed[self._waiting.popleft().ref.uid] = error
            except TransientError as error:
                self.failed[claim.ref.uid] = error

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
                facts: Mapping[str, Any] = await self._client.get(path, DOING, MESSAGES_GET, _MINIMAL)
            else:
                facts = intake.facts()
            told = facts.get("labelIds", [])
            labels = frozenset(one for one in told if isinstance(one, str)) if isinstance(told, list) else frozenset()
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

    def _arrive(self, answer: RawMessage | Gone) -> None:
        self.arrived.append(answer)
        self.news.set()


def flags_of(labels: frozenset[str]) -> tuple[str, ...]:
    """The flags of a message with these labels, as IMAP names them."""
    named = {"STARRED": "\\Flagged", "DRAFT": "\\Draft", "IMPORTANT": "$Important"}
    seen = () if UNREAD in labels else ("\\Seen",)
    return (*seen, *(flag for label, flag in named.items() if label in labels))


def instant(found: object) -> datetime | None:
    """An internalDate: milliseconds since 1970, as text; None if it is none."""
    try:
        return _EPOCH + timedelta(milliseconds=int(found)) if isinstance(found, str | int) else None
    except (ValueError, OverflowError):
        return None
