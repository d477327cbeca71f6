"""What a ledger is asked in the tests of its promises: names, clock, outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.delivery import (
    LEAVE,
    Disposition,
    Held,
    Outcome,
    OutcomeKind,
    Question,
    Settlement,
)
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.core.ports import (
    Clock,
    Ledger,
    OutboxMail,
    OutboxRecipient,
)
from mailpoller.core.seals.ledger import SealedSettlement

ACCOUNT = Account("imap", "imap.example.com", "support")
OTHER_HOST = Account("imap", "imap.example.net", "support")
INBOX = Folder("support", "INBOX", "imap:imap.example.com:support:1700000000")
RENUMBERED = Folder("support", "INBOX", "imap:imap.example.com:support:1800000000")
SEEN = Disposition(seen=True)
IDENTITY = bytes(range(16))
T0 = datetime(2026, 3, 14, 9, 0, tzinfo=UTC)


class SuiteClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.instant = datetime(2026, 3, 14, 9, 26, 53, 589793, UTC)

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.instant.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.move(timedelta(seconds=seconds))
        await asyncio.sleep(0)

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self.instant += by


def refs(folder: Folder, *uids: int | str, size: int | None = 1000) -> list[MessageRef]:
    """Refs as a listing shows them."""
    return [MessageRef(folder, str(uid), size) for uid in uids]


def told(number: int) -> MessageRef:
    """A ref whose size and date were told."""
    return MessageRef(INBOX, str(number), 1000, T0)


def outbox_mail(name: str, clock: SuiteClock, *recipients: str) -> OutboxMail:
    """A mail of 1,000 octets that was accepted now."""
    now, digest = clock.now(), sha256(name.encode()).digest()
    to = tuple(map(OutboxRecipient, recipients or ("ada@x.example",)))
    late = now + timedelta(days=5)
    return OutboxMail(
        name,
        "desk",
        "",
        digest,
        "relay",
        "support",
        "",
        f"<{name}@x>",
        "s@x.example",
        1000,
        digest,
        now,
        late,
        now,
        0,
        to,
    )


def settlement_of(claim: Claim) -> Settlement:
    """That of a delivered message that is to be deleted."""
    return SealedSettlement(claim.ref, claim.mid, "delivered", Disposition(delete=True))


def outcome(
    claim: Claim,
    kind: OutcomeKind = "delivered",
    *,
    disposition: Disposition = SEEN,
    octets: bytes | None = None,
    **more: str,
) -> Outcome:
    """An outcome of ``claim``; ``octets`` give it a fingerprint."""
    return Outcome(
        claim,
        kind,
        disposition,
        receipts={"support": "row 1"} if kind == "delivered" else {},
        rules=("invoices",),
        fingerprint=None if octets is None else sha256(octets).digest(),
        size=None if octets is None else len(octets),
        reason=more.get("reason", ""),
        message_id=more.get("message_id", ""),
        sender=more.get("sender", ""),
        repeat_of=more.get("repeat_of"),
    )


def claims(answers: Sequence[Claim | Held | Settlement | Question]) -> list[Claim]:
    """The answers, all of which must be claims."""
    assert all(isinstance(answer, Claim) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Claim)]


class LedgerGround:
    """What the promises of a ledger stand on: how it is opened, and opened again."""

    pytestmark = pytest.mark.asyncio

    async def open(self, directory: Path, clock: Clock) -> Ledger:
        """Open the ledger that lives in ``directory``, making it if there is none."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> SuiteClock:
        return SuiteClock()

    async def reopened(self, ledger: Ledger, directory: Path, clock: Clock) -> Ledger:
        """The ledger as the next process finds it. Claims that were not released are those of a process that died."""
        await ledger.close()
        return await self.open(directory, clock)

    async def settled(self, ledger: Ledger, *numbers: int, disposition: Disposition = LEAVE) -> list[Claim]:
        """Messages that were fetched, with an identity each, and delivered."""
        made = claims(await ledger.claim([told(number) for number in numbers]))
        await ledger.settle(
            [
                replace(
                    outcome(claim, octets=claim.ref.uid.encode(), disposition=disposition),
                    identity=IDENTITY,
                    received=T0,
                )
                for claim in made
            ]
        )
        return made


async def claim_now(ledger: Ledger, wanted: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
    """What is answered, as :func:`claims` takes it."""
    return await ledger.claim(wanted)
