"""What was settled lately is listed and counted, and what it costs is bounded by what is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sink_runtime import HandClock

from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.core.ports import Traits, Wanted
from mailpoller.ledgers.sqlite import LedgerReader, SqliteLedger, SqliteLedgerConfig
from mailpoller.ledgers.sqlite.lately import _where
from mailpoller.ledgers.sqlite.values import Senders

ACCOUNT = Account("imap", "imap.example.com", "support")
SENDERS = ("Ada@Customer.example", "bob@other.example", "")


async def filled(path: Path, clock: HandClock) -> datetime:
    """Three hours of two mailboxes with three messages each hour; the middle ones are quarantined. When it began."""
    ledger = await SqliteLedger.open(path, clock)
    begun = clock.now()
    for name in ("support", "sales"):
        await ledger.open_folder(Folder(name, "INBOX", f"imap:h:{name}:INBOX:1"), ACCOUNT)
    for hour in range(3):
        for name in ("support", "sales"):
            folder = Folder(name, "INBOX", f"imap:h:{name}:INBOX:1")
            refs = [MessageRef(folder, str(10 * hour + number), 100) for number in range(3)]
            claims = [one for one in await ledger.claim(refs) if isinstance(one, Claim)]
            outcomes = [
                Outcome(claim=claim, kind="delivered", disposition=LEAVE, receipts={"q": "1"}, sender=sender)
                for claim, sender in zip(claims, SENDERS, strict=True)
            ]
            outcomes[1] = replace(outcomes[1], kind="quarantined", receipts={"bad": "1"}, reason="oversize")
            await ledger.settle(outcomes)
        clock.advance(timedelta(hours=1))
    await ledger.close()
    return begun


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({}, 18),
        ({"mailbox": "sales"}, 9),
        ({"outcome": "quarantined"}, 6),
        ({"queue": "bad"}, 6),
        ({"sender": "ada@customer.example"}, 6),
        ({"domain": "CUSTOMER.example"}, 6),
        ({"domain": "customer"}, 0),
        ({"mailbox": "sales", "queue": "q", "domain": "other.example"}, 0),
        ({"mailbox": "x' OR 1=1 --"}, 0),
    ],
)
async def test_messages_are_found_by_what_is_known_of_them(tmp_path: Path, wanted: dict[str, str], count: int) -> None:
    begun = await filled(tmp_path / "ledger.db", HandClock())
    with LedgerReader.open(tmp_path / "ledger.db") as reader:
        found = reader.messages(Wanted(begun, **wanted))
        assert len(found) == count
        assert sum(number for _, _, number in reader.per_hour(Wanted(begun, **wanted))) == count
        times = [one.settled_at for one in found if one.settled_at is not None]
        assert times == sorted(times, reverse=True)


async def test_since_and_until_bound_what_is_shown_and_counted(tmp_path: Path) -> None:
    begun = await filled(tmp_path / "ledger.db", HandClock())
    with LedgerReader.open(tmp_path / "ledger.db") as reader:
        second = Wanted(begun + timedelta(minutes=30), begun + timedelta(minutes=90))
        assert {one.settled_at for one in reader.messages(second)} == {begun + timedelta(hours=1)}
        assert len(reader.messages(Wanted(begun), limit=4)) == 4
        hours = reader.per_hour(Wanted(begun))
        assert sorted({outcome for _, outcome, _ in hours}) == ["delivered", "quarantined"]
        assert [hour.minute for hour, _, _ in hours] == [0] * 6


async def test_the_newest_are_found_without_a_look_at_the_others(tmp_path: Path) -> None:
    await filled(tmp_path / "ledger.db", HandClock())
    with LedgerReader.open(tmp_path / "ledger.db") as reader:
        where, values = _where(Wanted(datetime.now(UTC)))
        plan = reader.connection.execute(
            f"EXPLAIN QUERY PLAN SELECT uid FROM message INDEXED BY message_settled_at WHERE {where} "
            "ORDER BY settled_at DESC LIMIT 50",
            values,
        ).fetchall()
    assert len(plan) == 1
    assert "USING INDEX message_settled_at (settled_at>?)" in plan[0][3].replace("COVERING ", "")


@pytest.mark.parametrize("senders", ["keep", "hash", "none"])
async def test_of_senders_no_more_is_kept_than_is_wanted_and_a_sum_is_found_by_the_address(
    tmp_path: Path, senders: Senders
) -> None:
    clock = HandClock()
    path = tmp_path / "ledger.db"
    ledger = await SqliteLedgerConfig.model_validate({"path": path, "sender": senders}).open(clock)
    folder = Folder("support", "INBOX", "imap:h:support:INBOX:1")
    await ledger.open_folder(folder, ACCOUNT)
    answers = await ledger.claim([MessageRef(folder, str(number), 100) for number in range(2)])
    settled, waiting = [one for one in answers if isinstance(one, Claim)]
    made = Outcome(claim=settled, kind="delivered", disposition=LEAVE, receipts={"q": "1"}, sender="Ada@example.com")
    await ledger.settle([made])
    traits = Traits(identity=None, received=None, size=1, message_id="", sender="Ada@example.com", fingerprint=None)
    await ledger.defer([waiting], until=clock.now() + timedelta(days=1), reason="down", traits=[traits])
    await ledger.close()
    octets = b"".join(file.read_bytes() for file in tmp_path.iterdir()).lower()
    assert (b"ada@example.com" in octets) is (senders == "keep")
    with LedgerReader.open(path) as reader:
        assert len(reader.trace("ADA@example.com")) == (0 if senders == "none" else 2)
        assert reader.trace("bob@example.com") == []
        since = clock.now() - timedelta(hours=1)
        found = reader.messages(Wanted(since, None, None, None, "ada@Example.com", None, None))
        assert len(found) == (0 if senders == "none" else 1)
