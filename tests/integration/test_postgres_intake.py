"""Entries in a table of PostgreSQL: each is accepted once and answered, whatever is killed, locked or put back."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.errors import LedgerUnavailable, TransientError
from mailpoller.core.ports import EntryAnswer
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.intake_reader import IntakeReader
from mailpoller.engine.senders import Intake
from mailpoller.intakes.postgres import PostgresIntakeConfig
from mailpoller.intakes.postgres.schema import rights, schema
from servers import programs
from servers.postgres import PgBouncer, PostgresServer, missing
from unit.test_outbox import ENTRY, SENDERS, Site

psycopg = pytest.importorskip("psycopg", reason="the extra postgres is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as started:
        started.ask("CREATE ROLE mailer LOGIN")
        started.ask("CREATE ROLE shop LOGIN")
        started.ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        yield started


class Table(Site):
    """A site with an intake ``shop``; the service is a role that may make nothing."""

    def __init__(self, path: Path, server: PostgresServer, name: str, ledger: Any = None, **more: Any) -> None:
        super().__init__(path, ledger)
        self.use(replace(SENDERS, intakes={**SENDERS.intakes, "shop": Intake("shop", ("root",), by_socket=False)}))
        self.server = server
        self.name = name
        where = {"host": "127.0.0.1", "port": server.port, "tls": "none", "database": "postgres", "username": "mailer"}
        self.block = PostgresIntakeConfig(type="postgres", departments=["root"], table=name, **{**where, **more})
        self.source: Any = self.block.build(
            "shop", Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent"))
        )
        self.reader = IntakeReader(self.acceptance, {"shop": self.source}, self.alarm, largest=10_000)

    async def step(self) -> bool:
        return await self.reader.step("shop", self.source)

    async def through(self) -> None:
        while await self.step():
            pass

    def insert(self, *bodies: object) -> None:
        """As a program whose role may insert, and nothing else."""
        with self.server.connect(user="shop") as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {self.name} (body) VALUES (%s)",
                [(one if isinstance(one, str) else json.dumps(one),) for one in bodies],
            )

    def rows(self) -> list[Any]:
        return self.server.ask(f"SELECT state, mail, reason FROM {self.name} ORDER BY id")

    async def mails(self) -> int:
        return len(await self.ledger.outbox_list(limit=1000))


def make(server: PostgresServer) -> str:
    name = f"intake{next(_numbers)}"
    server.ask(schema(name) + rights(name, "mailer") + f"GRANT SELECT, INSERT (body) ON {name} TO shop")
    return name


@pytest.fixture
async def table(server: PostgresServer, tmp_path: Path) -> AsyncIterator[Table]:
    made = Table(tmp_path, server, make(server))
    yield made
    await made.source.close()


async def test_entries_are_answered_in_their_rows_and_what_is_malformed_stops_nothing(table: Table) -> None:
    await table.source.check()
    assert not await table.step()
    table.insert("{", "[]", "x" * 20_000, "", {**ENTRY, "to": "a\nb"}, {**ENTRY, "identity": "sales"}, ENTRY, ENTRY)
    await table.through()
    rows = table.rows()
    assert [state for state, _, _ in rows] == ["refused"] * 6 + ["accepted"] * 2
    assert all(reason for _, _, reason in rows[:6])
    assert "outbox.max_mail" in rows[2][2]
    assert (await table.mail(rows[6][1])).open == ("ada@x.example",)
    assert await table.mails() == 2


async def test_killed_between_acceptance_and_answer_an_entry_is_sent_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.insert(ENTRY, {**ENTRY, "key": "k"})

    async def lost(answers: object) -> None:
        raise TransientError("killed")

    monkeypatch.setattr(table.source, "answer", lost)
    with pytest.raises(TransientError):
        await table.step()
    assert [state for state, _, _ in table.rows()] == ["new"] * 2
    again = Table(table.path, table.server, table.name, table.ledger.restarted())
    await again.through()
    await again.source.close()
    assert [state for state, _, _ in table.rows()] == ["accepted"] * 2
    assert await again.mails() == 2


async def test_nothing_is_answered_that_the_ledger_did_not_commit(table: Table) -> None:
    table.insert(ENTRY)
    table.ledger.fail("outbox_accept", times=1)
    with pytest.raises(LedgerUnavailable):
        await table.step()
    assert [state for state, _, _ in table.rows()] == ["new"]
    await table.through()
    assert [state for state, _, _ in table.rows()] == ["accepted"]


async def test_a_database_that_was_put_back_has_entries_of_its_own_under_the_same_ids(table: Table) -> None:
    table.insert(ENTRY)
    await table.through()
    table.server.ask(f"TRUNCATE {table.name} RESTART IDENTITY")  # as a copy from before the entry
    table.insert({**ENTRY, "text": "another"})
    await table.through()
    assert [state for state, _, _ in table.rows()] == ["accepted"]
    assert await table.mails() == 2


async def test_a_row_that_somebody_holds_keeps_no_other_waiting(table: Table) -> None:
    table.insert(ENTRY, ENTRY)
    with table.server.connect() as held, held.transaction():
        held.execute(f"SELECT FROM {table.name} WHERE id = 1 FOR UPDATE")
        async with asyncio.timeout(5):
            await table.through()
        assert [state for state, _, _ in table.rows()] == ["new", "accepted"]
    await table.through()
    assert [state for state, _, _ in table.rows()] == ["accepted"] * 2
    assert await table.mails() == 2


async def test_an_answer_is_taken_back_by_nobody_who_was_slower(table: Table) -> None:
    table.insert({**ENTRY, "to": "a\nb"})
    (entry,) = await table.source.waiting(limit=5, largest=10_000)
    await table.through()
    await table.source.answer([EntryAnswer(entry.number, "mail", "<m@x>")])
    assert table.rows()[0][0] == "refused"


async def test_many_large_entries_are_never_read_together(table: Table) -> None:
    table.insert(*[{**ENTRY, "text": "x" * 1_500_000}] * 6)
    read = [len(one.octets or b"") for one in await table.source.waiting(limit=50, largest=2_000_000)]
    assert 1_500_000 < sum(read) < 5_000_000


async def test_what_waits_for_itself_is_passed_over(table: Table) -> None:
    table.insert(ENTRY, ENTRY)
    assert [one.number for one in await table.source.waiting(limit=5, largest=10_000, but=[1])] == [2]


async def test_what_was_answered_long_ago_is_removed_and_what_waits_is_not(
    server: PostgresServer, tmp_path: Path
) -> None:
    table = Table(tmp_path, server, make(server), keep=timedelta(seconds=1))
    table.insert(ENTRY, "{")
    await table.through()
    server.ask(f"UPDATE {table.name} SET answered_at = answered_at - interval '1 minute'")
    table.insert(ENTRY)
    table.source._forget_at = 0.0
    await table.through()
    assert [state for state, _, _ in table.rows()] == ["accepted"]
    await table.source.close()


async def test_a_server_killed_and_back_costs_time_and_no_entry(tmp_path: Path) -> None:
    with PostgresServer() as own:
        own.ask("CREATE ROLE mailer LOGIN; CREATE ROLE shop LOGIN")
        table = Table(tmp_path, own, make(own), timeout=timedelta(seconds=5))
        table.insert(*[ENTRY] * 60)
        assert await table.step()
        own.kill()
        for call in (table.step(), table.source.check()):
            with pytest.raises(TransientError, match=r"postgres 127\.0\.0\.1"):
                await call
        own.start()
        await table.through()
        assert {state for state, _, _ in table.rows()} == {"accepted"}
        assert await table.mails() == 60
        await table.source.close()


@pytest.mark.skipif(not programs.found("pgbouncer"), reason="there is no pgbouncer")
async def test_a_pooler_that_gives_each_transaction_another_connection_is_no_trouble(
    server: PostgresServer, tmp_path: Path
) -> None:
    with PgBouncer(server) as pooler:
        table = Table(tmp_path, server, make(server), port=pooler.port, username="postgres")
        await table.source.check()
        table.insert(*[ENTRY] * 120)
        others = [Table(tmp_path / str(number), server, table.name, port=pooler.port) for number in range(2)]
        await asyncio.gather(table.through(), *(one.source.check() for one in others))
        assert {state for state, _, _ in table.rows()} == {"accepted"}
        assert await table.mails() == 120
        for one in (table, *others):
            await one.source.close()


async def test_check_names_what_is_missing(server: PostgresServer, tmp_path: Path) -> None:
    server.ask(schema("bare") + "GRANT SELECT ON bare TO mailer")
    for name, words in {"nowhere": "mailpoller outbox intake", "bare": "--print shows the rights"}.items():
        table = Table(tmp_path, server, name)
        with pytest.raises(TransientError, match=words):
            await table.source.check()
        await table.source.close()
    with pytest.raises(TransientError, match="outbox intake"):
        await Table(tmp_path, server, "nowhere").step()


async def test_a_database_in_which_a_row_may_hold_what_cannot_be_read_is_refused(
    server: PostgresServer, tmp_path: Path
) -> None:
    server.ask("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    table = Table(tmp_path, server, "any", database="ascii")
    with pytest.raises(TransientError, match="UTF8"):
        await table.step()
    await table.source.close()


async def test_the_table_is_made_by_the_statements_that_are_printed_and_twice_does_no_harm(
    server: PostgresServer, tmp_path: Path
) -> None:
    block = Table(tmp_path, server, "made_here", username="postgres").block
    wanted = block.preparation("shop")
    wanted.make()
    wanted.make()
    server.ask(wanted.statements)
    assert server.ask("SELECT count(*) FROM made_here") == [(0,)]
