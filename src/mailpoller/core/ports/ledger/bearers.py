"""Who bears a name: the message that is known under it, or another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.core.ports.records import Heirless, Sight


class Bearers(Protocol):
    """Names are compared with what is known of them, and answered for."""

    async def recognise(self, refs: Sequence[MessageRef]) -> Sequence[Sight]:
        """Compare what the mailbox shows with what is known, same order and length;
        nothing is changed, but that what was known without a date gets one."""

    async def identified(self, same: Sequence[MessageRef], other: Sequence[MessageRef]) -> None:
        """Answer questions. ``same``: the known bearers, whose size and date are now these.
        ``other``: the names bear other messages now; what is known of the former bearers is kept under a name that no
        server gives, undelivered ones as ``gone``, and what bears the name now is due, under a mid of its own."""

    async def former(self, folder: Folder, fingerprints: Sequence[bytes]) -> Mapping[bytes, Sequence[str]]:
        """fingerprint -> mids of messages with equal octets that were settled in another epoch of this folder, or
        under this name by an earlier bearer, and that no message stands for yet: each of them stands for one message,
        not for all that look alike."""

    async def heirless(self, folder: Folder, *, limit: int, earlier: bool) -> Sequence[Heirless]:
        """At most ``limit`` messages whose names are gone and that a queue may hold: suspects whose names a whole
        listing lacked; with ``earlier`` also suspects of earlier epochs, and what waits there and was brought to some
        of its queues."""

    async def inherit(self, claim: Claim, former: Heirless) -> Claim:
        """A claimed message is what ``former`` was, under a new name: it goes on under the former mid, with its
        receipts, so that a queue that holds it knows it again. The former name is given up. The claim as it is now;
        as it was if ``former`` is not there any more."""
