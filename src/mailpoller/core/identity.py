"""Who a message is: the ids that make a repeat recognisable."""

from __future__ import annotations

import secrets
from hashlib import sha1

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The two highest bits of the ninth octet are 10 (RFC 9562 section 4.1)."""
_NAMESPACE = bytes.fromhex("6d61696c706f6c6c65722e6f72670001")


def _uuid5(name: str) -> str:
    """The text of a version 5 UUID (RFC 9562 section 5.5) of ``name`` in our namespace.

    Written out because ``uuid.uuid5(...)`` and its ``str`` cost three times as much, for every message.
    """
    text = sha1(_NAMESPACE + name.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def mint_mid(mailbox: str, folder: str, epoch: str, uid: str, bearer: int = 0) -> str:
    """The id of a message's story. Same mailbox, folder, epoch and uid: same id, on every machine and in every run.

    ``bearer``: how many other messages are known to have borne the uid before.
    """
    return _uuid5(
        f"{mailbox}\0{folder}\0{epoch}\0{uid}\0{bearer}" if bearer else f"{mailbox}\0{folder}\0{epoch}\0{uid}"
    )


def next_generation(generation: int) -> int:
    """The generation after ``generation``: one more, and never one that was there before, even if a ledger that was
    put back from a copy has forgotten it. What it counts is told by :func:`redeliveries`."""
    return secrets.randbits(32) << 16 | redeliveries(generation) + 1


def redeliveries(generation: int) -> int:
    """How often an operator asked for the message once more."""
    return generation & 0xFFFF


BACKFILLED = 1 << 16
"""The generation of what was left out at first and is taken by ``mailpoller backfill``: no redelivery, the same each
time, so that a repeat bears the same delivery id, and known to whoever tells senders that their mail has come."""


def mint_delivery_id(mid: str, queue: str, generation: int = 0, identity: bytes = b"") -> str:
    """The id that every attempt to bring the message ``mid`` to ``queue`` bears.

    ``generation`` is 0, or :data:`BACKFILLED`, until an operator asks for the message once more (``mailpoller
    redeliver``); each such wish adds one, because a sink that refuses repeats must accept this one. ``identity`` is
    the message's own (see :attr:`mailpoller.core.message.Message.identity`): should the server have given the name to
    another message while we were down, then a queue must not take that for a repeat.
    """
    if not generation and not identity:
        return _uuid5(f"{mid}\0{queue}")
    return _uuid5(f"{mid}\0{queue}\0{generation}\0{identity.hex()}" if identity else f"{mid}\0{queue}\0{generation}")
