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
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*+").fullmatch
_RAW_IN_WORD = re.compile(rb"=\?[^?\s]{0,80}+\?[qQ]\?[^?]*+\?=")
_RAW = re.compile(rb"[\x80-\xff]")
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


def octets_escaped(value: bytes) -> bytes:
    """A raw value in which the octets above 127 of each Q-encoded word (RFC 2047 section 4.2) are written as ``=XX``.

    So they stay octets until the word's own charset is applied, whatever charset the rest of the value is read in.
    """
    return _RAW_IN_WORD.sub(lambda word: _RAW.sub(lambda raw: b"=%02X" % raw[0][0], word[0]), value)


def _decode_words(text: str) -> str:
    parts = text.split("?", 5)
    if (
        len(parts) == 5
        and parts[0] == parts[4] == "="
        and parts[2] in _ENCODINGS
        and parts[1].replace("-", "").isalnum()
    ):
        # One word and nothing else, as most subjects that need any: at a third of the price.
        return _word(parts[3], parts[2], parts[1]) if len(parts[1]) <= _LONGEST_CHARSET else text
    out: list[str] = []
    run: list[tuple[str, str]] = []  # neighbours of one charset: what is encoded, and how
    charset = ""
    end = 0
    inside = False
    for found in _ENCODED_WORD.finditer(text):
        between = text[end : found.start()]
        end = found.end()
        name, encoding, encoded = found.groups()
        adjacent = inside and not between.strip()
        if inside and not (adjacent and name.lower() == charset.lower()):
            out.append(_words(run, charset))
            run = []
        if not adjacent:
            out.append(between)
        charset = name
        run.append((encoded, encoding))
        inside = True
    if not inside:
        return text
    out.append(_words(run, charset))
    out.append(text[end:])
    return "".join(out)


_decode_words_cached = lru_cache(maxsize=2048)(_decode_words)


def _words(run: list[tuple[str, str]], charset: str) -> str:
    """Neighbours of one charset: their octets belong together, unless one of them is no encoded word at all."""
    if len(run) == 1:
        return _word(*run[0], charset)
    if any(encoding in "bB" and not _BASE64(encoded) for encoded, encoding in run):
        return "".join(_word(encoded, encoding, charset) for encoded, encoding in run)
    return decode(b"".join(_unpack(encoded, encoding) for encoded, encoding in run), charset)[0]


def _word(encoded: str, encoding: str, charset: str) -> str:
    """One word. What calls itself base64 and cannot be it stands as it was written: nothing is made up out of it."""
    text, defect = decode(_unpack(encoded, encoding), charset)
    if encoding in "bB" and not _BASE64(encoded) and (defect or not text or not encoded.isascii()):
        return f"=?{charset}?{encoding}?{encoded}?="
    return text


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
