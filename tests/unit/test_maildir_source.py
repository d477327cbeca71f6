"""The Maildir source: what is particular to files in directories."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposed, Disposition
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Position, RawMessage
from mailpoller.core.ports import Start
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.core.spool import Spool
from mailpoller.sources.maildir import MaildirConfig, directory, folder, session
from mailpoller.sources.maildir.session import MaildirSession

ALL, NOW = Start("all"), Start("now")
LONG_AGO = 1_600_000_000


class HandClock:
    """Real time, moved on by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Place:
    """A Maildir and a runtime to poll it with."""

    def __init__(self, base: Path) -> None:
        self.root = base / "Maildir"
        self.clock = HandClock()
        self.runtime = Runtime(self.clock, Spool(base / "spool", threshold=1000), base)
        self.runtime.spool.prepare()
        for part in ("tmp", "new", "cur"):
            (self.root / part).mkdir(parents=True)

    def config(self, **settings: Any) -> MaildirConfig:
        return MaildirConfig.model_validate({"type": "maildir", "path": str(self.root)} | settings)

    @asynccontextmanager
    async def session(self, **settings: Any) -> AsyncIterator[MaildirSession]:
        opened = await self.config(**settings).build("support", self.runtime).connect()
        try:
            yield opened
        finally:
            await opened.close()

    def put(self, name: str, octets: bytes = b"Subject: x\r\n\r\nx\r\n", part: str = "new") -> Path:
        file = self.root / part / name
        file.write_bytes(octets)
        return file

    def quieten(self) -> None:
        """As if nothing had changed for years."""
        for part in ("new", "cur"):
            os.utime(self.root / part, (LONG_AGO, LONG_AGO))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def listed(
    opened: MaildirSession, inbox: Folder, since: Position | None = None, start: Start = ALL
) -> tuple[list[str], Position]:
    pages = [page async for page in opened.pending(inbox, since, start)]
    position = pages[-1].position
    assert position is not None
    return [ref.uid for page in pages for ref in page.refs], position


def claims(inbox: Folder, *uids: str) -> list[Claim]:
    return [Claim(MessageRef(inbox, uid), f"mid-{uid}") for uid in uids]


async def fetched(opened: MaildirSession, inbox: Folder, *uids: str) -> dict[str, bytes | None]:
    answers: dict[str, bytes | None] = {}
    async for answer in opened.fetch(claims(inbox, *uids), 10_000_000):
        answers[answer.claim.ref.uid] = None if isinstance(answer, Gone) else bytes(answer.octets.view())
        if isinstance(answer, RawMessage):
            answer.octets.close()
    return answers


async def settled(opened: MaildirSession, inbox: Folder, uid: str, **disposition: Any) -> Disposed:
    told = SealedSettlement(MessageRef(inbox, uid), "mid", "delivered", Disposition(**disposition))
    return (await opened.settle([told]))[0]


# --- names ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "uid"),
    [
        ("1700000000.M1P2.host", "1700000000.M1P2.host"),
        ("1700000000.M1P2.host:2,FS", "1700000000.M1P2.host"),
        ("1700000000.M1P2.host,S=123,W=130:2,S", "1700000000.M1P2.host"),
        ("1700000000.M1P2.host,S=125,W=132:2,", "1700000000.M1P2.host"),
        ("Hello, world.eml", "Hello, world.eml"),
        ("Hello, you.eml", "Hello, you.eml"),
        (",S=5", ",S=5"),
        ("100%.eml", "100%25.eml"),
        ("line\nend", "line%0Aend"),
        (os.fsdecode(b"bad\xff"), "bad%FF"),
        ("bad%FF", "bad%25FF"),
    ],
)
def test_uid_is_the_unique_part_of_the_name(name: str, uid: str) -> None:
    assert directory.uid_of(name) == uid


def test_flags_are_added_in_order_and_others_are_kept() -> None:
    assert directory.flagged("x", "S") == "x:2,S"
    assert directory.flagged("x:2,RTa", "SF") == "x:2,FRSTa"
    assert directory.flagged("x:1,old", "S") == "x:2,S"
    assert directory.flags_of("x:2,FSa") == ("\\Flagged", "\\Seen")


def test_size_in_the_name_is_believed_as_a_hint() -> None:
    assert directory.announced_size("x,S=123,W=130:2,S") == 123
    assert directory.announced_size("x:2,S=5") is None
    assert directory.announced_size("x,S=" + "9" * 40) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../etc", "a..b", "Archive.", "nul\0"])
def test_folder_name_never_leads_out_of_the_maildir(name: str) -> None:
    with pytest.raises(ValueError, match="a folder is INBOX or"):
        directory.folder_directory(Path("/mail"), name)


def test_folder_names_are_dotted_directories() -> None:
    root = Path("/mail")
    assert directory.folder_directory(root, "inbox") == root
    assert directory.folder_directory(root, "Archive.2026") == root / ".Archive.2026"
    assert directory.folder_directory(root, ".Sent") == root / ".Sent"


# --- configuration -------------------------------------------------------------------------------------------------
def test_everything_is_taken_on_the_first_run_by_default(place: Place) -> None:
    assert place.config().start == "all"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "Maildir"}, "the path of a Maildir is absolute"),
        ({"folders": ["a/b"]}, "a folder is INBOX or"),
        ({"folders": ["Sent", ".Sent"]}, "a folder is named twice"),
        ({"disposition": {"flag": "$Done"}}, "Maildir has no flag \\$Done; it has"),
        ({"on_quarantine": {"move": "../elsewhere"}}, "a folder is INBOX or"),
    ],
)
def test_what_can_never_work_is_refused_before_the_start(place: Place, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        place.config(**settings)


async def test_missing_directory_is_transient(place: Place) -> None:
    source = place.config().build("support", place.runtime)
    shutil.rmtree(place.root / "new")
    with pytest.raises(TransientError, match="new does not exist"):
        await source.connect()
    shutil.rmtree(place.root)
    with pytest.raises(TransientError, match="Maildir does not exist"):
        await source.connect()


# --- listing -------------------------------------------------------------------------------------------------------
async def test_only_regular_files_are_messages(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not for the queue")
    place.put("good")
    place.put(".hidden")
    (place.root / "new" / "link").symlink_to(secret)
    (place.root / "new" / "directory").mkdir()
    os.mkfifo(place.root / "cur" / "pipe:2,")

    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        assert (await listed(opened, inbox))[0] == ["good"]
        async with asyncio.timeout(60):
            assert await fetched(opened, inbox, "link", "directory", "pipe", ".hidden") == dict.fromkeys(
                ["link", "directory", "pipe", ".hidden"]
            )


async def test_file_that_became_a_link_or_a_pipe_is_not_read(place: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not for the queue")
    one, two = place.put("one"), place.put("two")

    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        await listed(opened, inbox)
        one.unlink()
        one.symlink_to(tmp_path / "secret")
        two.unlink()
        os.mkfifo(two)
        async with asyncio.timeout(60):
            assert await fetched(opened, inbox, "one", "two") == {"one": None, "two": None}


async def test_quiet_mailbox_is_not_listed_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("one")
    place.quieten()
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        _, position = await listed(opened, inbox)
        monkeypatch.setattr(directory, "scan", lambda _: pytest.fail("listed a directory that did not change"))
        assert await listed(opened, inbox, position) == ([], position)
    async with place.session() as opened:
        assert await listed(opened, await opened.open("INBOX"), position) == ([], position)


async def test_mail_within_the_same_clock_tick_as_the_listing_is_not_missed(place: Place) -> None:
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        place.put("one")
        stamp = (place.root / "new").stat().st_mtime_ns
        _, position = await listed(opened, inbox)
        place.put("two")
        os.utime(place.root / "new", ns=(stamp, stamp))

        assert (await listed(opened, inbox, position))[0] == ["two"]


async def test_mail_that_left_no_time_stamp_is_found_within_an_hour(place: Place) -> None:
    place.put("one")
    place.quieten()
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        _, position = await listed(opened, inbox)
        place.put("two")
        place.quieten()
        assert (await listed(opened, inbox, position))[0] == []
        place.clock.ahead = folder.SWEEP_INTERVAL.total_seconds()

        assert (await listed(opened, inbox, position))[0] == ["two"]


async def test_listing_that_nobody_recorded_is_shown_again(place: Place) -> None:
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        _, position = await listed(opened, inbox)
        place.put("one")
        for _ in range(3):
            assert (await listed(opened, inbox, position))[0] == ["one"]


async def test_full_listing_in_between_hides_nothing_from_the_position(place: Place) -> None:
    place.put("one")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        _, position = await listed(opened, inbox)
        place.put("two")
        assert (await listed(opened, inbox, start=ALL))[0] == ["one", "two"]

        assert "two" in (await listed(opened, inbox, position))[0]


async def test_unwanted_mail_stays_unwanted_when_somebody_reads_it(place: Place) -> None:
    old = place.put("old")
    async with place.session() as opened:
        _, position = await listed(opened, await opened.open("INBOX"), start=NOW)
    old.rename(place.root / "cur" / "old:2,S")
    place.put("young")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        uids, position = await listed(opened, inbox, position)
        assert uids == ["young"]
        (place.root / "cur" / "old:2,S").rename(place.root / "cur" / "old:2,FS")
        assert (await listed(opened, inbox, position))[0] == []


async def test_message_in_both_directories_is_listed_once(place: Place) -> None:
    place.put("twin")
    place.put("twin:2,S", part="cur")
    async with place.session() as opened:
        assert (await listed(opened, await opened.open("INBOX")))[0] == ["twin"]


@pytest.mark.parametrize("text", ["", "12", "1 a b c d", "2 aa - - ", "1 aa - - ###", "1 aa x y ", "1 aa - - AAA"])
async def test_position_that_is_not_ours_shows_everything(place: Place, text: str) -> None:
    place.put("one")
    async with place.session() as opened:
        assert (await listed(opened, await opened.open("INBOX"), Position(text), NOW))[0] == ["one"]


async def test_restored_backup_is_the_same_folder(place: Place, tmp_path: Path) -> None:
    place.put("one")
    async with place.session() as opened:
        before = await opened.open("INBOX")
        uids, _ = await listed(opened, before)
    shutil.move(place.root, tmp_path / "backup")
    shutil.copytree(tmp_path / "backup", place.root)
    async with place.session() as opened:
        assert await opened.open("INBOX") == before
        assert (await listed(opened, before))[0] == uids


async def test_directory_that_vanished_is_never_an_empty_listing(place: Place) -> None:
    place.put("one")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        _, position = await listed(opened, inbox)
        shutil.rmtree(place.root / "cur")
        for since in (None, position):
            with pytest.raises(SessionLost):
                await listed(opened, inbox, since)


async def test_mail_that_is_renamed_while_its_directory_is_read_is_not_missed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, hidden = place.put("one:2,", part="cur"), place.root / "tmp" / "one"
    place.put("two")
    read = directory._list
    rounds: list[str] = []

    def unlucky(where: Path, part: str, entries: Any) -> int:
        """What readdir may do: it passes over a name that changes meanwhile."""
        rounds.append(part)
        if rounds.count("cur") == 1 and part == "cur":
            file.rename(hidden)
            count = read(where, part, entries)
            hidden.rename(file)
            return count
        return read(where, part, entries)

    monkeypatch.setattr(directory, "_list", unlucky)
    async with place.session() as opened:
        assert (await listed(opened, await opened.open("INBOX")))[0] == ["one", "two"]
    assert rounds == ["new", "cur", "new", "cur"]


# --- fetching ------------------------------------------------------------------------------------------------------
async def test_message_that_is_moved_between_listing_and_fetching_is_found(place: Place) -> None:
    file = place.put("one", b"one")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        await listed(opened, inbox)
        file.rename(place.root / "cur" / "one:2,RS")
        (raw,) = [answer async for answer in opened.fetch(claims(inbox, "one"), 100)]
        assert isinstance(raw, RawMessage)
        assert raw.octets.view() == b"one"
        assert raw.flags == ("\\Answered", "\\Seen")


async def test_message_is_fetched_without_a_listing_in_this_session(place: Place) -> None:
    place.put(os.fsdecode(b"\xe4.eml"), b"one")
    async with place.session() as opened:
        assert await fetched(opened, await opened.open("INBOX"), "%E4.eml", "gone") == {"%E4.eml": b"one", "gone": None}


async def test_uid_is_never_taken_for_a_path(place: Place, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not for the queue")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        assert await fetched(opened, inbox, "../../secret") == {"../../secret": None}
        assert (await settled(opened, inbox, "../../secret", delete=True)).state == "applied"
    assert (tmp_path / "secret").exists()


async def test_unreadable_message_does_not_stop_the_others(place: Place) -> None:
    place.put("large", b"x" * 5_000)
    for number in range(40):
        place.put(f"small{number}", b"x")
    # The spool is gone, so that only a message above its threshold cannot be taken in.
    shutil.rmtree(place.runtime.spool.directory)
    answered: list[str] = []
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        uids, _ = await listed(opened, inbox)
        with pytest.raises(TransientError, match="1 of 41 messages cannot be read") as caught:
            async for answer in opened.fetch(claims(inbox, *uids), 100_000):
                answered.append(answer.claim.ref.uid)  # noqa: PERF401  what came before the error counts
    assert not isinstance(caught.value, SessionLost)
    assert len(answered) == 40


async def test_impossible_time_stamp_is_no_received_date(place: Place) -> None:
    file = place.put("one")
    os.utime(file, (2**40, 2**40))
    async with place.session() as opened:
        (raw,) = [answer async for answer in opened.fetch(claims(await opened.open("INBOX"), "one"), 100)]
        assert isinstance(raw, RawMessage)
        # Some file systems keep the stamp, others the last one that they can.
        assert raw.received is None or raw.received.year > 2037


async def test_fetch_that_is_cancelled_leaves_nothing_in_the_spool(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        place.put(str(number), b"x" * 5_000)
    reading = asyncio.Event()
    loop = asyncio.get_running_loop()
    read = folder.PolledFolder.read

    def slowly(*args: Any) -> Any:
        loop.call_soon_threadsafe(reading.set)
        time.sleep(0.1)
        return read(*args)

    monkeypatch.setattr(folder.PolledFolder, "read", slowly)
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        fetching = asyncio.create_task(fetched(opened, inbox, *map(str, range(8))))
        await reading.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        # The session's one thread takes this after the fetch.
        await listed(opened, inbox)
        await asyncio.sleep(0)
    assert list(place.runtime.spool.directory.iterdir()) == []


async def test_consumer_that_stops_early_leaves_nothing_in_the_spool(place: Place) -> None:
    for number in range(8):
        place.put(str(number), b"x" * 5_000)
    async with place.session() as opened:
        answers = opened.fetch(claims(await opened.open("INBOX"), *map(str, range(8))), 10_000)
        first = await anext(answers)
        assert isinstance(first, RawMessage)
        first.octets.close()
        await answers.aclose()
    assert list(place.runtime.spool.directory.iterdir()) == []


# --- settling ------------------------------------------------------------------------------------------------------
def names(root: Path) -> Sequence[str]:
    return sorted(f"{file.parent.name}/{file.name}" for file in root.glob("[cn]*/*"))


async def test_seen_moves_from_new_to_cur(place: Place) -> None:
    place.put("one,S=18")
    async with place.session() as opened:
        assert (await settled(opened, await opened.open("INBOX"), "one", seen=True)).state == "applied"
    assert names(place.root) == ["cur/one,S=18:2,S"]


async def test_flags_of_others_survive_ours(place: Place) -> None:
    place.put("one:2,Ra", part="cur")
    async with place.session() as opened:
        await settled(opened, await opened.open("INBOX"), "one", seen=True, flags=("\\flagged", "$Forwarded"))
    assert names(place.root) == ["cur/one:2,FPRSa"]


async def test_move_keeps_the_unique_name_and_the_flags(place: Place) -> None:
    place.put("one:2,F", b"one", part="cur")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        assert (await settled(opened, inbox, "one", move="Done.2026")).state == "applied"
    assert names(place.root / ".Done.2026") == ["cur/one:2,F"]
    assert (place.root / ".Done.2026" / "maildirfolder").exists()
    assert (place.root / ".Done.2026" / "tmp").is_dir()


async def test_move_out_of_a_folder_goes_to_the_inbox(place: Place) -> None:
    directory.create(place.root / ".Sent", root=place.root)
    (place.root / ".Sent" / "cur" / "one:2,").write_bytes(b"one")
    async with place.session(folders=["Sent"]) as opened:
        assert (await settled(opened, await opened.open("Sent"), "one", move="INBOX")).state == "applied"
    assert names(place.root) == ["cur/one:2,"]


async def test_move_never_replaces_another_file(place: Place) -> None:
    place.put("one:2,", b"ours", part="cur")
    directory.create(place.root / ".Done", root=place.root)
    theirs = place.root / ".Done" / "cur" / "one:2,"
    theirs.write_bytes(b"theirs")
    async with place.session() as opened:
        done = await settled(opened, await opened.open("INBOX"), "one", move="Done")
    assert (done.state, done.reason) == ("failed", "another file has that name already")
    assert theirs.read_bytes() == b"theirs"
    assert names(place.root) == ["cur/one:2,"]


async def test_disposition_of_a_message_that_was_flagged_meanwhile_is_applied(place: Place) -> None:
    file = place.put("one")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        await listed(opened, inbox)
        file.rename(place.root / "cur" / "one:2,F")
        assert (await settled(opened, inbox, "one", seen=True)).state == "applied"
    assert names(place.root) == ["cur/one:2,FS"]


async def test_move_that_cannot_be_carried_out_fails_with_the_reason(place: Place) -> None:
    place.put("one")
    (place.root / ".Done").write_text("a file where the folder should be")
    async with place.session() as opened:
        done = await settled(opened, await opened.open("INBOX"), "one", move="Done")
    assert done.state in ("failed", "pending")
    assert done.reason
    assert names(place.root) == ["new/one"]


async def test_nothing_is_called_applied_before_the_directory_is_durable(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Path) -> None:
        raise OSError(5, "Input/output error")

    place.put("one")
    monkeypatch.setattr(directory, "sync", failing)
    async with place.session() as opened:
        done = await settled(opened, await opened.open("INBOX"), "one", delete=True)
    assert (done.state, done.reason) == ("pending", "Input/output error")


# --- the thread ----------------------------------------------------------------------------------------------------
async def test_file_system_that_hangs_ends_the_session(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(directory, "scan", lambda _: hanging.wait(60))
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        monkeypatch.setattr(session, "DEADLINE", timedelta(seconds=0.05))
        with pytest.raises(SessionLost, match="did not answer"):
            await listed(opened, inbox)
        with pytest.raises(SessionLost, match="did not answer"):
            await opened.folders()
    hanging.set()


async def test_close_ends_what_waits_for_its_turn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, hanging = threading.Event(), threading.Event()

    def hang(_: Path) -> None:
        begun.set()
        hanging.wait(60)

    opened = await place.config().build("support", place.runtime).connect()
    inbox = await opened.open("INBOX")
    monkeypatch.setattr(directory, "stamps", hang)
    waiting = [asyncio.create_task(listed(opened, inbox, Position("x"))) for _ in range(2)]
    assert await asyncio.to_thread(begun.wait, 60)
    async with asyncio.timeout(30):
        await opened.close()
        with pytest.raises(SessionLost):
            await waiting[1]
    hanging.set()
    await asyncio.gather(*waiting, return_exceptions=True)
