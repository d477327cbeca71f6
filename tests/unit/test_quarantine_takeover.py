"""The last resort of earlier versions is taken over into the quarantine with its mails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.core.quarantined import Selection
from mailpoller.core.spool import Octets, Spool
from mailpoller.ledgers.sqlite import SqliteLedgerConfig
from mailpoller.quarantine import Store, StoreConfig, takeover
from mailpoller.quarantine.takeover import take_over
from mailpoller.sinks.maildir import MaildirQueueConfig
from mailpoller.testing.builders import auto_reply
from mailpoller.testing.deliveries import make_delivery
from unit.sink_runtime import HandClock, make_runtime

ALL = Selection()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    (tmp_path / "spool").mkdir()
    runtime = make_runtime(tmp_path, HandClock())
    made = StoreConfig.model_validate({"path": tmp_path / "quarantine", "min_free": 0}).build("quarantine", runtime)
    yield made
    await made.close()


async def last_resort(tmp_path: Path, *mails: bytes) -> list[str]:
    """As an earlier version leaves it: the words of its receipts."""
    block = {"type": "maildir", "path": tmp_path / "quarantine", "min_free": 0}
    sink = MaildirQueueConfig.model_validate(block).build("last-resort", make_runtime(tmp_path, HandClock()))
    answers = await sink.deliver([make_delivery(uid, mail, queue="last-resort") for uid, mail in enumerate(mails)])
    await sink.close()
    return [getattr(answer, "reference", "") for answer in answers]


@pytest.mark.parametrize("name", ["last-resort", "quarantine"])
async def test_every_mail_is_held_with_what_the_ledger_knows_of_it_and_the_maildir_is_empty(
    tmp_path: Path, store: Store, name: str
) -> None:
    mails = [auto_reply(subject="known"), b"Subject: unknown\r\n\r\nx\r\n"]
    words = await last_resort(tmp_path, *mails)
    clock = HandClock()
    ledger = await SqliteLedgerConfig.model_validate({"type": "sqlite", "path": tmp_path / "l.db"}).open(clock)
    try:
        folder = Folder("support", "INBOX", "epoch")
        await ledger.open_folder(folder, Account("imap", "imap.example.com", "support"))
        (claim,) = await ledger.claim([MessageRef(folder, "7", len(mails[0]))])
        assert isinstance(claim, Claim)
        digest = Octets.of(mails[0]).digest
        receipts = {name: words[0]}  # the second is the quarantine, where none was configured
        await ledger.settle(
            [Outcome(claim, "quarantined", LEAVE, receipts, "auto-reply", fingerprint=digest, size=len(mails[0]))]
        )
        spool = make_runtime(tmp_path).spool
        assert await take_over(store.path, store, ledger, spool) == 2
        assert await take_over(store.path, store, ledger, spool) == 0
    finally:
        await ledger.close()
    held = {one.mailbox: one for one in await store.find(ALL, limit=9)}
    known, unknown = held["support"], held[""]
    assert (known.mid, known.uid, known.reason, known.subject) == (claim.mid, "7", "auto-reply", "known")
    assert (unknown.reason, unknown.parsed) == ("last-resort", False)
    for one, mail in ((known, mails[0]), (unknown, mails[1])):
        octets = await store.octets(one)
        assert bytes(octets.view()) == mail
        octets.close()
    assert await store.owed(clock.now() + timedelta(days=9), but=[], limit=9) == []
    assert not (store.path / "new").exists()


async def test_killed_between_two_mails_it_goes_on_and_holds_none_twice(tmp_path: Path, store: Store) -> None:
    class Killed(BaseException):
        pass

    class Ledger:
        async def mailboxes(self) -> list[str]:
            return []

    await last_resort(tmp_path, *(f"Subject: {number}\r\n\r\n".encode() for number in range(5)))
    spool, held, original = make_runtime(tmp_path).spool, [], store.take_over

    async def deadly(one: object, octets: Octets) -> None:
        await original(one, octets)  # type: ignore[arg-type]
        held.append(one)
        if len(held) == 3:
            raise Killed

    store.take_over = deadly  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await take_over(store.path, store, Ledger(), spool)  # type: ignore[arg-type]
    assert len(list((store.path / "new").iterdir())) == 5
    await take_over(store.path, store, Ledger(), spool)  # type: ignore[arg-type]
    assert len(await store.find(ALL, limit=9)) == 5
    assert not (store.path / "new").exists()


class NoLedger:
    async def mailboxes(self) -> list[str]:
        return []


async def test_what_was_kept_for_years_is_kept_as_long_as_what_comes_today(tmp_path: Path, store: Store) -> None:
    await last_resort(tmp_path, b"Subject: 1\r\n\r\n")
    (path,) = (store.path / "new").iterdir()
    path.rename(path.with_name("1000000000." + path.name.partition(".")[2]))
    await take_over(store.path, store, NoLedger(), make_runtime(tmp_path).spool)  # type: ignore[arg-type]
    (held,) = await store.find(ALL, limit=9)
    assert HandClock().now() - held.held_at < timedelta(minutes=1) and "since 2001-09-09" in held.detail


async def test_a_file_that_cannot_be_read_keeps_no_other_from_it(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await last_resort(tmp_path, *(f"Subject: {number}\r\n\r\n".encode() for number in range(5)))
    real, bad = takeover._read, sorted((store.path / "new").iterdir())[0]

    def read(path: Path, spool: Spool) -> Octets | None:
        if path == bad:
            raise TransientError("no rights")
        return real(path, spool)

    monkeypatch.setattr(takeover, "_read", read)
    with pytest.raises(TransientError):
        await take_over(store.path, store, NoLedger(), make_runtime(tmp_path).spool)  # type: ignore[arg-type]
    assert len(await store.find(ALL, limit=9)) == 4
    assert list((store.path / "new").iterdir()) == [bad]
