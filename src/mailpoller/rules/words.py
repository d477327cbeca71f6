"""Whole words and phrases in a text: any number of them at the price of one look at each word of the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

_APART = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Letters of scripts without spaces between words: each stands for itself, so that a phrase is found within a line."""
_WORD = re.compile(f"[{_APART}]|[^\\W_{_APART}]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_END = ""

MOST_WORDS = 20
"""Words of one phrase."""

Find = Callable[[str], str]


def compile_words(phrases: Iterable[str], *, sensitive: bool, accents: bool) -> Find:
    """What finds the first of ``phrases`` in a text, as it is written in the list; "" if none is in it.

    A word ends where letters and digits end; what stands between the words of a phrase does not count. ``sensitive``:
    capital and small letters differ. ``accents``: they count. Raises ValueError for a phrase without a word, or with
    more than :data:`MOST_WORDS`.
    """
    tree: dict[str, Any] = {}
    for phrase in phrases:
        words = _words(phrase, sensitive, accents)
        if not words or len(words) > MOST_WORDS:
            raise ValueError(f"a phrase is 1 to {MOST_WORDS} words of letters and digits; contains finds any text")
        node = tree
        for word in words:
            node = node.setdefault(word, {})
        node.setdefault(_END, phrase)

    def find(text: str) -> str:
        words = _words(text, sensitive, accents)
        for at, word in enumerate(words):
            node = tree.get(word)
            while node is not None:
                if _END in node:
                    return str(node[_END])
                at += 1
                node = node.get(words[at]) if at < len(words) else None
        return ""

    return find


def _words(text: str, sensitive: bool, accents: bool) -> list[str]:
    if not sensitive:
        text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text if accents else _ACCENTS.sub("", unicodedata.normalize("NFD", text)))
    return _WORD.findall(text)
