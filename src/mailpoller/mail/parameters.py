"""Content-Type and Content-Disposition: a token and its parameters (RFC 2045 section 5.1, RFC 2231)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mailpoller.mail.charset import decode
from mailpoller.mail.words import clean, readable

CUT = "parameters-cut"
"""Defect: more parameters than we look at."""

_CONSIDERED = 1 << 16
_KEPT = 500
_CACHED_UP_TO = 120
_PAIR = re.compile(r"\\([\"\\])")  # of the others the backslash stays: they are paths from Windows
_PARAMETER = re.compile(r';\s*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)"?+|([^;]*+))', re.DOTALL)
_CHARACTERS = r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++"
"""Of a token in RFC 2045 section 5.1, which allows more than a registered name has (RFC 6838 section 4.2)."""
_MEDIA_TYPE = re.compile(rf"\s*+({_CHARACTERS})\s*+/\s*+({_CHARACTERS})")
_TOKEN = re.compile(rf"\s*+({_CHARACTERS})")
_SECTION = re.compile(r"(.+?)(?:\*(\d{1,5}))?(\*)?", re.DOTALL)
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_LONGEST_NAME = 255


class Parameters(NamedTuple):
    """``token`` in lower case, "" if there is none; parameters by name in lower case, the first of a name; a defect
    or ""."""

    token: str
    values: dict[str, str]
    defect: str = ""


def media_type(value: str) -> Parameters:
    """A Content-Type. Its token is ``type/subtype``, or "" if the value is malformed."""
    return _media_type_cached(value) if len(value) <= _CACHED_UP_TO else _media_type(value)


def disposition(value: str) -> Parameters:
    """A Content-Disposition. Its token is ``inline``, ``attachment`` …"""
    return _parse(value, _TOKEN)


def _media_type(value: str) -> Parameters:
    return _parse(value, _MEDIA_TYPE)


_media_type_cached = lru_cache(maxsize=512)(_media_type)


def _parse(value: str, pattern: re.Pattern[str]) -> Parameters:
    defect = ""
    if len(value) > _CONSIDERED:
        value, defect = value[:_CONSIDERED], CUT
    found = pattern.match(value)
    token = "/".join(found.groups()).lower() if found else ""
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for count, parameter in enumerate(_PARAMETER.finditer(value)):
        if count == _KEPT:
            defect = CUT
            break
        name, quoted, bare = parameter.groups()
        text = bare.strip() if quoted is None else _PAIR.sub(r"\1", quoted) if "\\" in quoted else quoted
        name = name.lower()
        if "*" in name:
            split = _SECTION.fullmatch(name)
            if split is not None and (split[2] or split[3]):
                sections.setdefault(split[1], {}).setdefault(int(split[2] or 0), (text, bool(split[3])))
                continue
        plain.setdefault(name, text)
    for name, pieces in sections.items():
        plain[name] = _assembled(pieces)  # the extended form wins over the plain one, which is for old readers
    return Parameters(token, plain, defect)


def _assembled(pieces: dict[int, tuple[str, bool]]) -> str:
    """The text of RFC 2231 sections: in order of their numbers, up to the first that is missing."""
    octets: list[bytes] = []
    charset = ""
    for number in range(len(pieces)):
        if number not in pieces:
            break
        text, extended = pieces[number]
        if extended and number == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        octets.append(unquote_to_bytes(text) if extended else text.encode("utf-8", "replace"))
    return decode(b"".join(octets), charset)[0]


def file_name(values: dict[str, str], fallback: dict[str, str]) -> str:
    """The name a part asks to be called: ``filename`` of the disposition, else ``name`` of the type; "" if it has none.

    Only the last component of a path, one line, no controls, nothing that turns the direction of writing around, at
    most 255 characters: still a stranger's choice, never to be used as a path.
    """
    name = values.get("filename") or fallback.get("name") or ""
    if not name:
        return ""
    name = _BIDI.sub("\ufffd", clean(readable(name))).replace("\\", "/").rpartition("/")[2].strip()
    if len(name) > _LONGEST_NAME:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem[: _LONGEST_NAME - 17]}.{suffix}" if dot and len(suffix) <= 16 else name[:_LONGEST_NAME]
    return "" if name in (".", "..") else name
