"""What a rule of type ``match`` may ask about a message: the blocks below ``when:``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from mailpoller.core.classification import MAIL_CLASSES, MailClass
from mailpoller.core.component import Block
from mailpoller.core.formfields import FieldName
from mailpoller.core.literals import RuleName
from mailpoller.core.standing import Department
from mailpoller.rules.fields import FIELDS
from mailpoller.rules.quantities import AgeTest, AttachmentTest, ReceivedTest, SizeTest
from mailpoller.rules.texts import TEXTS_SCHEMA, AddressTest, TextTest

MAX_DEPTH = 8
"""How deeply ``all``, ``any``, ``none`` and ``not`` may be nested."""

_CLASSES_SCHEMA = {
    "anyOf": [
        {"enum": list(MAIL_CLASSES)},
        {"type": "array", "items": {"enum": list(MAIL_CLASSES)}, "minItems": 1},
    ]
}
_DEPARTMENTS = WithJsonSchema(TEXTS_SCHEMA)


def _one_or_more(written: object) -> object:
    return (written,) if isinstance(written, str) else written


def _truths(written: object) -> object:
    """``truncated: true`` asks for the word that stands for it."""
    if not isinstance(written, Mapping):
        return written
    words = {True: {"equals": "true"}, False: {"equals": "false"}}
    return {path: words[test] if isinstance(test, bool) else test for path, test in written.items()}


class Condition(Block):
    """What must hold of a message. Several keys must all hold; of a list of texts one suffices.

    Addresses are compared as addresses, without display name (RFC 5228 section 5.1): anybody can write any name.
    """

    header: dict[str, TextTest] | None = Field(default=None, min_length=1)
    """Header fields by name, any case. One of several fields of that name suffices; none at all never passes."""
    subject: TextTest | None = None
    """The subject, decoded."""
    from_: AddressTest | None = Field(default=None, alias="from")
    """An address in From."""
    to: AddressTest | None = None
    """An address in To or Cc."""
    cc: AddressTest | None = None
    """An address in Cc."""
    reply_to: AddressTest | None = None
    """An address in Reply-To."""
    sender: AddressTest | None = None
    """The address in Sender."""
    body: TextTest | None = None
    """The text, or the HTML as it is written; the first million characters of each."""
    size: SizeTest | None = None
    """The whole message, also what was not downloaded."""
    attachment: AttachmentTest | None = None
    """The attachments."""
    age: AgeTest | None = None
    """How old the mail was when the server received it, by its Date. Where one of the two is not known, it does not
    hold."""
    received: ReceivedTest | None = None
    """When the server received the mail: time of day, day of the week, dates, in a zone."""
    importance: Literal["low", "normal", "high"] | None = None
    """What the sender says of it: Importance, X-Priority, Priority or X-MSMail-Priority, in this order; ``normal`` if
    he says nothing."""
    class_: Annotated[tuple[MailClass, ...] | None, BeforeValidator(_one_or_more), WithJsonSchema(_CLASSES_SCHEMA)] = (
        Field(default=None, alias="class", min_length=1)
    )
    """What kind of mail it is, one or a list of them: ``human``, ``auto-reply``, ``auto-generated``, ``bounce``,
    ``list``, ``bulk``, ``report``, ``calendar``, ``challenge``."""
    conversation: bool | None = None
    """true: it is known to belong to a conversation, or to a thread; false: it is not. ``event`` asks which."""
    trusted: bool | None = None
    """true: the mailbox is ``trusted``; false: it is not."""
    departments: (
        Annotated[tuple[Department, ...], Field(min_length=1), BeforeValidator(_one_or_more), _DEPARTMENTS] | None
    ) = None
    """The mailbox serves one of these departments: a name, or a list of them."""
    auto: bool | None = None
    """true: automatic mail (RFC 3834); false: any other."""
    event: Annotated[dict[str, TextTest] | None, BeforeValidator(_truths)] = Field(default=None, min_length=1)
    """Other fields of the event, by their path below ``data``: ``authentication.dmarc: fail``. One of several texts
    there suffices; none at all never passes."""
    fields: Annotated[dict[FieldName, TextTest] | None, BeforeValidator(_truths)] = Field(default=None, min_length=1)
    """Fields that earlier rules have set, or taken out of the mail, by name; numbers as texts."""
    force_default_queue: bool | None = None
    """true: the mailbox has ``force_default_queue``. Only a rule that asks this is asked there, and what it says of
    queues has no effect: it may still quarantine and discard."""
    rule: RuleName | None = None
    """The condition of this rule holds, whether or not the mailbox asks that rule itself."""
    all: list[Condition] | None = Field(default=None, min_length=1)
    """Every one of these holds."""
    any: list[Condition] | None = Field(default=None, min_length=1)
    """At least one of these holds."""
    none: list[Condition] | None = Field(default=None, min_length=1)
    """Not one of these holds."""
    not_: Condition | None = Field(default=None, alias="not")
    """This does not hold."""

    @field_validator("header")
    @classmethod
    def _field_names(cls, header: dict[str, TextTest] | None) -> dict[str, TextTest] | None:
        for name in header or ():
            # RFC 5322 section 2.2: printable US-ASCII without colon and space.
            if not re.fullmatch(r"[!-9;-~]+", name):
                raise ValueError("the name of a header field is ASCII without colon and space")
        return header

    @field_validator("event")
    @classmethod
    def _paths(cls, event: dict[str, TextTest] | None) -> dict[str, TextTest] | None:
        if unknown := sorted(set(event or ()) - FIELDS.keys()):
            raise ValueError(f"rules cannot ask the event for {' and '.join(unknown)}; docs/rules.md lists its fields")
        return event

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise ValueError("no condition: this would hold of every message")
        return self

    def depth(self) -> int:
        """1 for a condition without ``all``, ``any``, ``none`` and ``not``; one more for each of them around it."""
        return 1 + max((inner.depth() for inner in self.inner()), default=0)

    def inner(self) -> Iterator[Condition]:
        """The conditions directly below ``all``, ``any``, ``none`` and ``not``."""
        yield from self.all or ()
        yield from self.any or ()
        yield from self.none or ()
        if self.not_ is not None:
            yield self.not_
