"""The SQLite ledger beyond the port: kills, trouble, locks, readers, migration, cost."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_storage_sqlite import small_disk  # noqa: F401 - a fixture

from mailpoller.core.delivery import LEAVE, Disposed, Disposition, Held
from mailpoller.core.errors import ConfigError, LedgerUnavailable
from mailpoller.core.message import Folder, Position
from mailpoller.core.ports import Fault
from mailpoller.ledgers.sqlite import LedgerReader, SqliteLedger, SqliteLedgerConfig, alike, claiming, messages
from mailpoller.ledgers.sqlite.folders import Known
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.testing.ledger_suite import ACCOUNT, INBOX, RENUMBERED, SuiteClock, claims, outcome, refs

HERE = Path(__file__).parent


async def opened(path: Path, clock: SuiteClock | None = None) -> SqliteLedger:
    ledger = await SqliteLedgerConfig(path=path).open(clock or SuiteClock())
    await ledger.open_folder(INBOX, ACCOUNT)
    return ledger


# --- kills -----------------------------------------------------------------------------------------------------
async def test_nothing_acknowledged_is_lost_and_strikes_are_exact_whenever_the_process_is_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    dice = random.Random(6)
    seen: Counter[str] = Counter()
    for first in range(0, 6 * 100_000, 100_000):
        worker = subprocess.Popen(
            [sys.executable, HERE / "ledger_worker.py", path, str(first)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        while (line := worker.stdout.readline()) != "ready\n":
            assert line, "the worker died"
        early = [worker.stdout.readline() for _ in range(dice.randrange(1, 3000))]
        worker.send_signal(signal.SIGKILL)
        lines = "".join([*early, worker.stdout.read()]).splitlines()
        said = [tuple(line.split()) for line in lines if len(line.split()) == 2]
        worker.wait(60)

        last = {uid: word for word, uid in said}
        ledger = await opened(path)  # here the open claims become suspects
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = {
                uid: (state, suspect, strikes, at_risk, receipts)
                for uid, state, suspect, strikes, at_risk, receipts in connection.execute(
                    "SELECT uid, state, suspect, strikes, at_risk, receipts FROM message "
                    "WHERE CAST(uid AS INTEGER) BETWEEN ? AND ?",
                    (first, first + 99_999),
                )
            }
        assert last.keys() <= found.keys(), "an acknowledged claim was lost"
        # The kill may fall between a commit and its word: of what it was doing last, the next step may be there
        # already.
        for uid, word in last.items():
            state, suspect, strikes, at_risk, receipts = found[uid]
            assert at_risk == 0
            if word == "settled":
                assert state == "settled"
            elif word == "deferred":
                assert (state, receipts) == ("deferred", '{"q":"1"}')
            elif word == "cleared":
                assert (state, suspect, strikes) == ("suspect", 1, 0)
            elif word == "risked" and uid != said[-1][1]:
                assert (state, suspect, strikes) == ("suspect", 1, 1)
            elif word == "claimed" and state == "suspect":
                assert strikes <= 1
        struck = sum(row[2] for row in found.values())
        risked = sum(word == "risked" for word in last.values())
        assert risked - 1 <= struck <= risked + 1
        assert not any(row[0] == "claimed" for row in found.values())
        seen.update(row[0] for row in found.values())
        seen["struck"] += struck
        await ledger.close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert all(seen[state] for state in ("settled", "deferred", "suspect", "struck")), seen


async def test_what_was_settled_before_the_kill_is_disposed_of_after_it(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "ledger.db")
    settled = await ledger.settle([outcome(claim) for claim in claims(await ledger.claim(refs(INBOX, 1)))])
    for name in ("ledger.db", "ledger.db-wal"):  # as the disk is at this instant
        shutil.copy(tmp_path / name, tmp_path / f"after-{name}")
    after = await opened(tmp_path / "after-ledger.db")
    assert await after.claim(refs(INBOX, 1)) == settled
    await after.close()
    await ledger.close()


# --- locks -----------------------------------------------------------------------------------------------------
async def test_a_second_process_is_told_who_has_the_ledger_and_gets_it_when_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    holder = subprocess.Popen(
        [sys.executable, HERE / "ledger_worker.py", path, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert holder.stdout is not None
    while holder.stdout.readline() != "ready\n":
        pass
    with pytest.raises(LedgerUnavailable, match=rf"in use by process {holder.pid} on .* since 20\d\d-"):
        await opened(path)
    holder.kill()
    holder.stdout.close()
    holder.wait(60)
    await (await opened(path)).close()


async def test_one_process_cannot_open_a_ledger_twice(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "ledger.db")
    with pytest.raises(LedgerUnavailable, match="in use by process"):
        await opened(tmp_path / "ledger.db")
    claims(await ledger.claim(refs(INBOX, 1)))
    await ledger.close()
    await (await opened(tmp_path / "ledger.db")).close()


# --- trouble ---------------------------------------------------------------------------------------------------
async def test_a_locked_database_is_unavailable_and_recovers_without_striking_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    ledger = await opened(path)
    monkeypatch.setattr(ledger._database, "_busy_timeout", timedelta(milliseconds=50))
    await ledger._database.read(lambda c: c.execute("PRAGMA busy_timeout=50").fetchall() and None)
    working, waiting = claims(await ledger.claim(refs(INBOX, 1, 2)))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for attempt in (
            ledger.claim(refs(INBOX, 3)),
            ledger.settle([outcome(working)]),
            ledger.advance(INBOX, Position("9")),
            ledger.note([Fault(datetime.now(UTC), "support", "x", "y")]),
            ledger.release([waiting]),
        ):
            with pytest.raises(LedgerUnavailable, match="locked"):
                await attempt
        other.execute("ROLLBACK")
    # What was in hand can be settled now, what was given back can be claimed, and so can what never was.
    await ledger.settle([outcome(working, disposition=LEAVE)])
    assert [ref.uid for ref in await ledger.due(INBOX, limit=10)] == ["2"]
    for claim in claims(await ledger.claim(refs(INBOX, 2, 3))):
        assert (claim.suspect, claim.strikes, claim.attempts) == (False, 0, 0)
    await ledger.close()


async def test_a_full_disk_stops_the_ledger_and_room_revives_it(small_disk: Path) -> None:  # noqa: F811
    ledger = await opened(small_disk / "ledger.db")
    (before,) = claims(await ledger.claim(refs(INBOX, 1)))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    wanted = refs(INBOX, *range(100, 4000))
    with pytest.raises(LedgerUnavailable, match="full"):
        await ledger.claim(wanted)
    assert isinstance((await ledger.claim(refs(INBOX, 1)))[0], Held), "reading still works"
    ballast.unlink()
    assert not any(claim.suspect for claim in claims(await ledger.claim(wanted[:500])))
    await ledger.settle([outcome(before)])
    await ledger.close()


async def test_a_read_only_file_system_is_unavailable_and_can_still_be_read(small_disk: Path) -> None:  # noqa: F811
    path = small_disk / "ledger.db"
    ledger = await opened(path)
    await ledger.release(claims(await ledger.claim(refs(INBOX, 1))))
    await ledger.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(LedgerUnavailable, match="Read-only"):
        await opened(path)
    with LedgerReader.open(path) as reader:
        assert reader.counts("support")["deferred"] == 1
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    ledger = await opened(path)
    assert not any(claim.suspect for claim in claims(await ledger.claim(refs(INBOX, 1))))
    await ledger.close()


async def test_a_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerUnavailable):
        await opened(tmp_path / "file" / "ledger.db")


async def test_a_ledger_of_a_later_version_is_refused_naming_both(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await opened(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    for refused in (opened(path), asyncio.to_thread(LedgerReader.open, path)):
        with pytest.raises((ConfigError, LedgerUnavailable), match=rf"version 99.*{SCHEMA.version}"):
            await refused
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA.version}")
    await (await opened(path)).close()


async def test_a_queue_is_not_opened_as_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE event (id)")
    with pytest.raises(ConfigError, match="not a mailpoller ledger"):
        await opened(path)


# --- migration -------------------------------------------------------------------------------------------------
async def test_a_ledger_of_version_1_is_still_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((HERE / "ledger_v1.sql").read_text())
    ledger = await opened(path, clock := SuiteClock())
    assert (await ledger.open_folder(INBOX, ACCOUNT)).position == "42"
    deferred, suspect, settled, due = await ledger.claim(refs(INBOX, 1, 2, 3, 4))
    assert isinstance(deferred, Held)
    (poison,) = claims([suspect])
    assert (poison.suspect, poison.strikes) == (True, 2)
    assert isinstance(settled, Held)
    assert getattr(due, "disposition", None) == Disposition(seen=True, move="Processed")
    assert [edge.key for edge in await ledger.alarms()] == ["down:support"]
    assert [fault.event for fault in await ledger.faults("support")] == ["session.lost"]
    (story,) = await ledger.trace("<a@example.com>")
    assert (story.outcome, story.receipts, story.former) == ("delivered", {"support": "row 1"}, ())
    await ledger.reopen(story.mid)
    (story,) = await ledger.trace("<a@example.com>")
    assert [(one.outcome, one.receipts) for one in story.former] == [("delivered", {"support": "row 1"})]
    clock.move(timedelta(days=365))
    (again,) = claims(await ledger.claim(refs(INBOX, 1)))
    assert (again.route, again.receipts) == (("support", "billing"), {"support": "row 2"})
    await ledger.close()


# --- readers ---------------------------------------------------------------------------------------------------
async def test_a_reader_sees_what_is_committed_while_the_daemon_holds_the_ledger(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "ledger.db", clock := SuiteClock())
    with SqliteLedgerConfig(path=tmp_path / "ledger.db").reader() as reader:
        first, second = claims(await ledger.claim(refs(INBOX, 1, 2)))
        (settlement,) = await ledger.settle([outcome(first, sender="erika@example.com")])
        await ledger.disposed([Disposed(settlement, "failed", "no such folder")])
        await ledger.advance(INBOX, Position("3"))
        await ledger.raise_alarm("down:support", "imap.example.com", "support is down")
        await ledger.note([Fault(clock.now(), "support", "session.lost", "reset")])
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        await ledger.hold(RENUMBERED, "200 unknown messages")
        assert reader.mailboxes() == ["support"]
        assert reader.counts("support") == {"claimed": 0, "deferred": 0, "settled": 1, "undisposed": 0}
        assert [story.disposition_reason for story in reader.trace("erika@example.com")] == ["no such folder"]
        assert [edge.summary for edge in reader.alarms()] == ["support is down"]
        assert [fault.detail for fault in reader.faults()] == ["reset"]
        present, former = reader.folders("support")
        assert (present.present, present.epoch, present.held) == (True, RENUMBERED.epoch, "200 unknown messages")
        assert (former.present, former.position, former.advanced_at) == (False, "3", clock.now())
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.connection.execute("DELETE FROM message")
        await ledger.release([second])
    await ledger.close()
    with LedgerReader.open(tmp_path / "ledger.db") as reader:
        assert reader.mailboxes() == ["support"]


def test_a_reader_says_when_there_is_no_ledger_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="no ledger"):
        LedgerReader.open(tmp_path / "ledger.db")
    assert list(tmp_path.iterdir()) == []


# --- cost ------------------------------------------------------------------------------------------------------
async def test_two_hundred_mailboxes_share_their_commits(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "ledger.db")
    before = ledger.commits
    answers = await asyncio.gather(*(ledger.claim(refs(INBOX, n)) for n in range(200)))
    assert len({claim.mid for answer in answers for claim in claims(answer)}) == 200
    assert ledger.commits - before <= 20
    await ledger.close()


def test_a_batch_is_one_statement_for_each_step_however_large(tmp_path: Path) -> None:
    """Because every statement, and every row that one returns, gives up the interpreter's lock."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for script in SCHEMA.migrations:
            connection.executescript(script)
        connection.execute(
            "INSERT INTO folder (id, mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at) "
            "VALUES (1, 'support', 'INBOX', 'e', 'imap', 'h', 'u', 1, 0, 0)"
        )
        known, statements = Known(1, "e"), []
        batch = [(known, ref) for ref in refs(Folder("support", "INBOX", "e"), *range(200))]
        connection.set_trace_callback(statements.append)
        answers, keys = claiming.claim(connection, batch, set(), 0)
        assert len(statements) == 2
        outcomes = [(key, outcome(claim)) for key, claim in zip(keys, claims(answers), strict=True)]
        assert messages.settle(connection, outcomes, 0)
        messages.release(connection, keys, 0)
        messages.defer(
            connection,
            keys,
            until=0,
            reason="",
            queue=None,
            route=None,
            receipts=None,
            traits=[None] * 200,
            cause="",
            now=0,
        )
        # What a trigger does is told under the name of the statement that it belongs to.
        assert len(set(statements)) == 7, "three to settle, clues among them"


def test_no_step_of_a_batch_walks_through_the_ledger() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        for script in SCHEMA.migrations:
            connection.executescript(script)
        steps = [(claiming, name) for name in ("_CLAIM", "_ROWS", "_DUE")]
        steps += [(messages, name) for name in ("_SETTLE", "_DEFER", "_RELEASE", "_DISPOSED")]
        steps += [(alike, name) for name in ("_REPEATS", "_CROWDED", "_IN_A_CROWD", "_FORMER")]
        for module, name in steps:
            statement = getattr(module, name)
            plan = [
                row[3]
                for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (None,) * _parameters(statement))
            ]
            walks = [step for step in plan if step.startswith(("SCAN message", "SCAN folder"))]
            assert not walks, (name, plan)
            assert all(
                "folder=? AND uid=?" in step or "INDEX message_" in step for step in plan if "SEARCH message" in step
            )


def _parameters(statement: str) -> int:
    return max(number for number in range(1, 20) if f"?{number}" in statement)


async def test_text_that_sqlite_cannot_hold_never_keeps_a_message_from_being_settled(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "ledger.db")
    (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
    await ledger.settle(
        [outcome(claim, reason="\udcff\0x", message_id="<\ud800@example.com>", sender="ü\udc80@example.com")]
    )
    await ledger.note([Fault(datetime.now(UTC), "support", "session.lost", "\udcff")])
    await ledger.raise_alarm("down:support", "imap.example.com", "\udcff")
    await ledger.hold(INBOX, "\udcff")
    assert [fault.detail for fault in await ledger.faults()] == ["?"]
    (story,) = await ledger.trace(claim.mid)
    assert (story.reason, story.message_id, story.sender) == ("?\ufffdx", "<?@example.com>", "ü?@example.com")
    await ledger.close()
