"""The block ``acknowledge`` of a mailbox: who is told that his mail has come, and in which words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from mailpoller.core.component import Block
from mailpoller.core.literals import Duration, MailAddress, RuleName

PLACEHOLDERS = ("subject", "name", "to", "mid")
"""What may stand in braces in the words of an acknowledgement."""

_BRACED = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def _words(text: str) -> str:
    for found in _BRACED.finditer(text):
        if found[0] not in ("{{", "}}") and found[1] not in PLACEHOLDERS:
            names = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise ValueError(f"in braces stands {names}; a brace itself is written twice")
    return text


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a subject is one line")
    return text


_Subject = Annotated[
    str, StringConstraints(min_length=1, max_length=200), AfterValidator(_on_one_line), AfterValidator(_words)
]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000), AfterValidator(_words)]


class AcknowledgeWords(Block):
    """The words of an acknowledgement. ``{subject}``, ``{name}``, ``{to}`` and ``{mid}`` are filled in."""

    subject: _Subject = "Auto: {subject}"
    """What stands above it."""
    text: _Text | None = None
    """The plain text."""
    html: _Text | None = None
    """The same in HTML; what is filled in is escaped."""

    @property
    def speaks(self) -> bool:
        """True if there is something to say."""
        return self.text is not None or self.html is not None


class AcknowledgeInLanguages(AcknowledgeWords):
    """The words, and the same in other languages."""

    languages: dict[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,8}(-[a-z0-9]{1,8})*$")], AcknowledgeWords] = (
        Field(default_factory=dict, max_length=100)
    )
    """By the language that the mail says of itself (Content-Language): ``de``, ``pt-br``. Of ``de-at`` it is ``de`` if
    there is no ``de-at``; else the words above."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if any(not words.speaks for words in self.languages.values()):
            raise ValueError("the words of a language are text, html or both")
        return self

    def in_language(self, language: str) -> AcknowledgeWords:
        """The words in this language, or in those of nobody's own."""
        while language:
            if (found := self.languages.get(language)) is not None:
                return found
            language = language.rpartition("-")[0]
        return self


class AcknowledgeByRule(AcknowledgeInLanguages):
    """The words for mail that a rule matched."""

    rule: RuleName
    """The rule. It may match on anything, such as the hours in which the mail was received."""

    @model_validator(mode="after")
    def _spoken(self) -> Self:
        if not self.speaks:
            raise ValueError("text or html says what the sender is told")
        return self


class AcknowledgeConfig(AcknowledgeInLanguages):
    """Tell who writes to this mailbox, once and automatically, that his mail has come (RFC 3834)."""

    by_rule: list[AcknowledgeByRule] = Field(default_factory=list, max_length=100)
    """Other words for mail that one of these rules matched: the first of them. Without ``text`` and ``html`` beside it
    nobody else is told anything."""
    unless_rules: list[RuleName] = Field(default_factory=list, max_length=100)
    """Mail that one of these rules matched is not acknowledged."""
    every: Duration = timedelta(days=7)
    """One sender is told once in so long, whatever he writes."""
    max_age: Duration = timedelta(hours=24)
    """Mail that was received longer ago is not acknowledged, nor is one sent any later."""
    sender: MailAddress | None = None
    """The envelope sender, for an outgoing that cannot send with the null sender: an address that is not polled here,
    and that answers nothing."""

    @field_validator("every")
    @classmethod
    def _seldom(cls, every: timedelta) -> timedelta:
        if not timedelta(hours=1) <= every <= timedelta(days=180):
            raise ValueError("every is 1h to 180d")
        return every

    @field_validator("max_age")
    @classmethod
    def _soon(cls, max_age: timedelta) -> timedelta:
        if not timedelta(minutes=1) <= max_age <= timedelta(days=7):
            raise ValueError("max_age is 1m to 7d")
        return max_age

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.speaks and not self.by_rule:
            raise ValueError("text, html or by_rule says what senders are told")
        return self

    def chosen(self, rules: tuple[str, ...]) -> AcknowledgeInLanguages | None:
        """The words for mail that these rules matched; None if nobody is told of it."""
        if not set(rules).isdisjoint(self.unless_rules):
            return None
        by_rule = next((one for one in self.by_rule if one.rule in rules), None)
        return by_rule or (self if self.speaks else None)

    def words(self, rule: str) -> AcknowledgeInLanguages | None:
        """Those of this rule; of no rule: the mailbox's own. None if there are none any more."""
        if not rule:
            return self if self.speaks else None
        return next((one for one in self.by_rule if one.rule == rule), None)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with what stands for each name in braces. What is put in is not looked at again."""

    def put(found: re.Match[str]) -> str:
        return found[0][0] if found[0] in ("{{", "}}") else values[found[1]]

    return _BRACED.sub(put, text)
