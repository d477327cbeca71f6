"""What a rule of type ``match`` may ask about a message: the blocks below ``when:``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, field_validator, model_validator
from pydantic_core import CoreSchema

from mailpoller.core.classification import MAIL_CLASSES, MailClass
from mailpoller.core.component import Block
from mailpoller.core.literals import Size
from mailpoller.core.standing import Department
from mailpoller.rules.pattern import compile_pattern

MAX_DEPTH = 8
"""How deeply ``all``, ``any`` and ``not`` may be nested."""

_TEXTS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}


def _texts(written: object) -> object:
    texts = (written,) if isinstance(written, str) else written
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("a text or a list of texts is wanted; a number, yes or no is quoted")
    return tuple(texts)


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts), WithJsonSchema(_TEXTS_SCHEMA)]
"""One text or a list of them, of which one suffices."""


_CLASSES_SCHEMA = {
    "anyOf": [
        {"enum": list(MAIL_CLASSES)},
        {"type": "array", "items": {"enum": list(MAIL_CLASSES)}, "minItems": 1},
    ]
}


_DEPARTMENTS = WithJsonSchema(_TEXTS_SCHEMA)


def _one_or_more(written: object) -> object:
    return (written,) if isinstance(written, str) else written


class TextTest(Block):
    """A test of one text. Several keys must all hold for the same text; of a list one suffices.

    A plain text or list means ``contains``.
    """

    contains: Texts | None = None
    """The text has this in it."""
    equals: Texts | None = None
    """The text is this, from end to end."""
    matches: Texts | None = None
    """This regular expression (RE2) is found in the text. ``\\w``, ``\\d`` and ``\\b`` are ASCII; ``\\p{L}`` is any
    letter."""
    case: Literal["insensitive", "sensitive"] = "insensitive"
    """Whether capital and small letters differ."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, written: Any) -> Any:
        if isinstance(written, Mapping | cls):
            return written
        return {"contains": _texts(written)}

    @field_validator("contains", "matches")
    @classmethod
    def _not_empty(cls, texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if texts is not None and "" in texts:
            raise ValueError("an empty text is in every text; write what is looked for")
        return texts

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.contains is None and self.equals is None and self.matches is None:
            raise ValueError("a test is contains, equals or matches")
        for pattern in self.matches or ():
            compile_pattern(pattern, sensitive=self.case == "sensitive")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [*_TEXTS_SCHEMA["anyOf"], super().__get_pydantic_json_schema__(schema, handler)]}


class SizeTest(Block):
    """A test of a size in octets: more than ``above``, less than ``below``."""

    above: Size | None = None
    """More octets than this."""
    below: Size | None = None
    """Fewer octets than this."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("a size test is above or below, or both")
        if self.below is not None and self.below - (self.above if self.above is not None else -1) < 2:
            raise ValueError("no size is above the one and below the other")
        return self


class AttachmentTest(Block):
    """A test of attachments: one and the same must pass ``name``, ``type`` and ``size``.

    Pictures inside HTML are attachments too: a sender calls anything inline. ``true`` and ``false`` alone mean ``any``.
    """

    any: bool | None = None
    """true: there is an attachment; false: there is none."""
    name: TextTest | None = None
    """The file name."""
    type: TextTest | None = None
    """The media type, such as ``application/pdf``."""
    size: SizeTest | None = None
    """Decoded octets."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, written: Any) -> Any:
        return {"any": written} if isinstance(written, bool) else written

    @model_validator(mode="after")
    def _possible(self) -> Self:
        described = (self.name, self.type, self.size) != (None, None, None)
        if self.any is None and not described:
            raise ValueError("an attachment test is any, name, type or size")
        if self.any is False and described:
            raise ValueError("a message without attachments has none with a name, type or size")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "boolean"}, super().__get_pydantic_json_schema__(schema, handler)]}


class Condition(Block):
    """What must hold of a message. Several keys must all hold; of a list of texts one suffices.

    Addresses are compared as addresses, without display name (RFC 5228 section 5.1): anybody can write any name.
    """

    header: dict[str, TextTest] | None = Field(default=None, min_length=1)
    """Header fields by name, any case. One of several fields of that name suffices; none at all never passes."""
    subject: TextTest | None = None
    """The subject, decoded."""
    from_: TextTest | None = Field(default=None, alias="from")
    """An address in From."""
    to: TextTest | None = None
    """An address in To or Cc."""
    cc: TextTest | None = None
    """An address in Cc."""
    reply_to: TextTest | None = None
    """An address in Reply-To."""
    sender: TextTest | None = None
    """The address in Sender."""
    body: TextTest | None = None
    """The text, or the HTML as it is written; the first million characters of each."""
    size: SizeTest | None = None
    """The whole message, also what was not downloaded."""
    attachment: AttachmentTest | None = None
    """The attachments."""
    class_: Annotated[tuple[MailClass, ...] | None, BeforeValidator(_one_or_more), WithJsonSchema(_CLASSES_SCHEMA)] = (
        Field(default=None, alias="class", min_length=1)
    )
    """What kind of mail it is, one or a list of them: ``human``, ``auto-reply``, ``auto-generated``, ``bounce``,
    ``list``, ``bulk``, ``report``, ``calendar``, ``challenge``."""
    trusted: bool | None = None
    """true: the mailbox is ``trusted``; false: it is not."""
    departments: (
        Annotated[tuple[Department, ...], Field(min_length=1), BeforeValidator(_one_or_more), _DEPARTMENTS] | None
    ) = None
    """The mailbox serves one of these departments: a name, or a list of them."""
    auto: bool | None = None
    """true: automatic mail (RFC 3834); false: any other."""
    force_default_queue: bool | None = None
    """true: the mailbox has ``force_default_queue``. Only a rule that asks this is asked there, and what it says of
    queues has no effect: it may still quarantine and discard."""
    all: list[Condition] | None = Field(default=None, min_length=1)
    """Every one of these holds."""
    any: list[Condition] | None = Field(default=None, min_length=1)
    """At least one of these holds."""
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

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(getattr(self, name) is not None for name in type(self).model_fields):
            raise ValueError("no condition: this would hold of every message")
        return self

    def depth(self) -> int:
        """1 for a condition without ``all``, ``any`` and ``not``; one more for each of them around it."""
        return 1 + max((inner.depth() for inner in self.inner()), default=0)

    def inner(self) -> Iterator[Condition]:
        """The conditions directly below ``all``, ``any`` and ``not``."""
        yield from self.all or ()
        yield from self.any or ()
        if self.not_ is not None:
            yield self.not_
