"""The rule type ``shouting``: a subject in capital letters."""

from __future__ import annotations

from typing import Literal

from mailpoller.core.component import Runtime
from mailpoller.core.message import Message
from mailpoller.core.ports import Rule
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.verdict import Effect, Match


class ShoutingConfig(RuleConfig):
    """Tag messages whose subject is in capital letters."""

    type: Literal["shouting"]
    tag: str = "shouting"
    """The tag they get."""

    def build(self, name: str, runtime: Runtime) -> Rule:
        return Shouting(name, self.tag)


class Shouting:
    def __init__(self, name: str, tag: str) -> None:
        self.name = name
        self.tag = tag

    def judge(self, message: Message) -> Match | None:
        letters = [letter for letter in message.subject if letter.isalpha()]
        if len(letters) < 5 or not all(letter.isupper() for letter in letters):
            return None
        return Match(Effect(tags=(self.tag,)), why="the subject is in capital letters")
