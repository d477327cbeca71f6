"""A test of the rules: a mail, and what is to become of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from mailpoller.core.attributes import Priority
from mailpoller.core.classification import MailClass
from mailpoller.core.component import Block
from mailpoller.core.literals import MailboxName, QueueName, Size


def _listed(written: object) -> object:
    return [written] if isinstance(written, str) else written


_TEXT = {"type": "string", "minLength": 1}
_LISTED = WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]})


def _on_one_line(text: str | None) -> str | None:
    if text is not None and ("\n" in text or "\r" in text or "\0" in text):
        raise ValueError("a header field is written on one line")
    return text


class AttachmentOfTest(Block):
    """An attachment of a test's mail."""

    name: str = ""
    """Its file name."""
    type: str = "application/octet-stream"
    """Its media type, as it is declared."""
    content: str = ""
    """What is in it."""
    size: Size | None = Field(default=None, le=1_000_000)
    """So many octets instead."""

    _single_lines = field_validator("name", "type")(_on_one_line)


class MailOfTest(Block):
    """A mail, as far as a test says what is in it. What it leaves out is there all the same, and says nothing."""

    from_: str = Field(default="Somebody <somebody@example.com>", alias="from")
    """The field From, as it is written."""
    to: str | None = None
    """The field To. Without it: the mailbox's address."""
    cc: str | None = None
    """The field Cc."""
    subject: str = "Test"
    """The subject."""
    headers: dict[str, str | list[str]] = Field(default_factory=dict)
    """More header fields: name to value, or to several values."""
    text: str = "Test\n"
    """The text."""
    html: str | None = None
    """The HTML beside it."""
    attachments: list[AttachmentOfTest] = Field(default_factory=list, max_length=100)
    """What is attached."""

    _single_lines = field_validator("from_", "to", "cc", "subject")(_on_one_line)

    @field_validator("headers")
    @classmethod
    def _fields(cls, headers: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
        for name, value in headers.items():
            if not name or not all("!" <= character <= "~" and character != ":" for character in name):
                raise ValueError("the name of a header field is ASCII without colon and space")
            for one in [value] if isinstance(value, str) else value:
                _on_one_line(one)
        return headers


class Expected(Block):
    """What is to become of a test's mail: what is not written is not looked at."""

    verdict: Literal["deliver", "quarantine", "discard"] | None = None
    """What is done with it."""
    queues: Annotated[list[QueueName] | None, BeforeValidator(_listed), _LISTED] = None
    """The queues that get it, in whatever order; none if the list is empty."""
    topic: str | None = None
    """The topic."""
    priority: Priority | None = None
    """low, normal or high."""
    tags: Annotated[list[str] | None, BeforeValidator(_listed), _LISTED] = None
    """Its tags, in whatever order; none if the list is empty."""
    reason: str | None = None
    """Why it is quarantined, or discarded: one word."""
    class_: MailClass | None = Field(default=None, alias="class")
    """What kind of mail it is in the end."""
    rules: Annotated[list[str] | None, BeforeValidator(_listed), _LISTED] = None
    """The rules that match, in their order; none if the list is empty."""
    event: dict[str, Any] | None = Field(default=None, min_length=1)
    """Anything in the event: a path below ``data`` to what must stand there, such as ``classification.subclass: hard``
    or ``attachments.0.name: a.pdf``."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise ValueError("nothing is expected, so nothing could fail")
        return self


class RuleTest(Block):
    """A mail, and what the rules are to make of it. ``mailpoller test`` judges it as the service would."""

    name: str
    """What is promised, on one line."""
    mailbox: MailboxName | None = None
    """Judge as this mailbox does; may be left out if there is only one."""
    mail: str | MailOfTest | None = None
    """The whole mail as it is written, or a block that says what is in it."""
    file: Annotated[list[Path] | None, BeforeValidator(_listed), _LISTED] = Field(
        default=None, min_length=1, max_length=1000
    )
    """A file that holds the mail instead, or several that are all judged alike; relative to where this is written."""
    received: AwareDatetime | None = None
    """When the server received it, with its zone: ``2026-03-14T09:26:53+01:00``."""
    expect: Expected
    """What is to become of it."""

    @model_validator(mode="after")
    def _one_mail(self) -> Self:
        if (self.mail is None) == (self.file is None):
            raise ValueError("a test has a mail or a file, one of them")
        return self
