"""What a rule may take out of a mail: the blocks below ``extract:``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

from mailpoller.core.component import Block
from mailpoller.core.formfields import FieldName
from mailpoller.mail.understand.conversation import compile_capturing

FieldType = Literal["text", "integer", "number", "boolean", "date", "list"]

MOST_FIELDS = 200
"""Of one block."""


class Wanted(Block):
    """A field of the event, and what it is called in the mail. A plain text is the name, of the type ``text``."""

    name: str = Field(min_length=1, max_length=200)
    """What the mail calls it, in any case."""
    type: FieldType = "text"
    """``text``; ``integer``; ``number``; ``boolean`` (yes, true, on, 1; no, false, off, 0); ``date`` (2026-12-31 or
    31.12.2026); ``list`` (all values of that name, each divided at commas, semicolons and line ends). What is not of
    the type is ``null``."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, written: Any) -> Any:
        return {"name": written} if isinstance(written, str) else written

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if not name.isprintable() or not name.strip():
            raise ValueError("a name stands on one line")
        return name

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, super().__get_pydantic_json_schema__(schema, handler)]}


class Extract(Block):
    """Where to look, and one of ``lines``, ``pairs``, ``tags`` and ``pattern``: how.

    The first 200,000 characters are looked at; a value has at most 32,768. Of several of one name the first counts.
    """

    source: Literal["text", "html", "subject"] = Field(default="text", alias="from")
    """``text``, ``html`` or ``subject``."""
    header: str | None = Field(default=None, pattern=r"^[!-9;-~]+$")
    """A header field instead."""
    lines: dict[FieldName, Wanted] | None = Field(default=None, min_length=1, max_length=MOST_FIELDS)
    """Lines such as ``Name: value``: the event's name to the mail's. The escapes of HTML are read."""
    pairs: dict[FieldName, Wanted] | None = Field(default=None, min_length=1, max_length=MOST_FIELDS)
    """A list of keys such as ``name=value;name=value``."""
    tags: dict[FieldName, Wanted] | None = Field(default=None, min_length=1, max_length=MOST_FIELDS)
    """Tags such as ``<name>value</name>``; line ends in a value may be CR, LF or CRLF, or their escapes in HTML."""
    pattern: str | None = Field(default=None, min_length=1, max_length=1000)
    """A regular expression (RE2, any case) whose named groups are fields: ``Order (?P<order>[0-9]+)``."""
    types: dict[FieldName, FieldType] | None = None
    """The types of the groups of ``pattern``; ``text`` without."""
    separator: str | None = Field(default=None, min_length=1, max_length=10)
    """What stands between name and value: ``:`` in lines, ``=`` in pairs."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=10)
    """What stands between two pairs: ``;``."""
    multiline: bool = False
    """The value of a line goes on until the next name that is looked for."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [way for way in ("lines", "pairs", "tags", "pattern") if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError("lines, pairs, tags or pattern, one of them")
        for key, fitting in (
            ("types", ("pattern",)),
            ("separator", ("lines", "pairs")),
            ("delimiter", ("pairs",)),
            ("multiline", ("lines",)),
        ):
            if getattr(self, key) and ways[0] not in fitting:
                raise ValueError(f"{key} belongs to {' and '.join(fitting)}, and has no effect beside {ways[0]}")
        if self.pattern is not None:
            groups = compile_capturing(self.pattern).groupindex
            if not groups or len(groups) > 20:
                raise ValueError("a pattern needs groups that are named, (?P<order>…), at most 20")
            if unknown := sorted(set(self.types or ()) - set(groups)):
                raise ValueError(f"the pattern has no group {' and '.join(unknown)}")
        elif len({" ".join(one.name.casefold().split()) for one in self.wanted.values()}) < len(self.wanted):
            raise ValueError("two fields have the same name in the mail")
        return self

    @property
    def wanted(self) -> Mapping[str, Wanted]:
        """Field to what is looked for; nothing for a pattern."""
        return self.lines or self.pairs or self.tags or {}
