"""An outbox that was restored or copied sends nothing until an operator accepts it; one that was not, always does."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.errors import MailpollerError
from mailpoller.core.ports import Mail, Said
from mailpoller.core.sender import Sender
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.outbox_operations import OutboxOperations
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.postman import Postman
from mailpoller.engine.provenance import FILE, Provenance
from mailpoller.engine.senders import Identity, Senders
from mailpoller.ledgers.sqlite import SqliteLedger
from mailpoller.storage.machine import machine
from mailpoller.storage.octet_files import OctetFiles
from mailpoller.testing.ledger.ground import SuiteClock, outbox_mail

OCTETS = b"Subject: x\r\n\r\nx\r\n"
SENDERS = Senders({"relay": Identity("relay", Sender("support@x.example"))})


class Relay:
    host = "relay.example"
    sender = "support@x.example"

    def __init__(self) -> None:
        self.took: list[str] = []

    async def post(self, mail: Mail) -> Mapping[str, Said]:
        self.took += mail.recipients
        return dict.fromkeys(mail.recipients, Said("accepted", "250 Ok"))

    async def send(self, mail: Mail) -> str:
        raise AssertionError("it can post")

    def probe(self) -> Any: ...
    async def close(self) -> None: ...


class Installation:
    """A state directory with ledger, outbox and witness, on a machine."""

    def __init__(self, state: Path, *, machine: str = "here", elsewhere: Path | None = None) -> None:
        self.state = state
        self.machine = machine
        self.elsewhere = elsewhere
        self.relay = Relay()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Installation]:
        clock = SuiteClock()
        self.state.mkdir(exist_ok=True)
        self.ledger = await SqliteLedger.open(self.state / "ledger.db", clock)
        self.files = OctetFiles(self.state / "outbox")
        self.clock = clock
        self.alarm = Alarm(self.ledger, None, (), clock)
        self.provenance = Provenance(
            self.ledger, self.state, clock, machine=self.machine, elsewhere=self.elsewhere, alarm=self.alarm
        )
        self.postman = Postman(
            self.ledger, self.files, {"relay": self.relay}, SENDERS, self.alarm, clock, OutboxRoom(),
            provenance=self.provenance,
        )  # fmt: skip
        self.operations = OutboxOperations(self.ledger, self.provenance, None, self.postman)
        stop = asyncio.Event()
        task = asyncio.create_task(self.postman.run(stop))
        try:
            await self.provenance.look()
            yield self
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)
            await self.ledger.close()

    async def accepts(self, id: str, to: str) -> None:
        digest = self.files.keep(OCTETS)
        await self.ledger.outbox_accept(replace(outbox_mail(id, self.clock, to), digest=digest))
        self.postman.wake("relay")

    async def sends(self, id: str, to: str) -> None:
        await self.accepts(id, to)
        await self.until(to)

    async def until(self, to: str) -> None:
        async with asyncio.timeout(5):
            while to not in self.relay.took:
                await asyncio.sleep(0.005)

    async def stays_held(self) -> str:
        await asyncio.sleep(0.1)
        assert self.relay.took == []
        assert [one["state"] for one in self.postman.hindered()] == ["held"]
        assert any("outbox-copied" in one.key for one in await self.ledger.alarms())
        return self.provenance.held


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


async def waiting(state: Path, id: str = "a3", to: str = "eve@x.example") -> None:
    """A mail that was accepted and not sent yet when the process died."""
    clock = SuiteClock()
    ledger = await SqliteLedger.open(state / "ledger.db", clock)
    digest = OctetFiles(state / "outbox").keep(OCTETS)
    await ledger.outbox_accept(replace(outbox_mail(id, clock, to), digest=digest))
    await ledger.close()


async def used(state: Path, **more: Any) -> None:
    """An installation that sent a mail, and was stopped with one that waits."""
    async with Installation(state, **more).run() as site:
        await site.sends("a1", "ada@x.example")
    await waiting(state)


# --- what is no copy -----------------------------------------------------------------------------------------------
async def test_a_first_start_is_not_held(state: Path) -> None:
    async with Installation(state).run() as site:
        await site.sends("a1", "ada@x.example")
        assert site.postman.hindered() == []


async def test_a_ledger_from_before_there_were_marks_sends_what_waits_in_it(state: Path) -> None:
    state.mkdir()
    await waiting(state)
    async with Installation(state).run() as site:
        await site.until("eve@x.example")


async def test_another_start_is_not_held(state: Path) -> None:
    await used(state)
    async with Installation(state).run() as site:
        await site.until("eve@x.example")


async def test_a_ledger_that_was_begun_anew_is_not_held(state: Path) -> None:
    await used(state)
    for file in state.glob("ledger.db*"):
        file.unlink()
    async with Installation(state).run() as site:
        await site.sends("b1", "ada@x.example")


async def test_a_state_directory_that_moved_on_its_host_is_not_held(state: Path, tmp_path: Path) -> None:
    await used(state)
    state.rename(tmp_path / "moved")
    async with Installation(tmp_path / "moved").run() as site:
        await site.until("eve@x.example")


async def test_a_place_by_another_name_is_the_same_place(state: Path, tmp_path: Path) -> None:
    await used(state)
    (tmp_path / "link").symlink_to(state)
    async with Installation(tmp_path / "link").run() as site:
        await site.until("eve@x.example")


async def test_a_cache_that_was_cleared_is_no_sign_of_a_copy(state: Path, tmp_path: Path) -> None:
    await used(state, elsewhere=tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    async with Installation(state, elsewhere=tmp_path / "cache").run() as site:
        await site.until("eve@x.example")


async def test_a_machine_that_got_its_id_later_is_the_same_machine(state: Path) -> None:
    await used(state, machine="")
    async with Installation(state, machine="here").run() as site:
        await site.until("eve@x.example")


@pytest.mark.parametrize("step", range(1, 6))
async def test_a_process_that_dies_between_two_steps_holds_nothing_at_the_next_start(state: Path, step: int) -> None:
    """After each step in turn, of the ledger and of the file, beginning with the first of all."""
    state.mkdir()
    await waiting(state)
    clock, left = SuiteClock(), step

    class Killed(BaseException):
        pass

    def passed() -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1

    ledger = await SqliteLedger.open(state / "ledger.db", clock)
    provenance = Provenance(ledger, state, clock, machine="here", elsewhere=None, alarm=None)
    note, write = ledger.outbox_note_mark, provenance._beside.write

    async def noting(mark: Any) -> None:
        passed()
        await note(mark)

    def writing(witness: Any) -> None:
        passed()
        write(witness)

    ledger.outbox_note_mark = noting  # type: ignore[method-assign]
    provenance._beside.write = writing  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await provenance.look()
        await provenance.sends()
    await ledger.close()
    async with Installation(state).run() as site:
        await site.until("eve@x.example")


# --- what is one ---------------------------------------------------------------------------------------------------
async def test_a_copy_on_another_host_sends_nothing_and_says_so(state: Path, tmp_path: Path) -> None:
    await used(state)
    shutil.copytree(state, tmp_path / "copy")
    with capture_logs() as logs:
        async with Installation(tmp_path / "copy", machine="there").run() as site:
            assert "another host" in await site.stays_held()
    said = [(one["event"], one["log_level"]) for one in logs]
    assert said.count(("outbox.copied", "error")) == 1
    assert ("outbox.held", "error") in said


async def test_a_copy_sends_nothing_at_any_later_start_either(state: Path, tmp_path: Path) -> None:
    await used(state)
    for _ in range(2):
        async with Installation(state, machine="there").run() as site:
            await site.stays_held()


async def test_an_older_ledger_that_was_put_back_sends_nothing(state: Path, tmp_path: Path) -> None:
    await used(state)
    shutil.copy(state / "ledger.db", tmp_path / "backup")
    async with Installation(state).run() as site:
        await site.until("eve@x.example")
    shutil.copy(tmp_path / "backup", state / "ledger.db")
    async with Installation(state).run() as site:
        assert "an older copy" in await site.stays_held()


async def test_a_ledger_that_was_copied_while_mail_was_sent_is_older_than_what_was_sent_after(
    state: Path, tmp_path: Path
) -> None:
    """Also if the process was killed after that, and never came to its end."""
    clock = SuiteClock()
    ledger = await SqliteLedger.open(state / "ledger.db", clock)
    provenance = Provenance(ledger, state, clock, machine="here", elsewhere=None, alarm=None)
    await provenance.look()
    heights = []
    for _ in range(3):
        mark = await ledger.outbox_mark()
        assert mark is not None
        heights.append(mark.height)
        await provenance.sends()
        await provenance.sends()
        clock.move(timedelta(minutes=1))
        await provenance.sent()
    assert heights == [1, 3, 5]
    await ledger.close()


async def test_a_state_directory_that_was_put_back_whole_is_known_by_a_witness_elsewhere(
    state: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    await used(state, elsewhere=cache)
    shutil.copytree(state, tmp_path / "snapshot")
    async with Installation(state, elsewhere=cache).run() as site:
        await site.until("eve@x.example")
    shutil.rmtree(state)
    (tmp_path / "snapshot").rename(state)
    async with Installation(state, elsewhere=cache).run() as site:
        assert str(cache) in await site.stays_held()


async def test_a_ledger_without_its_state_directory_sends_nothing(state: Path) -> None:
    await used(state)
    (state / FILE).unlink()
    async with Installation(state).run() as site:
        assert "missing" in await site.stays_held()


async def test_a_ledger_from_before_there_were_marks_that_was_put_back_sends_nothing(
    state: Path, tmp_path: Path
) -> None:
    state.mkdir()
    await waiting(state)
    with sqlite3.connect(state / "ledger.db") as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "backup"),))
    connection.close()
    async with Installation(state).run() as site:
        await site.until("eve@x.example")
    shutil.copy(tmp_path / "backup", state / "ledger.db")
    async with Installation(state).run() as site:
        assert "bears none" in await site.stays_held()


async def test_a_copy_beside_the_original_sends_nothing_and_the_original_goes_on(state: Path, tmp_path: Path) -> None:
    await used(state)
    shutil.copytree(state, tmp_path / "copy")
    async with Installation(tmp_path / "copy").run() as site:
        assert f"lies at {state}" in await site.stays_held()
    async with Installation(state).run() as site:
        await site.until("eve@x.example")


async def test_a_witness_that_cannot_be_read_holds_the_outbox_for_as_long(state: Path) -> None:
    await used(state)
    (state / FILE).rename(state / "aside")
    (state / FILE).symlink_to("aside")  # we follow none
    async with Installation(state).run() as site:
        assert "cannot be told" in await site.stays_held()
        (state / FILE).unlink()
        (state / "aside").rename(state / FILE)
        assert await site.provenance.look() == ""
        site.postman.insist()
        await site.until("eve@x.example")


# --- what an operator does ------------------------------------------------------------------------------------------
async def test_what_is_accepted_is_sent_and_stays_accepted(state: Path) -> None:
    await used(state)
    async with Installation(state, machine="there").run() as site:
        await site.stays_held()
        answer = await site.operations.accept({})
        assert "another host" in answer["reason"]
        assert answer["mails"] == 1
        await site.until("eve@x.example")
        assert site.postman.hindered() == []
        assert site.alarm.count() == {}
    async with Installation(state, machine="there").run() as site:
        await site.sends("b1", "ada@x.example")


async def test_mail_that_is_cancelled_while_the_outbox_is_held_never_leaves(state: Path) -> None:
    await used(state)
    async with Installation(state, machine="there").run() as site:
        await site.stays_held()
        await site.operations.cancel({"id": "a3"})
        await site.operations.accept({})
        await site.sends("b1", "ada@x.example")
        assert site.relay.took == ["ada@x.example"]


async def test_an_outbox_that_is_no_copy_cannot_be_accepted(state: Path) -> None:
    async with Installation(state).run() as site:
        with pytest.raises(MailpollerError, match="not held"):
            await site.operations.accept({})


async def test_an_accepted_copy_does_not_make_the_original_the_older_one(state: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    await used(state, elsewhere=cache)
    shutil.copytree(state, tmp_path / "copy")
    async with Installation(tmp_path / "copy", elsewhere=cache).run() as site:
        await site.operations.accept({})
        await site.until("eve@x.example")
    async with Installation(state, elsewhere=cache).run() as site:
        await site.until("eve@x.example")


# --- the machine ----------------------------------------------------------------------------------------------------
def test_an_id_of_one_boot_or_none_says_nothing_of_the_machine(tmp_path: Path) -> None:
    id, boot = tmp_path / "machine-id", tmp_path / "of-this-boot"
    assert machine(id, boot) == ""
    for wrong in ("", "uninitialized", "a" * 31, "g" * 32, "\xff"):
        id.write_text(wrong, encoding="latin-1")
        assert machine(id, boot) == ""
    id.write_text("a1" * 16 + "\n")
    known = machine(id, boot)
    assert known not in ("", "a1" * 16)
    boot.write_text("b2" * 16 + "\n")
    assert machine(id, boot) == known
    boot.write_text("a1" * 16 + "\n")
    assert machine(id, boot) == ""
