"""What a rule may ask about sizes, numbers, attachments and times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema, model_validator
from pydantic_core import CoreSchema

from mailpoller.core.component import Block
from mailpoller.core.literals import Duration, Size
from mailpoller.rules.texts import TextTest


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


class CountTest(Block):
    """A test of a number: more than ``above``, less than ``below``. A plain number means exactly so many."""

    above: int | None = Field(default=None, ge=0)
    """More than this."""
    below: int | None = Field(default=None, ge=1)
    """Fewer than this."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, written: Any) -> Any:
        if isinstance(written, int) and not isinstance(written, bool) and written >= 0:
            return {"above": written - 1 if written else None, "below": written + 1}
        return written

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("a number's test is above or below, or both; or the number itself")
        if self.below is not None and self.below - (self.above if self.above is not None else -1) < 2:
            raise ValueError("no number is above the one and below the other")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer", "minimum": 0}, super().__get_pydantic_json_schema__(schema, handler)]}


class AttachmentTest(Block):
    """A test of attachments: one and the same must pass all but ``count``.

    Those of messages within the mail are attachments too, and pictures inside HTML: a sender calls anything inline.
    ``true`` and ``false`` alone mean ``any``.
    """

    any: bool | None = None
    """true: there is an attachment; false: there is none."""
    name: TextTest | None = None
    """The file name."""
    type: TextTest | None = None
    """The media type as it is declared, such as ``application/pdf``."""
    detected_type: TextTest | None = None
    """The media type that its octets show, whatever is declared; those of texts show none."""
    macros: bool | None = None
    """Whether it holds programs that run when it is opened, such as macros of an office."""
    encrypted: bool | None = None
    """Whether it cannot be read without a key, as an archive with a password."""
    nested: bool | None = None
    """true: it lies in a message within the mail, or in a ``winmail.dat``; false: it does not."""
    size: SizeTest | None = None
    """Decoded octets."""
    count: CountTest | None = None
    """How many attachments pass the other tests."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, written: Any) -> Any:
        return {"any": written} if isinstance(written, bool) else written

    @model_validator(mode="after")
    def _possible(self) -> Self:
        described = any(getattr(self, name) is not None for name in type(self).model_fields if name != "any")
        if self.any is None and not described:
            raise ValueError(
                "an attachment test is any, name, type, detected_type, macros, encrypted, nested, size or count"
            )
        if self.any is False and described:
            raise ValueError("a message without attachments has none with a name, type or size")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "boolean"}, super().__get_pydantic_json_schema__(schema, handler)]}


class AgeTest(Block):
    """A test of how old a mail was when the server received it: from its Date on."""

    above: Duration | None = None
    """Older than this."""
    below: Duration | None = None
    """Younger than this; one whose Date lies in the future is."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("a test of the age is above or below, or both")
        if self.below is not None and self.below <= (self.above if self.above is not None else timedelta(0)):
            raise ValueError("no age is above the one and below the other")
        return self


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d|([01]\d|2[0-3]):[0-5]\d-24:00"


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such zone is known on this machine: Europe/Berlin, or UTC, is one") from None
    return name


def _hours(written: str) -> str:
    if not re.fullmatch(_HOURS, written):
        raise ValueError("hours are written 08:00-17:30; 22:00-06:00 goes over midnight")
    return written


def _some(written: object) -> object:
    return [written] if isinstance(written, str | date | Mapping) else written


def _days(written: object) -> object:
    """``mon-fri`` is all between; ``sat-mon`` goes over Sunday."""
    if isinstance(written, str):
        written = [written]
    if not isinstance(written, list | tuple):
        return written
    found: list[object] = []
    for one in written:
        first, hyphen, last = one.lower().partition("-") if isinstance(one, str) else (one, "", "")
        if hyphen and first in DAYS and last in DAYS:
            begin, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7
            found += [DAYS[(begin + more) % 7] for more in range(length + 1)]
        else:
            found.append(one if hyphen else first)
    return found


_DAY_SCHEMA = {"type": "string", "examples": ["mon", "mon-fri"]}


class ReceivedTest(Block):
    """A test of the moment at which the server received the mail, never of now. Several keys must all hold.

    A mail of which the server does not say it passes none.
    """

    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """The zone of the keys beside it, as the tz database names it: ``Europe/Berlin``."""
    days: Annotated[
        list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] | None,
        BeforeValidator(_days),
        WithJsonSchema({"anyOf": [_DAY_SCHEMA, {"type": "array", "items": _DAY_SCHEMA, "minItems": 1}]}),
    ] = Field(default=None, min_length=1)
    """A day of the week, or a list: ``mon``, ``mon-fri``."""
    hours: Annotated[
        list[Annotated[str, AfterValidator(_hours)]] | None,
        BeforeValidator(_some),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
    ] = Field(default=None, min_length=1)
    """A time of day, or a list: ``08:00-17:30``, from the first minute up to and without the last."""
    dates: Annotated[
        list[date] | None,
        BeforeValidator(_some),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "format": "date"},
                    {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 1},
                ]
            }
        ),
    ] = Field(default=None, min_length=1, max_length=1000)
    """A day, or a list, such as of holidays: ``2026-12-25``."""
    since: date | None = None
    """On this day or later."""
    until: date | None = None
    """On this day or earlier."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.days, self.hours, self.dates, self.since, self.until) == (None, None, None, None, None):
            raise ValueError("a test of the time is days, hours, dates, since or until")
        if self.since is not None and self.until is not None and self.until < self.since:
            raise ValueError("until lies before since")
        return self
