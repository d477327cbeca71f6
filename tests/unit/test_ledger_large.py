"""What a ledger of millions of messages promises: found at once, counted without counting, forgotten in pieces,
migrated whatever happens."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailpoller.app import assemble
from mailpoller.config import load
from mailpoller.core.delivery import LEAVE, Disposition, Outcome
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, MessageRef, Position, Survey
from mailpoller.engine.notify import Notifier
from mailpoller.engine.numbering import Numbering
from mailpoller.ledgers.sqlite import SqliteLedger, alike, clues, pruning, threads
from mailpoller.ledgers.sqlite.clues import MARK, of_mid, of_text
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.ledgers.sqlite.values import mid_octets, mid_text
from mailpoller.storage.sqlite import file
from mailpoller.testing.ledger.ground import RENUMBERED
from mailpoller.testing.ledger_suite import ACCOUNT, INBOX, SuiteClock, claims, outcome, refs
from mailpoller.testing.memory_ledger import MemoryLedger

HERE = Path(__file__).parent
OPEN = (
    "import asyncio, sys; from pathlib import Path; from mailpoller.ledgers.sqlite import SqliteLedger; "
    "from mailpoller.engine.clock import SystemClock; asyncio.run(SqliteLedger.open(Path(sys.argv[1]), SystemClock()))"
)


def audit(connection: sqlite3.Connection) -> None:
    """Every settled message has its clues, nothing else has any, and the folders' counts are true."""
    wanted: Counter[tuple[int, str]] = Counter()
    counts: Counter[int] = Counter()
    for folder, uid, state, mid, message_id, sender in connection.execute(
        "SELECT folder, uid, state, mid, message_id, sender FROM message"
    ):
        if state == "settled":
            counts[folder] += 1
            marks = {of_mid(mid_text(mid)), *(of_text(text) for text in (message_id, sender) if text)}
            wanted.update((folder, mark + uid) for mark in marks)
    unsorted = set(connection.execute("SELECT folder, value FROM clue_unsorted CROSS JOIN json_each(uids)"))
    kept = Counter((folder, name) for folder, name in connection.execute("SELECT folder, name FROM clue"))
    assert not {(folder, name[MARK:]) for folder, name in kept} & unsorted
    wanted = Counter({key: count for key, count in wanted.items() if (key[0], key[1][MARK:]) not in unsorted})
    assert kept == wanted
    assert {number: count for number, count in connection.execute("SELECT id, settled FROM folder") if count} == counts


def older(path: Path, rows: int) -> None:
    """A ledger of 0.1 with so many settled messages, and a few that are not."""
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function(
            "mid", 1, lambda uid: mid_octets(mint_mid("support", "INBOX", INBOX.epoch, str(uid)))
        )
        for script in SCHEMA.migrations[:1]:
            connection.executescript(script)
        connection.execute(
            "INSERT INTO folder (id, mailbox, name, epoch, type, host, user, turn, opened_at, baseline_at, "
            "position, complete) VALUES (1, 'support', 'INBOX', ?, ?, ?, ?, 1, 0, 0, '9', 1)",
            (INBOX.epoch, ACCOUNT.type, ACCOUNT.host, ACCOUNT.user),
        )
        connection.execute(
            "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1) INSERT INTO "
            "message (folder, uid, state, due_at, mid, claimed_at, outcome, settled_at, disposition, "
            "disposition_state, size, message_id, sender) SELECT 1, n, iif(n % 1000, 'settled', 'deferred'), iif(n "
            "% 1000, NULL, 1), mid(n), n, iif(n % 1000, 'delivered', NULL), iif(n % 1000, n, NULL), '{}', "
            "'applied', n, '<' || n || '@example.org>', 'Sender-' || (n % 7) || '@example.org' FROM number",
            (rows,),
        )
        connection.execute(f"PRAGMA application_id={SCHEMA.application_id}")
        connection.execute("PRAGMA user_version=1")
        connection.commit()


@pytest.mark.parametrize("batch", [16, 8192])
async def test_clues_and_counts_follow_every_change_of_a_message(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(clues, "BATCH", batch)
    dice = random.Random(20)
    clock = SuiteClock()
    ledger = MemoryLedger(clock)
    await ledger.open_folder(INBOX, ACCOUNT)
    folder, received = INBOX, clock.now()
    for step in range(250):
        clock.move(timedelta(hours=dice.choice([1, 30])))
        numbers = dice.sample(range(1, 60), 8)
        shown = [MessageRef(folder, str(number), dice.choice([100, 200]), received) for number in numbers]
        match dice.randrange(8):
            case 0 | 1 | 2:
                made = [one for one in await ledger.claim(shown) if isinstance(one, Claim)]
                ended = [
                    outcome(
                        claim,
                        disposition=dice.choice([LEAVE, Disposition(delete=True)]),
                        kind=dice.choice(["delivered", "gone"]),
                        message_id=dice.choice(["", f"<{claim.ref.uid}@example.org>"]),
                        sender=dice.choice(["", "Erika@example.org"]),
                    )
                    for claim in made[:6]
                ]
                await ledger.settle(ended)
                await ledger.defer(made[6:], until=clock.now(), reason="x")
            case 3:
                await ledger.revive(shown)
            case 4:
                known = [one.mid for one in await ledger.recognise(shown) if one.mid]
                for mid in known[:2]:
                    await ledger.reopen(mid)
            case 5:
                await ledger.identified([], [one.ref for one in await ledger.recognise(shown) if one.mid][:2])
            case 6:
                await ledger.prune(folder, {str(number) for number in range(1, 60, 2)}, before=clock.now())
            case 7 if step % 5 == 0:
                await ledger.begin_anew(folder, "set back")
        audit(ledger.store.connection)
        if batch == 16:
            (waiting,) = ledger.store.connection.execute("SELECT count(*) FROM clue_unsorted").fetchone()
            assert waiting <= batch, "a complete batch is sorted"
    await ledger.forget("support")
    audit(ledger.store.connection)
    assert not ledger.store.messages


async def test_a_message_is_traced_before_and_after_its_clues_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clues, "BATCH", 10)
    ledger = MemoryLedger(SuiteClock())
    await ledger.open_folder(INBOX, ACCOUNT)
    first: Claim | None = None
    for number in range(1, 13):
        (claim,) = await ledger.claim([MessageRef(INBOX, str(number), 100)])
        assert isinstance(claim, Claim)
        first = first or claim
        await ledger.settle([outcome(claim, message_id=f"<{number}@example.org>", sender="Erika@example.org")])
        for term in (first.mid, "<1@example.org>"):
            assert [story.mid for story in await ledger.trace(term, limit=5)] == [first.mid]
        assert len(await ledger.trace("erika@EXAMPLE.org", limit=50)) == number
    sorted_ones, unsorted = [
        ledger.store.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("clue", "clue_unsorted")
    ]
    assert (sorted_ones, unsorted) == (9 * 3, 3)


async def test_a_message_is_found_by_what_answers_it_before_and_after_its_clues_are_sorted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clues, "BATCH", 5)
    ledger = MemoryLedger(SuiteClock())
    await ledger.open_folder(INBOX, ACCOUNT)
    expected: dict[str, str] = {}
    for number in range(1, 30):
        several = claims(await ledger.claim(refs(INBOX, 3 * number, 3 * number + 1)))[: 1 + number % 2]
        names = [f"<{claim.ref.uid}@example.com>" for claim in several]
        await ledger.settle([outcome(one, message_id=name) for one, name in zip(several, names, strict=True)])
        expected |= {name: claim.mid for name, claim in zip(names, several, strict=True)}
        if number % 3:  # and sometimes nobody asks for a while
            assert await ledger.conversations("support", expected, None) == expected


async def test_what_is_asked_for_unknown_messages_does_not_grow_with_the_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clues, "BATCH", 4)
    monkeypatch.setattr(threads, "SEEKS", 200)
    ledger = MemoryLedger(SuiteClock())
    await ledger.open_folder(INBOX, ACCOUNT)
    steps: list[int] = []
    taken: list[int] = []
    known: list[Claim] = []
    unknown = [f"<unknown-{number}@example.com>" for number in range(20)]
    for target in (20, 40, 80):  # batches
        while len(known) < 4 * target:
            (claim,) = claims(await ledger.claim(refs(INBOX, len(known) + 1)))
            await ledger.settle([outcome(claim, message_id=f"<{len(known)}@example.com>")])
            known.append(claim)
        await ledger.conversations("support", unknown, None)
        connection = ledger.store.connection
        steps.clear()
        connection.set_progress_handler(lambda: steps.append(1), 10)
        asked = ["<0@example.com>", *unknown, "<1@example.com>", f"<{len(known) - 5}@example.com>"]
        found = await ledger.conversations("support", asked, None)
        connection.set_progress_handler(None, 0)
        assert found["<0@example.com>"] == known[0].mid, "the nearest is found however old it is"
        assert found[asked[-1]] == known[-5].mid, "and what is young, however far it is"
        assert "<1@example.com>" not in found
        taken.append(len(steps))
    assert taken[2] < 2 * taken[0], taken


async def test_who_answers_a_message_id_that_thousands_bear_does_not_walk_through_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clues, "BATCH", 2000)
    ledger = MemoryLedger(SuiteClock())
    other = replace(INBOX, mailbox="flooded")
    await ledger.open_folder(other, ACCOUNT)
    steps: list[int] = []
    for round_ in range(2):  # sorted clues, and clues that are not sorted yet
        count = clues.BATCH if round_ == 0 else 1000
        start = 1 + round_ * clues.BATCH
        for several in range(start, start + count, 1000):
            taken = claims(await ledger.claim(refs(other, *range(several, min(several + 1000, start + count)))))
            await ledger.settle([outcome(claim, message_id="<same@example.com>") for claim in taken])
        connection = ledger.store.connection
        connection.set_progress_handler(lambda: steps.append(1), 100)
        assert await ledger.conversations("support", ["<same@example.com>"], None)
        connection.set_progress_handler(None, 0)
        await ledger.conversations("support", ["<other@example.com>"], None)
    assert len(steps) < 500, "hundreds of thousands of steps"


async def test_settling_costs_the_same_however_much_a_first_listing_showed(tmp_path: Path) -> None:
    async def written(listed: int) -> int:
        path = tmp_path / f"{listed}.db"
        ledger = await SqliteLedger.open(path, SuiteClock())
        await ledger.open_folder(INBOX, ACCOUNT)
        shown = [MessageRef(INBOX, str(number), 100) for number in range(listed)]
        await ledger.plan(INBOX, shown, None)
        before = path.with_name(f"{path.name}-wal").stat().st_size
        for number in range(5):
            claims = await ledger.claim([shown[number]])
            await ledger.settle([outcome(claim) for claim in claims if isinstance(claim, Claim)])
            await ledger.advance(INBOX, Position(str(number)))
        grown = path.with_name(f"{path.name}-wal").stat().st_size - before
        await ledger.close()
        return grown

    assert await written(50_000) <= await written(10) + 50_000


class Maildrop(Sequence[MessageRef]):
    """What a survey shows of a maildrop, each made when it is asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice) -> MessageRef | list[MessageRef]:
        if isinstance(index, slice):
            return [self._ref(place) for place in range(*index.indices(self._count))]
        return self._ref(index)

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, str) and int(uid) < self._count

    def _ref(self, place: int) -> MessageRef:
        return MessageRef(INBOX, f"{place:056}", 1000)


@pytest.mark.parametrize("gone", [0, 20_000])
async def test_a_survey_of_a_large_maildrop_is_compared_a_piece_at_a_time(tmp_path: Path, gone: int) -> None:
    known, shown = Maildrop(40_000), Maildrop(40_000 - gone)
    clock = SuiteClock()
    ledger = await SqliteLedger.open(tmp_path / "ledger.db", clock)
    state = await ledger.open_folder(INBOX, ACCOUNT)
    for begin in range(0, len(known), 10_000):
        taken = claims(await ledger.claim(known[begin : begin + 10_000]))
        await ledger.settle([Outcome(claim=one, kind="skipped", disposition=LEAVE, receipts={}) for one in taken])
    records = SimpleNamespace(folders=ledger, bearers=ledger, backlog=ledger)
    numbering = Numbering("support", SimpleNamespace(poll_interval=timedelta(minutes=1)), records=records, clock=clock)
    survey = Survey(shown, whole=True, names=shown)

    async def surveyed(*_: object) -> Survey:
        return survey

    tracemalloc.start()
    try:
        _, reason = await numbering.verify(SimpleNamespace(survey=surveyed, look=None), state)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not reason
    assert peak < 20_000_000, f"{peak / 1e6:.0f} MB"
    census = await ledger.census(INBOX, known, known)
    assert (census.left, census.vanished.total(), census.changed) == (40_000 - gone, 0, gone > 0)
    await ledger.close()


async def test_what_a_pruning_marks_is_no_more_than_what_is_old() -> None:
    clock = SuiteClock()
    ledger = MemoryLedger(clock)
    await ledger.open_folder(INBOX, ACCOUNT)
    for begin in (0, 100):
        await ledger.settle(
            [outcome(claim) for claim in claims(await ledger.claim(refs(INBOX, *range(begin, begin + 100))))]
        )
        clock.move(timedelta(days=30))
    await ledger.prune(INBOX, (), before=clock.now() - timedelta(days=45))
    assert sum(one.absent_at is not None for one in ledger.store.messages.values()) == 100


async def test_a_pruning_passes_the_whole_folder_in_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "WALKED", 7)
    clock = SuiteClock()
    ledger = MemoryLedger(clock)
    await ledger.open_folder(INBOX, ACCOUNT)
    await ledger.settle([outcome(claim) for claim in claims(await ledger.claim(refs(INBOX, *range(50))))])
    forgotten = 0
    for _ in range(2):
        clock.move(timedelta(days=1, minutes=1))
        forgotten += await ledger.prune(INBOX, {"3", "30"}, before=clock.now())
    assert forgotten == 48
    assert {one.ref.uid for one in ledger.store.messages.values()} == {"3", "30"}


async def test_a_pruning_by_a_clock_that_was_ahead_is_no_look_and_none_waits_for_it() -> None:
    clock = SuiteClock()
    ledger = MemoryLedger(clock)
    await ledger.open_folder(INBOX, ACCOUNT)
    await ledger.settle([outcome(claim) for claim in claims(await ledger.claim(refs(INBOX, 1)))])
    clock.move(timedelta(days=700))
    assert await ledger.prune(INBOX, (), before=clock.now()) == 0
    clock.move(timedelta(days=-699))
    assert await ledger.prune(INBOX, (), before=clock.now()) == 0
    clock.move(timedelta(days=1, minutes=1))
    assert await ledger.prune(INBOX, (), before=clock.now()) == 1


async def test_an_absence_noted_by_a_clock_that_was_ahead_counts_from_now() -> None:
    clock = SuiteClock()
    ledger = MemoryLedger(clock)
    await ledger.open_folder(INBOX, ACCOUNT)
    made = claims(await ledger.claim(refs(INBOX, 1, 2)))
    clock.move(timedelta(days=7))
    await ledger.defer(made, until=clock.now(), reason="x", cause="absent")
    await ledger.strange(INBOX, True)
    clock.move(timedelta(days=-7))
    await ledger.defer(claims(await ledger.claim(refs(INBOX, 1))), until=clock.now(), reason="x", cause="absent")
    await ledger.sighted(INBOX, [], refs(INBOX, 2))
    assert [one.absent_at for one in ledger.store.messages.values()] == [clock.now()] * 2
    await ledger.strange(INBOX, True)
    assert (await ledger.open_folder(INBOX, ACCOUNT)).strange_at == clock.now()


# --- migration
# ---------------------------------------------------------------------------------------------------------
async def test_a_migration_killed_anywhere_is_done_by_a_later_start_and_loses_nothing(tmp_path: Path) -> None:
    path, rows, dice = tmp_path / "ledger.db", 60_000, random.Random(8)
    older(path, rows)
    killed = 0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", OPEN, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Until the copy has begun, and a moment of what follows.
        while child.poll() is None and not list(tmp_path.glob("*.backup*")):
            await asyncio.sleep(0.002)
        await asyncio.sleep(dice.random() * 0.6)
        child.send_signal(signal.SIGKILL)
        killed += child.wait(60) == -signal.SIGKILL
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] in (1, SCHEMA.version)
    assert killed > 1
    ledger = await SqliteLedger.open(path, SuiteClock())
    await ledger.open_folder(INBOX, ACCOUNT)
    assert await ledger.counts("support") == {"claimed": 0, "deferred": 60, "settled": rows - 60, "undisposed": 0}
    for term in ("<59999@example.org>", mint_mid("support", "INBOX", INBOX.epoch, "59999"), "59999"):
        assert [one.uid for one in await ledger.trace(term)] == ["59999"]
    assert len(await ledger.trace("sender-3@EXAMPLE.org", limit=50)) == 50
    assert [one.uid for one in await ledger.trace("<2000@example.org>")] == ["2000"], "what waits is found too"
    await ledger.reopen(mint_mid("support", "INBOX", INBOX.epoch, "59999"))
    await ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        audit(connection)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with closing(sqlite3.connect(tmp_path / "ledger.db.v1.backup")) as copy:
        assert copy.execute("SELECT count(*) FROM message").fetchone() == (rows,)
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)


async def test_a_leftover_of_a_killed_copy_goes_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    older(path, 10)
    (tmp_path / "ledger.db.v1.backup.unfinished").write_bytes(b"half a copy")
    await (await SqliteLedger.open(path, SuiteClock())).close()
    assert not list(tmp_path.glob("*.unfinished"))


async def test_a_migration_without_room_is_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    older(path, 1000)
    monkeypatch.setattr(file.shutil, "disk_usage", lambda where: SimpleNamespace(free=path.stat().st_size))
    with pytest.raises(Exception, match=r"octets free: the copy for the way back and the migration need"):
        await SqliteLedger.open(path, SuiteClock())
    assert not list(tmp_path.glob("*.backup*"))
    monkeypatch.undo()
    await (await SqliteLedger.open(path, SuiteClock())).close()


async def test_what_0_1_kept_gets_its_witness_at_the_next_look_and_is_no_other_message_for_want_of_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    older(path, 1000)
    ledger = await SqliteLedger.open(path, SuiteClock())
    await ledger.open_folder(INBOX, ACCOUNT)
    received = SuiteClock().now().replace(microsecond=0)
    seen = [MessageRef(INBOX, "1", 4711, received), MessageRef(INBOX, "1000", 4711, received)]
    assert [one.state for one in await ledger.recognise(seen)] == ["same", "same"]
    settled, waiting = await ledger.claim(seen)
    assert not isinstance(settled, Claim)
    assert isinstance(waiting, Claim)
    assert waiting.plain_id, "its delivery may be held already, under the id of then"
    await ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(
            "SELECT listed, received, plain_id FROM message WHERE uid IN ('1', '1000')"
        ).fetchall() == [
            (4711, int(received.timestamp()), 0),
            (4711, int(received.timestamp()), 1),
        ]


async def test_systemd_is_asked_for_more_time_while_the_ledger_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.engine.notify.EXTENDED_EVERY", timedelta(milliseconds=5))
    older(tmp_path / "ledger.db", 60_000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        async with Notifier(str(tmp_path / "notify")).starting():
            ledger = await SqliteLedger.open(tmp_path / "ledger.db", SuiteClock())
        said = []
        while True:
            try:
                said.append(ear.recv(4096).decode())
            except BlockingIOError:
                break
        await asyncio.sleep(0.02)
        with pytest.raises(BlockingIOError):
            ear.recv(4096)
    await ledger.close()
    assert len(said) > 5, "also in the middle of a migration"
    assert set(said) == {"EXTEND_TIMEOUT_USEC=60000000\nWATCHDOG=1"}


async def test_the_service_asks_for_more_time_while_its_ledger_is_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mailpoller.yaml").write_text(
        f"service: {{environment: test, state_directory: {tmp_path}, control_socket: {tmp_path}/control}}\n"
        f"ledger: {{type: sqlite, path: {tmp_path}/ledger.db}}\n"
        f"queues: {{support: {{type: jsonl, path: {tmp_path}/support.jsonl}}}}\n"
        f"mailboxes: {{support: {{type: maildir, path: {tmp_path}/mail, default_queue: support}}}}\n"
    )
    older(tmp_path / "ledger.db", 100)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        async with assemble(load(tmp_path / "mailpoller.yaml")):
            assert ear.recv(4096).startswith(b"EXTEND_TIMEOUT_USEC=")


# --- generations
# -------------------------------------------------------------------------------------------------------
async def test_a_ledger_put_back_from_a_copy_never_makes_a_redelivery_that_a_queue_takes_for_a_repeat(
    tmp_path: Path,
) -> None:
    from mailpoller.core.identity import mint_delivery_id

    path, clock = tmp_path / "ledger.db", SuiteClock()
    ledger = await SqliteLedger.open(path, clock)
    await ledger.open_folder(INBOX, ACCOUNT)
    (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
    await ledger.settle([outcome(claim)])
    await ledger.close()
    shutil.copy(path, tmp_path / "copy.db")
    held = {mint_delivery_id(claim.mid, "support", claim.generation)}
    for _ in range(3):
        ledger = await SqliteLedger.open(path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.reopen(claim.mid)
        (again,) = claims(await ledger.claim(refs(INBOX, 1)))
        delivery = mint_delivery_id(again.mid, "support", again.generation)
        assert delivery not in held, "the queue would answer that it holds it already"
        held.add(delivery)
        await ledger.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.replace(shutil.copy(tmp_path / "copy.db", tmp_path / "again.db"), path)


# --- the same octets, again and again ---------------------------------------------------------------------------------
class Steps:
    """Counts what SQLite does."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.count = 0

    def __enter__(self) -> Steps:
        self.connection.set_progress_handler(self._more, 100)
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.set_progress_handler(None, 0)

    def _more(self) -> int:
        self.count += 100
        return 0


async def ledger_of_copies(path: Path, copies: int) -> list[bytes]:
    """A ledger with so many messages of the same octets, of which the first is the original, and two others."""
    ledger = await SqliteLedger.open(path, SuiteClock())
    await ledger.open_folder(INBOX, ACCOUNT)
    taken = claims(await ledger.claim(refs(INBOX, *range(1, copies + 3))))
    first = outcome(taken[0], octets=b"same")
    copied = [replace(outcome(claim, octets=b"same"), repeat_of=first.claim.mid) for claim in taken[1:copies]]
    others = [outcome(taken[-2], octets=b"one"), outcome(taken[-1], octets=b"other")]
    await ledger.settle([first, *copied, *others])
    await ledger.close()
    return [one.fingerprint for one in (first, *others)]


async def test_the_millionth_copy_costs_no_more_than_the_thousandth_and_names_the_original(tmp_path: Path) -> None:
    asked = []
    for copies in (5_000, 20_000):
        path = tmp_path / f"{copies}.db"
        fingerprints = await ledger_of_copies(path, copies)
        with closing(sqlite3.connect(path)) as connection, Steps(connection) as steps:
            found = alike.repeats(connection, INBOX.mailbox, [*fingerprints, b"\4" * 32])
            asked.append(steps.count)
            mids = dict(connection.execute("SELECT uid, lower(hex(mid)) FROM message"))
        expected = [mids["1"], mids[str(copies + 1)], mids[str(copies + 2)]]
        assert {fingerprint: mid.replace("-", "") for fingerprint, mid in found.items()} == dict(
            zip(fingerprints, expected, strict=True)
        )
    assert asked[1] < 1.2 * asked[0], asked


async def test_a_crowd_of_equal_octets_is_told_in_pieces_and_none_that_is_stood_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alike, "FREE", 100)
    path = tmp_path / "crowd.db"
    same, *_ = await ledger_of_copies(path, 1000)
    ledger = await SqliteLedger.open(path, SuiteClock())
    await ledger.open_folder(RENUMBERED, ACCOUNT)
    before: set[str] = set()
    taken = claims(await ledger.claim(refs(RENUMBERED, *range(1, 251))))
    for _ in range(3):
        found = (await ledger.former(RENUMBERED, [same, same]))[same]
        assert len(found) == 100
        assert before.isdisjoint(found)
        before.update(found[:50])
        standing = [
            replace(outcome(taken.pop(), octets=b"same"), kind="repeated", receipts={}, repeat_of=mid)
            for mid in found[:50]
        ]
        await ledger.settle(standing)
    await ledger.close()
