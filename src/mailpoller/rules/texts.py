"""What a rule may ask about a text, and about an address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from mailpoller.core.component import Block
from mailpoller.core.literals import FilePath
from mailpoller.rules.pattern import compile_pattern
from mailpoller.rules.words import compile_words

TEXTS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}


def _texts(written: object) -> object:
    texts = (written,) if isinstance(written, str) else written
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("a text or a list of texts is wanted; a number, yes or no is quoted")
    return tuple(texts)


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts), WithJsonSchema(TEXTS_SCHEMA)]
"""One text or a list of them, of which one suffices."""


class WordFile(Block):
    """A file of words and phrases, one a line; ``#`` begins a comment. It is read anew when it has changed."""

    file: FilePath
    """At most 4 MiB. A mailbox waits until it is there."""


_ONE_WORD = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": 1000},
        {
            "type": "object",
            "properties": {"file": {"type": "string"}},
            "required": ["file"],
            "additionalProperties": False,
        },
    ]
}
_WORDS_SCHEMA = {"anyOf": [*_ONE_WORD["anyOf"], {"type": "array", "items": _ONE_WORD, "minItems": 1}]}


def _listed(written: object) -> object:
    return (written,) if isinstance(written, str | Mapping) else written


class TextTest(Block):
    """A test of one text. Several keys must all hold for the same text; of a list one suffices.

    A plain text or list means ``contains``.
    """

    asks: ClassVar[tuple[str, ...]] = ("contains", "equals", "matches", "words", "list_", "exists")

    contains: Texts | None = None
    """The text has this in it."""
    equals: Texts | None = None
    """The text is this, from end to end."""
    matches: Texts | None = None
    """This regular expression (RE2) is found in the text. ``\\w``, ``\\d`` and ``\\b`` are ASCII; ``\\p{L}`` is any
    letter."""
    words: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=1000)] | WordFile, ...] | None,
        BeforeValidator(_listed),
        Field(min_length=1),
        WithJsonSchema(_WORDS_SCHEMA),
    ] = None
    """One of these words or phrases is in the text, as whole words: a word, a list of them, or ``{file: PATH}``."""
    list_: FilePath | None = Field(default=None, alias="list")
    """The text is a line of this file, from end to end. It is read anew when it has changed."""
    exists: bool | None = None
    """true: there is such a text, and it is not empty; false: there is none."""
    case: Literal["insensitive", "sensitive"] = "insensitive"
    """Whether capital and small letters differ."""
    accents: Literal["insensitive", "sensitive"] = "sensitive"
    """Whether ``words`` are found with other accents, too."""

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
        asked = [name for name in self.asks if getattr(self, name) is not None]
        if not asked:
            raise ValueError(f"a test is {', '.join(name.rstrip('_') for name in self.asks[:-1])} or {self.asks[-1]}")
        if self.exists is False and asked != ["exists"]:
            raise ValueError("what does not exist passes no other test")
        for pattern in self.matches or ():
            compile_pattern(pattern, sensitive=self.case == "sensitive")
        compile_words([one for one in self.words or () if isinstance(one, str)], sensitive=False, accents=False)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [*TEXTS_SCHEMA["anyOf"], super().__get_pydantic_json_schema__(schema, handler)]}


def _domains(written: object) -> object:
    domains = _texts(written)
    assert isinstance(domains, tuple)
    for domain in domains:
        if not domain.strip(".") or any(character in domain for character in " @<>,;*"):
            raise ValueError("a domain is written as example.com, and stands for all below it, too")
    return domains


class AddressTest(TextTest):
    """A test of one address, without its display name. Several keys must all hold for the same address.

    A plain text or list means ``contains``.
    """

    asks: ClassVar[tuple[str, ...]] = (*TextTest.asks, "domain", "local", "name")

    domain: Annotated[tuple[str, ...], BeforeValidator(_domains), WithJsonSchema(TEXTS_SCHEMA)] | None = None
    """What stands behind the ``@`` is this domain or one below it; written in letters or as ``xn--…``, it is the
    same."""
    local: TextTest | None = None
    """A test of what stands before the ``@``."""
    name: TextTest | None = None
    """A test of the display name, which anybody chooses."""
    list_: FilePath | None = Field(default=None, alias="list")
    """The address, or its domain or one above it, is a line of this file. It is read anew when it has changed."""
