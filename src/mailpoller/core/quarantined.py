"""A message that is held in the quarantine, as far as it can be told without its octets."""

from __future__ import annotations

from datetime import datetime, timedelta

from mailpoller.core.record import record


@record
class Quarantined:
    """What the quarantine knows of a message that it holds. Octets and these facts became durable together.

    ``delivery_id`` names it in the quarantine; ``mid``, ``mailbox``, ``folder``, ``epoch`` and ``uid`` say whose it
    is, and are empty where that is not known (mail of an earlier version's last resort). ``held_at`` is aware.
    ``size`` and ``digest`` (SHA-256) are of the octets that are held; ``truncated``: these are only the first of
    ``announced``; ``doubt``: why they may not be the message's. ``parsed``: it was understood before it was held; else
    nobody may parse it but a worker. ``generation``: see :func:`~mailpoller.core.identity.mint_delivery_id`.
    ``notice_owed``: whoever is told of quarantined mail has not been told of this one.
    """

    delivery_id: str
    mid: str
    mailbox: str
    folder: str
    epoch: str
    uid: str
    reason: str
    detail: str
    rules: tuple[str, ...]
    held_at: datetime
    size: int
    digest: bytes
    sender: str = ""
    message_id: str = ""
    subject: str = ""
    received: datetime | None = None
    listed: int | None = None
    announced: int | None = None
    truncated: bool = False
    doubt: str = ""
    parsed: bool = True
    generation: int = 0
    repeat_of: str | None = None
    flags: tuple[str, ...] = ()
    notice_owed: bool = True
    notice_tries: int = 0
    notice_trouble: str = ""


@record
class Selection:
    """Which quarantined messages are meant: those of which everything that is said here is true.

    ``ids`` are mids or delivery ids; ``sender`` an address, or a domain that begins with ``@``, without regard to
    case; ages count from when a message was held.
    """

    ids: tuple[str, ...] = ()
    sender: str = ""
    reason: str = ""
    mailbox: str = ""
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    but_reason: str = ""
    """Those of this reason are not meant."""
    beyond: tuple[datetime, str] | None = None
    """Only those behind this instant and delivery id, in the order in which they were held."""

    @property
    def everything(self) -> bool:
        """True if it leaves nothing out."""
        return self == Selection()
