"""Who a message is: the ids that make a repeat recognisable."""

from __future__ import annotations

from hashlib import sha1

_NAMESPACE = bytes.fromhex("6d61696c706f6c6c65722e6f72670001")


def _uuid5(name: str) -> str:
    """The text of a version 5 UUID (RFC 9562 section 5.5) of ``name`` in our namespace.

    Written out because ``uuid.uuid5(...)`` and its ``str`` cost three times as much, for every message.
    """
    octets = bytearray(sha1(_NAMESPACE + name.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x50
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def mint_mid(mailbox: str, folder: str, epoch: str, uid: str) -> str:
    """The id of a message's story. Same mailbox, folder, epoch and uid: same id, on every machine and in every run."""
    return _uuid5(f"{mailbox}\0{folder}\0{epoch}\0{uid}")


def mint_delivery_id(mid: str, queue: str, generation: int = 0) -> str:
    """The id that every attempt to bring the message ``mid`` to ``queue`` bears.

    ``generation`` is 0 until an operator asks for the message once more (``mailpoller redeliver``); each such
    wish adds one, because a sink that refuses repeats must accept this one.
    """
    return _uuid5(f"{mid}\0{queue}\0{generation}" if generation else f"{mid}\0{queue}")
