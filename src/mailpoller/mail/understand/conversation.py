"""Which conversation a message belongs to: by a signed token, by patterns, by the message that it answers.

A token is made of letters, digits and hyphens in one case, so that it lives through subjects, Message-IDs and the
parts of addresses behind a plus sign, and whoever changes its case. It is signed with 80 bits of HMAC-SHA-256.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32decode, b32encode
from binascii import Error
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mailpoller.core.conversation import Conversation
from mailpoller.core.message import Message
from mailpoller.mail.verp import returned

LONGEST_ID = 100
"""Octets of an id in a token."""
KEY_ID = r"[a-z0-9]{1,8}"
"""What names a key within a token."""
PLACES = ("subject", "headers", "body")
"""Where a conversation may be looked for, in this order."""

_TOKEN = re.compile(rf"\bmpc-({KEY_ID})-([a-z2-7]{{2,160}})-([a-z2-7]{{16}})(?![a-z0-9])", re.IGNORECASE)
_PURPOSE = b"mailpoller conversation\0"
_FIELDS = frozenset(
    ("in-reply-to", "references", "to", "cc", "delivered-to", "x-original-to", "envelope-to", "thread-topic")
)
_CONSIDERED = 100_000
_VALUE_CONSIDERED = 10_000
_TOKENS_TRIED = 20
_PATTERN_MEMORY = 4 << 20

Key = Callable[[], bytes | None]
"""Reveals a key; None if it cannot be had now."""
Search = Callable[[str], Any]
"""What a compiled pattern looks with: its match has the group ``id``."""


def compile_capturing(pattern: str) -> Any:
    """A pattern of RE2, whose time is linear in the text, that tells what its groups matched; any case.

    Raises ValueError with RE2's words if it does not take it.
    """
    import re2  # 7 ms, for those who configure patterns

    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = _PATTERN_MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"RE2 does not take this pattern: {words}") from None
    except UnicodeEncodeError:
        raise ValueError("a pattern is valid Unicode text") from None


def mint(identity: str, key_id: str, key: bytes) -> str:
    """The token of a conversation. Raises ValueError for an id that is empty or longer than :data:`LONGEST_ID`."""
    octets = identity.encode("utf-8")
    if not 1 <= len(octets) <= LONGEST_ID:
        raise ValueError(f"an id has 1 to {LONGEST_ID} octets")
    return f"mpc-{key_id}-{_text(octets)}-{_signature(octets, key_id, key)}"


def _text(octets: bytes) -> str:
    return b32encode(octets).decode("ascii").rstrip("=").lower()


def _signature(octets: bytes, key_id: str, key: bytes) -> str:
    signed = _PURPOSE + key_id.encode("ascii") + b"\0" + octets
    return _text(hmac.digest(key, signed, "sha256")[:10])


class Finder:
    """Finds the conversation of messages. ``keys``: by their ids; ``searches``: of patterns, whose time is linear;
    ``places``: some of :data:`PLACES`."""

    def __init__(self, keys: Mapping[str, Key], searches: Sequence[Search], places: Sequence[str]) -> None:
        self._keys = keys
        self._searches = searches
        self._places = tuple(place for place in PLACES if place in places)

    @property
    def needs_body(self) -> bool:
        """True if it looks below the header."""
        return "body" in self._places

    def find(self, message: Message) -> Conversation | None:
        """The conversation, or None if nothing tells of one. A token counts before a pattern, one that is signed
        rightly before any other, and the thread alone if there is neither. Never raises."""
        thread = _thread(message)
        forged: Conversation | None = None
        by_pattern: Conversation | None = None
        for text in self._texts(message):
            for identity, genuine in self._tokens(text):
                if genuine:
                    return Conversation(identity, "token", verified=True, thread=thread)
                forged = forged or Conversation(identity, "token", forged=True, thread=thread)
            if by_pattern is None and (found := self._searched(text)):
                by_pattern = Conversation(found, "pattern", thread=thread)
        if forged or by_pattern:
            return forged or by_pattern
        return Conversation("", "thread", thread=thread) if thread else None

    def returned(self, message: Message) -> str:
        """The id of our mail that a message brings back, as its address tells; "" if it is none. Never raises."""
        return returned(message, self._keys)

    def _texts(self, message: Message) -> Iterator[str]:
        for place in self._places:
            if place == "subject":
                yield message.subject[:_VALUE_CONSIDERED]
            elif place == "headers":
                yield from (value[:_VALUE_CONSIDERED] for name, value in message.headers if name.lower() in _FIELDS)
            else:
                body = message.body
                yield body.text[:_CONSIDERED]
                if body.text_from == "html":  # a mark that nobody is to see is not in the text
                    yield body.html[:_CONSIDERED]

    def _tokens(self, text: str) -> Iterator[tuple[str, bool]]:
        """(id, whether it is signed rightly) of each token."""
        if "mpc-" not in text.lower():
            return
        for count, found in enumerate(_TOKEN.finditer(text)):
            if count == _TOKENS_TRIED:
                return
            key_id, written, signature = (group.lower() for group in found.groups())
            try:
                octets = b32decode(written.upper() + "=" * (-len(written) % 8))
                identity = octets.decode("utf-8")
            except (Error, UnicodeDecodeError):
                continue
            if len(octets) > LONGEST_ID or not identity.isprintable():
                continue
            reveal = self._keys.get(key_id)
            key = reveal() if reveal is not None else None
            genuine = key is not None and hmac.compare_digest(signature, _signature(octets, key_id, key))
            yield identity, genuine

    def _searched(self, text: str) -> str:
        for search in self._searches:
            found = search(text)
            if found and (identity := found.group("id")):
                return str(identity)[:LONGEST_ID]
        return ""


def _thread(message: Message) -> str:
    """What the thread begins with: the first of References (RFC 5322 section 3.6.4), else what is answered."""
    return next(iter((*message.references, *message.in_reply_to)), "")
