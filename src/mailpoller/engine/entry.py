"""What was handed in, read."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import orjson

from mailpoller.core.errors import EntryRefused
from mailpoller.core.record import record
from mailpoller.mail.letter import Letter, letter_of, line
from mailpoller.mail.letter_given import GivenMail, given_mail

_CHOICES = ("identity", "department", "mailbox", "reply_to", "key", "conversation")


@record
class Entry:
    """What was handed in: ``said`` without its key, or the whole mail with what was said beside it."""

    choices: Mapping[str, str]
    content: bytes
    letter: Letter
    given: GivenMail | None


def read_entry(octets: bytes, choices: Mapping[str, str]) -> Entry:
    """An entry in JSON, overruled by ``choices``. Raises :class:`EntryRefused`."""
    try:
        said = orjson.loads(octets)
    except (ValueError, RecursionError):
        raise EntryRefused("this is no JSON") from None
    if not isinstance(said, dict):
        raise EntryRefused("an entry is one JSON object")
    said = {**said, **choices}
    chosen = {key: line(said.get(key), key, 500) for key in _CHOICES}
    letter = letter_of(said)
    said.pop("key", None)
    return Entry(chosen, sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest(), letter, None)


def read_mail(octets: bytes, choices: Mapping[str, str]) -> Entry:
    """A whole mail, and what is said beside it. Raises :class:`EntryRefused`."""
    unknown = set(choices) - {*_CHOICES}
    if unknown:
        raise EntryRefused(f"a whole mail goes with {', '.join(_CHOICES)} alone")
    given = given_mail(octets)
    chosen = {key: line(choices.get(key), key, 500) for key in _CHOICES}
    beside = orjson.dumps({**chosen, "key": ""}, option=orjson.OPT_SORT_KEYS)
    return Entry(chosen, sha256(beside + octets).digest(), given.letter, given)
