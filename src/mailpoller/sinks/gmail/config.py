"""The YAML block of a queue that is a mailbox at Gmail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.delivery import Payload
from mailpoller.core.literals import Size
from mailpoller.core.message import Account
from mailpoller.remote.gmail.account import GmailAccount, check_label

PLACES = ("INBOX", "UNREAD")
_FORBIDDEN = frozenset(("SENT", "DRAFT", "CHAT"))
LARGEST = 150_000_000
"""What the service takes (Gmail API, ``messages.import``)."""


class GmailQueueSettings(GmailAccount, SinkConfig):
    """What a queue of this type is told; see :class:`mailpoller.sinks.gmail.GmailQueueConfig`."""

    scopes_for: ClassVar = "gmail-import"
    """By what tokens are asked for: other scopes than a mailbox's."""

    type: Literal["gmail"]
    labels: list[str] = Field(default_factory=lambda: list(PLACES), max_length=20)
    """What each message bears there, by name: ``INBOX``, ``UNREAD``, ``STARRED``, or a label of yours, which is not
    made. Without INBOX or a label of yours it is found by a search only."""
    payload: Payload = "summary"
    """The octets are put there and nothing else, whatever is said here."""
    max_size: Size = Field(default=100_000_000, le=LARGEST)
    """Larger messages are refused before they are sent. The service takes 150 MB."""

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: list[str]) -> list[str]:
        for name in labels:
            check_label(name)
            if name.upper() in _FORBIDDEN:
                raise ValueError(f"Gmail puts the label {name.upper()} on messages itself: nobody else can")
        if len({name.casefold() for name in labels}) < len(labels):
            raise ValueError("a label is named twice")
        return labels

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        self.check_login()
        return self

    def fed_folders(self) -> Iterator[tuple[Account, str]]:
        """See the parent's."""
        for name in self.labels:
            yield self.account_of(self.type), "INBOX" if name.upper() == "INBOX" else name

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        return Channel("https", "gmail.googleapis.com", "/gmail/v1/users/me/messages", "mail")

    def findings(self) -> Iterator[Finding]:
        """Labels that hide what is put there."""
        yield from super().findings()
        if not {name.upper() for name in self.labels} - {"UNREAD", "STARRED", "IMPORTANT"}:
            yield Finding("labels", "nobody sees what is put there: say INBOX, or a label of yours")
        if {"TRASH", "SPAM"} & {name.upper() for name in self.labels}:
            yield Finding("labels", "Gmail removes what is in the trash or in spam after 30 days")
