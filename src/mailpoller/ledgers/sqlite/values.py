"""How the vocabulary is written in columns: instants, ids, dispositions, lists."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import orjson

from mailpoller.core.delivery import Disposition

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Key = tuple[int, str]
"""A message's row: folder id and uid."""
MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


def micros(instant: datetime) -> int:
    """Microseconds since 1970 (UTC), exact."""
    return (instant - _EPOCH) // MICROSECOND


def seconds(instant: datetime | None) -> int | None:
    """Whole seconds since 1970 (UTC): what servers date mail by."""
    return None if instant is None else (instant - _EPOCH) // _SECOND


def instant_of_seconds(value: int | None) -> datetime | None:
    """The aware instant of :func:`seconds`."""
    return None if value is None else _EPOCH + value * _SECOND


def instant(value: int) -> datetime:
    """The aware instant of :func:`micros`."""
    return _EPOCH + value * MICROSECOND


def instant_or_none(value: int | None) -> datetime | None:
    return None if value is None else instant(value)


def mid_octets(mid: str) -> bytes:
    """The 16 octets of a mid."""
    return bytes.fromhex(mid.replace("-", ""))


def mid_text(octets: bytes) -> str:
    """The mid of 16 octets."""
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def mark(fingerprint: bytes) -> int:
    """The first 64 bits of a fingerprint, signed as SQLite's integers are: what the index holds."""
    return int.from_bytes(fingerprint[:8], "big", signed=True)


def clean(text: str) -> str:
    """``text`` as SQLite can hold it: what came from outside may bear lone surrogates or NULs."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def document(value: object) -> str:
    """JSON text of lists and mappings."""
    return orjson.dumps(value).decode()


def undocument(text: str) -> Any:
    """What :func:`document` or SQLite's JSON functions wrote."""
    return orjson.loads(text)


@lru_cache(maxsize=256)
def disposition_text(disposition: Disposition) -> str:
    """A disposition as JSON, without what it does not do: ``{}`` leaves the message as it is."""
    wishes: dict[str, Any] = {}
    if disposition.seen:
        wishes["seen"] = True
    if disposition.flags:
        wishes["flags"] = disposition.flags
    if disposition.move is not None:
        wishes["move"] = disposition.move
    if disposition.delete:
        wishes["delete"] = True
    return orjson.dumps(wishes).decode()


@lru_cache(maxsize=256)
def disposition_of(text: str) -> Disposition:
    """What :func:`disposition_text` wrote."""
    wishes = orjson.loads(text)
    return Disposition(
        seen=wishes.get("seen", False),
        flags=tuple(wishes.get("flags", ())),
        move=wishes.get("move"),
        delete=wishes.get("delete", False),
    )


def by_folder(keys: Iterable[Key]) -> dict[int, list[str]]:
    """The uids of each folder, in order."""
    uids: defaultdict[int, list[str]] = defaultdict(list)
    for number, uid in keys:
        uids[number].append(uid)
    return uids


Senders = Literal["keep", "hash", "none"]
"""What is kept of who sent a message: the address, a sum of it, or nothing."""


def sender_sum(address: str) -> str:
    """A sum of an address, whatever its case: of each the same, so that its messages are found."""
    return f"sha256:{hashlib.sha256(address.casefold().encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def sender_kept(address: str, senders: Senders) -> str:
    """What is kept of an address."""
    if senders == "keep" or not address:
        return address
    return sender_sum(address) if senders == "hash" else ""
