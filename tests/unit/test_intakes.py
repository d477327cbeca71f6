"""A table as an intake: programs insert entries, and each is answered in its row."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from test_outbox import ENTRY, SENDERS, Site

from clocks import SkippingClock
from mailpoller.assembly.outbox import intake_source
from mailpoller.config import ConfigErrors, load
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.errors import EntryRefused, LedgerUnavailable, TransientError
from mailpoller.core.extras import Extra
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.core.spool import Spool
from mailpoller.engine.alarm import Kind
from mailpoller.engine.intake_reader import AT_ONCE, TROUBLE_S, IntakeReader
from mailpoller.engine.senders import Intake
from mailpoller.intakes.sqlite import SCHEMA, SqliteIntake, SqliteIntakeConfig


class Table(Site):
    """A site with an intake ``shop`` that is a table."""

    def __init__(self, path: Path, ledger: Any = None, **bounds: Any) -> None:
        super().__init__(path, ledger, **bounds)
        self.use(replace(SENDERS, intakes={**SENDERS.intakes, "shop": Intake("shop", ("root",), by_socket=False)}))
        self.file = path / "entries.db"
        self.source = SqliteIntake(self.file, self.clock, keep=timedelta(days=30))
        self.reader = IntakeReader(self.acceptance, {"shop": self.source}, self.alarm, largest=10_000)

    async def step(self) -> bool:
        return await self.reader.step("shop", self.source)

    def insert(self, *bodies: object) -> None:
        with sqlite3.connect(self.file, timeout=5) as database:
            database.executemany(
                "INSERT INTO entry (body) VALUES (?)",
                [(one if isinstance(one, str | bytes | int) else json.dumps(one),) for one in bodies],
            )

    def rows(self) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.file, timeout=5) as database:
            return database.execute("SELECT state, mail, reason FROM entry ORDER BY id").fetchall()


@pytest.fixture
async def table(tmp_path: Path) -> Any:
    made = Table(tmp_path)
    await made.step()
    yield made
    await made.source.close()


async def test_an_entry_is_answered_with_its_mail(table: Table) -> None:
    table.insert(ENTRY)
    await table.step()
    ((state, id, reason),) = table.rows()
    assert (state, reason) == ("accepted", None)
    assert (await table.mail(id)).open == ("ada@x.example",)
    await table.step()
    assert len(await table.ledger.outbox_list(limit=9)) == 1


async def test_what_is_malformed_is_answered_with_the_reason_and_stops_nothing(table: Table) -> None:
    table.insert("{", 7, b"\xff", "[]", "x" * 20_000, {**ENTRY, "to": "a\nb"}, {**ENTRY, "unknown": 1}, "", ENTRY)
    await table.step()
    rows = table.rows()
    assert [state for state, _, _ in rows] == ["refused"] * 8 + ["accepted"]
    assert all(reason for _, _, reason in rows[:-1])
    assert "outbox.max_mail" in rows[4][2]


@pytest.mark.parametrize("token", ["CAST(x'ff00' AS TEXT)", "x'ff'", "7", "'" + "x" * 300 + "'"])
async def test_a_token_that_a_program_wrote_itself_stops_nothing(table: Table, token: str) -> None:
    table.insert(ENTRY, ENTRY)
    with sqlite3.connect(table.file, timeout=5) as database:
        database.execute(f"UPDATE entry SET token = {token} WHERE id = 1")
    await table.step()
    assert [state for state, _, _ in table.rows()][1] == "accepted"
    assert "new" not in [state for state, _, _ in table.rows()]


async def test_a_mail_for_which_there_will_never_be_room_stops_nothing(tmp_path: Path) -> None:
    table = Table(tmp_path, max_size=5000)
    await table.step()
    table.insert({**ENTRY, "text": "word " * 1500}, ENTRY)
    await table.step()
    rows = table.rows()
    assert [state for state, _, _ in rows] == ["refused", "accepted"]
    assert "outbox.max_size" in rows[0][2]
    await table.source.close()


async def test_a_dead_relay_of_one_identity_stops_no_entry_of_another(tmp_path: Path) -> None:
    table = Table(tmp_path, max_size=10_000)
    shop = Intake("shop", ("root", "sales"), by_socket=False)
    table.use(replace(SENDERS, intakes={"shop": shop}))
    await table.step()
    table.insert(*[{**ENTRY, "department": "root", "text": "x" * 500}] * 100, {**ENTRY, "department": "sales"})
    while await table.step():
        pass
    states = [state for state, _, _ in table.rows()]
    assert states[-1] == "accepted" and 2 < states.count("accepted") < 10 and "refused" not in states
    await table.source.close()


async def test_what_an_entry_claims_widens_nothing(table: Table) -> None:
    table.insert({**ENTRY, "identity": "sales"}, {**ENTRY, "department": "sales"}, {**ENTRY, "mailbox": "deals"})
    await table.step()
    assert [state for state, _, _ in table.rows()] == ["refused"] * 3


async def test_a_table_is_no_way_in_for_the_socket(table: Table) -> None:
    with pytest.raises(EntryRefused):
        await table.hand_in(intake="shop")
    assert (await table.hand_in())["id"]  # the only one that is


async def test_killed_between_acceptance_and_answer_it_is_sent_once(table: Table) -> None:
    table.insert(ENTRY)

    async def lost(answers: object) -> None:
        raise TransientError("killed")

    real, table.source.answer = table.source.answer, lost  # type: ignore[method-assign]
    with pytest.raises(TransientError):
        await table.step()
    table.source.answer = real  # type: ignore[method-assign]
    again = Table(table.path, table.ledger.restarted())
    await again.step()
    await again.source.close()
    assert [state for state, _, _ in table.rows()] == ["accepted"]
    assert len(await table.ledger.outbox_list(limit=9)) == 1


async def test_a_ledger_that_cannot_commit_answers_nobody_and_what_was_taken_before_is_answered(table: Table) -> None:
    table.insert(ENTRY, ENTRY)
    table.ledger.fail("outbox_accept", times=1)
    with pytest.raises(LedgerUnavailable):
        await table.step()
    assert [state for state, _, _ in table.rows()] == ["new", "new"]
    await table.step()
    assert [state for state, _, _ in table.rows()] == ["accepted"] * 2


async def test_the_same_key_with_other_content_is_refused(table: Table) -> None:
    table.insert({**ENTRY, "key": "k"}, {**ENTRY, "key": "k"}, {**ENTRY, "key": "k", "text": "other"})
    await table.step()
    first, second, third = table.rows()
    assert (first[:2], third[0]) == (second[:2], "refused")


async def test_answers_to_a_message_that_is_not_settled_hold_up_no_other_entry(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = MessageRef(Folder("help", "INBOX", "1"), "17", 1000)
    await table.ledger.open_folder(ref.folder, Account("imap", "imap.example.com", "u"))
    (claim,) = await table.ledger.claim([ref])
    assert isinstance(claim, Claim)
    table.insert(*[{**ENTRY, "reply_to": claim.mid}] * (AT_ONCE + 1), ENTRY)
    while await table.step():
        pass
    assert [state for state, _, _ in table.rows()] == ["new"] * (AT_ONCE + 1) + ["accepted"]
    await table.ledger.settle([Outcome(claim, "delivered", LEAVE, {"q": "1"}, sender="ada@c.example")])
    monkeypatch.setattr("mailpoller.engine.intake_reader.monotonic", lambda: monotonic() + TROUBLE_S)
    while await table.step():
        pass
    assert {state for state, _, _ in table.rows()} == {"accepted"}


async def test_many_large_entries_are_never_read_together(table: Table) -> None:
    table.insert(*[{**ENTRY, "text": "x" * 1_500_000}] * 6)
    read = [len(one.octets or b"") for one in await table.source.waiting(limit=50, largest=2_000_000)]
    assert 1_500_000 < sum(read) < 5_000_000
    reader = IntakeReader(table.acceptance, {}, table.alarm, largest=2_000_000)
    while await reader.step("shop", table.source):
        pass
    assert {state for state, _, _ in table.rows()} == {"accepted"}


async def test_a_file_that_is_begun_anew_has_entries_of_its_own(table: Table) -> None:
    table.insert(ENTRY)
    await table.step()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{table.file}{suffix}").unlink(missing_ok=True)
    await table.step()
    table.insert({**ENTRY, "text": "other"})
    await table.step()
    assert [state for state, _, _ in table.rows()] == ["accepted"]
    assert len(await table.ledger.outbox_list(limit=9)) == 2


async def test_a_file_that_was_put_back_has_entries_of_its_own_under_the_same_ids(table: Table) -> None:
    table.insert(ENTRY)
    await table.step()
    with sqlite3.connect(table.file, timeout=5) as database:  # as a copy from before the entry
        database.execute("DELETE FROM entry")
        database.execute("DELETE FROM sqlite_sequence")
    table.insert({**ENTRY, "text": "another"}, ENTRY)
    await table.step()
    assert [state for state, _, _ in table.rows()] == ["accepted"] * 2
    assert len(await table.ledger.outbox_list(limit=9)) == 3


async def test_what_waits_in_a_file_of_the_version_before_is_taken_under_the_key_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "entries.db"
    with sqlite3.connect(path) as database:
        database.executescript(SCHEMA.migrations[0])
        database.execute(f"PRAGMA application_id={SCHEMA.application_id}")
        database.execute("PRAGMA user_version=1")
        database.execute("INSERT INTO intake VALUES ('abc')")
        database.executemany(
            "INSERT INTO entry (body, state) VALUES (?, ?)", [("{}", "accepted"), ("{}", "new"), ("[]", "new")]
        )
    source = SqliteIntake(path, SkippingClock(), keep=timedelta(days=30))
    assert [one.key for one in await source.waiting(limit=9, largest=99)] == ["abc-2", "abc-3"]
    with sqlite3.connect(path, timeout=5) as database:
        database.execute("INSERT INTO entry (body) VALUES ('{}')")
    *_, last = await source.waiting(limit=9, largest=99)
    assert last.number == 4
    assert len(last.key) == 32
    await source.close()


async def test_what_was_answered_long_ago_is_removed(table: Table) -> None:
    table.insert(ENTRY)
    await table.step()
    await table.clock.sleep(31 * 86400)
    table.insert(ENTRY)
    await table.step()
    await table.step()
    assert len(table.rows()) == 1


async def test_a_foreign_file_is_told_and_holds_up_no_other_intake(table: Table) -> None:
    foreign = table.path / "foreign.db"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE mine (x)")
    other = SqliteIntake(foreign, table.clock, keep=timedelta(days=30))
    table.reader.sources = {"broken": other, "shop": table.source}
    table.insert(ENTRY)
    stop = asyncio.Event()
    task = asyncio.create_task(table.reader.run(stop))
    await table.until(lambda: table.rows()[0][0] == "accepted")
    stop.set()
    await asyncio.wait_for(task, 5)
    await table.alarm.step()
    assert (await table.ledger.faults("broken"))[0].event == "intake.waiting"
    assert await table.alarm.standing(Kind.INTAKE_FAILING) == ["broken"]


async def test_the_alarm_of_an_intake_ends_when_it_is_read_again_or_configured_no_more(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.engine.intake_reader.TROUBLE_S", 0.01)
    monkeypatch.setattr("mailpoller.engine.intake_reader.LOOK_S", 0.01)
    broken = True

    class Source:
        async def waiting(self, **_: Any) -> Sequence[Any]:
            if broken:
                raise TransientError("it hangs")
            return []

        async def close(self) -> None:
            return

    async def standing(subjects: set[str]) -> None:
        for _ in range(300):
            await table.alarm.step()
            if set(await table.alarm.standing(Kind.INTAKE_FAILING)) == subjects:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(await table.alarm.standing(Kind.INTAKE_FAILING))

    table.reader.sources = {"shop": Source()}
    stop = asyncio.Event()
    task = asyncio.create_task(table.reader.run(stop))
    await standing({"shop"})
    broken = False
    await standing(set())
    broken = True
    await standing({"shop"})
    table.reader.sources = {}
    await standing(set())
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_an_intake_that_lacks_a_package_is_told_and_works_once_it_is_there(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = True

    class Block(SqliteIntakeConfig):
        def extras(self) -> Any:
            yield Extra("type", "no_such_module" if lacks else "json", "mailpoller[none]")

    block = Block(type="sqlite", departments=["root"], path=table.file)
    runtime = Runtime(table.clock, Spool(table.path), table.path)
    source = intake_source(block, "shop", runtime)
    assert source is not None
    table.insert(ENTRY)
    with pytest.raises(TransientError, match=r"mailpoller\[none\]"):
        await table.reader.step("shop", source)
    lacks = False
    await table.reader.step("shop", source)
    await source.close()
    assert [state for state, _, _ in table.rows()] == ["accepted"]


async def test_check_makes_nothing_and_says_whether_a_table_could_be_read(tmp_path: Path, table: Table) -> None:
    await table.source.check()
    new = SqliteIntake(tmp_path / "new" / "entries.db", table.clock, keep=timedelta(days=30))
    await new.check()
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("x")
    broken = SqliteIntake(tmp_path / "file" / "entries.db", table.clock, keep=timedelta(days=30))
    with pytest.raises(TransientError):
        await broken.check()
    for one in (new, broken):
        await one.close()


def test_an_intake_of_either_type_says_its_departments(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    text = (
        "queues: {q: {type: jsonl, path: /var/q}}\n"
        "mailboxes: {a: {type: imap, host: h.example, username: u, password: p, default_queue: q}}\n"
        "intakes: {desk: {type: socket, departments: [root]}, "
        "shop: {type: sqlite, departments: [root], path: /var/e}}\n"
    )
    file.write_text(text)
    assert load(file)
    for wrong in ("type: sqlite, departments: [root]", "type: sqlite, path: /var/e", "type: none, departments: [root]"):
        file.write_text(text.replace("type: sqlite, departments: [root], path: /var/e", wrong))
        with pytest.raises(ConfigErrors):
            load(file)
