"""Text in header fields: encoded words (RFC 2047) decoded wherever they stand, and nothing in it that could break a
line."""

from __future__ import annotations

import binascii
import re
from functools import lru_cache

from mailpoller.mail.charset import decode, scrub

# A scan that begins at "=?" never passes the next one, so the search is linear on any input.
_ENCODED_WORD = re.compile(r"=\?([^?\s]{0,80}+)\?([bBqQ])\?((?:[^?=]++|=(?!\?(?!=))|\?(?!=))*+)\?=")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_BREAKS = re.compile("[\t-\r\x85\u2028\u2029]+")
_ENCODINGS = frozenset("bBqQ")
_LONGEST_CHARSET = 80
_CACHED_UP_TO = 200


def readable(value: str) -> str:
    """A header field's value for people and rules: encoded words decoded, one line, valid Unicode, no control
    characters."""
    if "=?" in value:
        value = decode_words(value)
    return clean(value)


def readable_fields(fields: list[tuple[str, str]], *, plain: bool) -> list[tuple[str, str]]:
    """Names and values with each value :func:`readable`. ``plain``: all of them are printable ASCII."""
    if plain:
        return [(name, readable(value)) if "=?" in value else (name, value) for name, value in fields]
    return [(name, readable(value)) for name, value in fields]


def clean(text: str) -> str:
    """``text`` on one line: line breaks and tabs become a space; other controls and lone surrogates U+FFFD.

    So a line break that was hidden in an encoded word can never become a header field of its own further on.
    """
    if text.isprintable():
        return text
    return scrub(_CONTROLS.sub("\ufffd", _BREAKS.sub(" ", text)))


def decode_words(text: str) -> str:
    """``text`` with its encoded words decoded, also inside quotes and next to other text, where RFC 2047 forbids them.

    White space between two of them vanishes (section 6.2). Octets of neighbours with one charset are joined before
    they are decoded, since many senders split a character between two words. May contain control characters: see
    :func:`clean`.
    """
    # Addresses come again and again, subjects do not.
    return _decode_words_cached(text) if "@" in text and len(text) <= _CACHED_UP_TO else _decode_words(text)


def _decode_words(text: str) -> str:
    parts = text.split("?", 5)
    if (
        len(parts) == 5
        and parts[0] == parts[4] == "="
        and parts[2] in _ENCODINGS
        and parts[1].replace("-", "").isalnum()
    ):
        # One word and nothing else, as most subjects that need any: at a third of the price.
        return decode(_unpack(parts[3], parts[2]), parts[1])[0] if len(parts[1]) <= _LONGEST_CHARSET else text
    out: list[str] = []
    octets = b""
    charset = ""
    end = 0
    inside = False
    for found in _ENCODED_WORD.finditer(text):
        between = text[end : found.start()]
        end = found.end()
        name, encoding, encoded = found.groups()
        adjacent = inside and not between.strip()
        if inside and not (adjacent and name.lower() == charset.lower()):
            out.append(decode(octets, charset)[0])
            octets = b""
        if not adjacent:
            out.append(between)
        charset = name
        octets += _unpack(encoded, encoding)
        inside = True
    if not inside:
        return text
    out.append(decode(octets, charset)[0])
    out.append(text[end:])
    return "".join(out)


_decode_words_cached = lru_cache(maxsize=2048)(_decode_words)


def _unpack(encoded: str, encoding: str) -> bytes:
    octets = encoded.encode("utf-8", "replace")
    if encoding in "qQ":
        return binascii.a2b_qp(octets, header=True)
    try:
        return binascii.a2b_base64(octets + b"==")
    except binascii.Error:  # one character too many: cut off in the middle
        try:
            return binascii.a2b_base64(octets.rstrip(b"=")[:-1] + b"==")
        except binascii.Error:
            return b""
