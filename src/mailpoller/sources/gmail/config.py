"""The YAML block of a mailbox that is reached by the Gmail API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mailpoller.core.authentication import GMAIL, Trust
from mailpoller.core.component import Finding
from mailpoller.core.delivery import Disposition
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from mailpoller.remote.gmail.account import GmailAccount, check_label
from mailpoller.wire import doubtful
from mailpoller.wire.literals import Wait

SEEN = "\\seen"
LABEL_OF = {"\\flagged": "STARRED", "$important": "IMPORTANT"}
"""Flags that are labels of the system; every other flag without a backslash is a label of that name."""

TRASH, SPAM, UNREAD = "TRASH", "SPAM", "UNREAD"
HIDDEN = frozenset((TRASH, SPAM))
"""Labels whose messages no other label's listing shows."""
_FIXED = frozenset(("SENT", "DRAFT", "CHAT", UNREAD))
"""Labels that cannot be put on a message, or that are no place."""


class GmailSettings(GmailAccount, SourceConfig):
    """What a mailbox of this type is told; see :class:`mailpoller.sources.gmail.GmailConfig`."""

    type: Literal["gmail"]
    folders: list[str] = Field(default_factory=lambda: ["INBOX"], min_length=1)
    """The labels to poll, by name as Gmail shows it (``Support/Germany``), or one of the system's: ``INBOX``,
    ``SPAM``, ``IMPORTANT``, ``STARRED``, ``CATEGORY_UPDATES``. A message with two labels that are both polled is
    taken once for each."""
    notice_interval: Wait = timedelta(seconds=15)
    """How often the service is asked for news between polls; only the first label, and one small request of 2 quota
    units each time."""

    @field_validator("folders")
    @classmethod
    def _check_folders(cls, folders: list[str]) -> list[str]:
        for name in folders:
            check_label(name)
        if len({name.casefold() for name in folders}) < len(folders):
            raise ValueError("a label is named twice")
        return folders

    @field_validator("disposition", "on_quarantine", "on_discard")
    @classmethod
    def _check_disposition(cls, disposition: Disposition | None) -> Disposition | None:
        for reason in [] if disposition is None else reasons_against(disposition):
            raise ValueError(reason)
        return disposition

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        self.check_login()
        wanted = (self.disposition, self.on_quarantine, self.on_discard)
        if TRASH in (name.upper() for name in self.folders) and any(one is not None and one.delete for one in wanted):
            raise ValueError("delete moves to the trash, which is polled here: let it be emptied by Gmail, or move")
        return self

    def findings(self) -> Iterator[Finding]:
        """That asking for news makes haste needless."""
        yield from super().findings()
        yield from doubtful.hasty(self.poll_interval, "news is asked for every notice_interval anyway")

    def usual_trust(self) -> Trust | None:
        """Every mailbox of the service receives through it."""
        return GMAIL

    def polled_account(self) -> Account:
        """See the parent's."""
        return self.account_of(self.type)


def reasons_against(disposition: Disposition) -> list[str]:
    """Why Gmail can never do this; empty if it can."""
    found = [
        f"Gmail has no flag {flag}; it has \\Seen, \\Flagged, $Important, and labels, which are any other name"
        for flag in disposition.flags
        if flag.startswith("\\") and flag.lower() not in (SEEN, *LABEL_OF)
    ]
    plain = [flag for flag in disposition.flags if not flag.startswith("\\") and flag.lower() not in LABEL_OF]
    for name in [*plain, *([disposition.move] if disposition.move else [])]:
        try:
            check_label(name)
        except ValueError as error:
            found.append(str(error))
        if name.upper() in _FIXED:
            found.append(f"Gmail puts the label {name.upper()} on messages itself: nobody else can")
    return found
