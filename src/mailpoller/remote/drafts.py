"""Sending by drafts: a service keeps the mail first, and what became of it can be asked after a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Literal, Protocol

import structlog

from mailpoller.core.errors import MailpollerError, MessageRejected, TransientError
from mailpoller.core.ports import Clock, Draft, Keep, Mail, Said
from mailpoller.wire.smtp import posted

log = structlog.get_logger(__name__)

SECOND_LOOK = timedelta(minutes=1)
"""A draft that is missing is looked for once more after this long: a service may answer from a copy that lags."""

_GONE = "its draft is gone: it may have been sent, and is looked for once more"

Fate = Literal["waits", "sent", "missing"]


class Drafts(Protocol):
    """The drafts of one mailbox at a service. Every method raises what ``Outgoing.send`` does."""

    async def place(self) -> str:
        """Whose drafts these are: the service and the user."""

    async def make(self, mail: Mail) -> Draft:
        """Put a mail among the drafts; it is sent to nobody."""

    async def submit(self, draft: Draft) -> tuple[str, str]:
        """Send a draft; the service's words, and the Message-ID that the mail bears now."""

    async def fate(self, draft: Draft) -> Fate:
        """``waits``: it is a draft still. ``sent``: it is among what was sent. ``missing``: neither is seen."""

    async def drop(self, draft: Draft) -> None:
        """Remove a draft that is not to be sent."""


async def posted_by_draft(
    drafts: Drafts, mail: Mail, kept: Draft | None, keep: Keep, clock: Clock
) -> Mapping[str, Said]:
    """See :class:`~mailpoller.core.ports.Drafting`."""

    async def send(one: Mail) -> str:
        nonlocal kept
        draft = kept
        if draft is not None and draft.place != await drafts.place():
            await keep(None)  # nobody can look there any more
            draft = kept = None
        if draft is not None:
            if words := await _went(drafts, draft, keep, clock):
                return words
            if not _same(draft.recipients, one.recipients):
                await _forget(drafts, draft, keep)
                draft = kept = None
        if draft is None:
            draft = await _begun(drafts, one, keep)
            kept = draft
        try:
            words, message_id = await drafts.submit(draft)
        except MessageRejected:
            await _forget(drafts, draft, keep)
            kept = None
            raise
        if message_id != draft.message_id:
            with suppress(TransientError):  # it went; a bounce would not be known for its, and that is all
                await keep(replace(draft, message_id=message_id))
        return words

    return await posted(send, mail)


async def _went(drafts: Drafts, draft: Draft, keep: Keep, clock: Clock) -> str:
    """The words of a mail that went already, or nothing. Raises :class:`TransientError` if that is not known yet."""
    fate = await drafts.fate(draft)
    if fate == "sent":
        return "sent by an earlier attempt: it is among the sent mail"
    now = clock.now()
    if fate == "waits":
        if draft.missed_at is not None:
            await keep(replace(draft, missed_at=None))
        return ""
    if draft.missed_at is None or draft.missed_at > now:  # by a clock that was ahead then
        await keep(replace(draft, missed_at=now))
        raise TransientError(_GONE)
    if now - draft.missed_at < SECOND_LOOK:
        raise TransientError(_GONE)
    log.warning("draft.missing", message_id=draft.message_id, missed_at=draft.missed_at.isoformat(timespec="seconds"))
    return "sent by an earlier attempt: its draft is gone, and was looked for twice"


async def _begun(drafts: Drafts, mail: Mail, keep: Keep) -> Draft:
    draft = await drafts.make(mail)
    try:
        await keep(draft)
    except TransientError:
        with suppress(MailpollerError):
            await drafts.drop(draft)
        raise
    return draft


async def _forget(drafts: Drafts, draft: Draft, keep: Keep) -> None:
    """It is not to be sent. That is on record before it is removed: what is missing else was sent."""
    await keep(None)
    with suppress(MailpollerError):
        await drafts.drop(draft)


def _same(those: Sequence[str], these: Sequence[str]) -> bool:
    return {one.casefold() for one in those} == {one.casefold() for one in these}
