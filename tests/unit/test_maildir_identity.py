"""The Maildir source believes neither an empty place nor a name on one look."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposed, Disposition
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, MessageRef, Position, RawMessage
from mailpoller.core.ports import Start
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.sources.maildir.directory import Stamps
from mailpoller.sources.maildir.position import Reached
from mailpoller.sources.maildir.session import MaildirSession
from unit.test_maildir_source import LONG_AGO, Place, fetched, listed, settled


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def another_in_its_place(place: Place, *names: str) -> Path:
    """Somebody puts another directory where the Maildir lay, as an unmounted file system does: where the real one is
    now."""
    away = place.root.with_name("away")
    place.root.rename(away)
    for part in ("tmp", "new", "cur"):
        (place.root / part).mkdir(parents=True)
    for name in names:
        place.put(name)
    return away


async def looked(opened: MaildirSession, inbox: Folder, *uids: str) -> list[str | None]:
    found = await opened.look([MessageRef(inbox, uid) for uid in uids])
    return [None if ref is None else ref.uid for ref in found]


async def test_empty_directory_in_the_place_of_a_full_one_is_trouble_and_no_listing(place: Place) -> None:
    place.put("1.a")
    place.put("1.b")
    async with place.session() as opened:
        _, position = await listed(opened, await opened.open("INBOX"))
    away = another_in_its_place(place)
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        for _ in range(2):
            with pytest.raises(TransientError, match="is its file system mounted") as caught:
                await opened.survey(inbox, position)
            assert not isinstance(caught.value, SessionLost)
            with pytest.raises(TransientError, match="there were 2 messages"):
                await listed(opened, inbox, position)
    shutil.rmtree(place.root)
    away.rename(place.root)
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        await opened.survey(inbox, position)
        assert set(await fetched(opened, inbox, "1.a", "1.b")) == {"1.a", "1.b"}


async def test_other_directory_with_mail_in_it_is_listed_whole(place: Place) -> None:
    place.put("1.a")
    place.quieten()
    async with place.session() as opened:
        _, position = await listed(opened, await opened.open("INBOX"))
    another_in_its_place(place, "2.x", "2.y")
    # A copy may have the time stamps of what it is a copy of.
    place.quieten()
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        survey = await opened.survey(inbox, position)
        assert [ref.uid for ref in survey.familiar] == ["2.x", "2.y"]
        assert (await listed(opened, inbox, position))[0] == ["2.x", "2.y"]


async def test_directory_that_was_emptied_is_empty(place: Place) -> None:
    file = place.put("1.a")
    async with place.session() as opened:
        _, position = await listed(opened, await opened.open("INBOX"))
    file.unlink()
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        assert not (await opened.survey(inbox, position)).familiar
        shown, position = await listed(opened, inbox, position)
        assert shown == []
    # What was empty when it was listed last may be so anywhere.
    another_in_its_place(place)
    async with place.session() as opened:
        assert (await listed(opened, await opened.open("INBOX"), position))[0] == []


async def test_directory_that_is_put_there_while_a_session_lasts_ends_it(place: Place) -> None:
    place.put("1.a")
    for ask in range(5):
        async with place.session() as opened:
            inbox = await opened.open("INBOX")
            _, position = await listed(opened, inbox)
            away = another_in_its_place(place, "1.b")
            with pytest.raises(SessionLost, match="another directory"):
                match ask:
                    case 0:
                        await listed(opened, inbox, position)
                    case 1:
                        await fetched(opened, inbox, "1.b")
                    case 2:
                        await settled(opened, inbox, "1.a", delete=True)
                    case 3:
                        await looked(opened, inbox, "1.a")
                    case _:
                        await listed(opened, inbox)
        shutil.rmtree(place.root)
        away.rename(place.root)
    assert (place.root / "new/1.a").exists()


async def test_store_that_is_put_back_shows_what_its_names_bear(place: Place, tmp_path: Path) -> None:
    place.put("1.a", b"Subject: old\r\n\r\n")
    async with place.session() as opened:
        _, position = await listed(opened, await opened.open("INBOX"))
    shutil.copytree(place.root, tmp_path / "copy")
    shutil.rmtree(place.root)
    (tmp_path / "copy").rename(place.root)
    file = place.put("1.a", b"Subject: another mail\r\n\r\n")
    os.utime(file, (LONG_AGO, LONG_AGO))
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        (ref,) = (await opened.survey(inbox, position)).familiar
        assert (ref.uid, ref.size, ref.received) == ("1.a", 25, datetime.fromtimestamp(LONG_AGO, UTC))
        assert list(await opened.look([MessageRef(inbox, "1.a")])) == [ref]


async def test_quiet_store_is_not_listed_for_a_survey(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("1.a")
    async with place.session() as opened:
        _, position = await listed(opened, await opened.open("INBOX"))
    monkeypatch.setattr("mailpoller.sources.maildir.directory.scan", None)
    async with place.session() as opened:
        survey = await opened.survey(await opened.open("INBOX"), position)
        assert not survey.familiar
        assert survey.position is None


async def test_look_finds_what_was_renamed_and_what_came_back(place: Place) -> None:
    file = place.put("1.a")
    place.put("1.b")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        await listed(opened, inbox)
        away = place.root.with_name("1.b")
        (place.root / "new/1.b").rename(away)
        file.rename(place.root / "cur/1.a:2,S")
        assert await looked(opened, inbox, "1.b", "1.a", "1.c") == [None, "1.a", None]
        away.rename(place.root / "cur/1.b:2,")
        assert await looked(opened, inbox, "1.b", "1.a") == ["1.b", "1.a"]


async def test_look_shows_no_link_and_no_pipe(place: Place, tmp_path: Path) -> None:
    file = place.put("1.a")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        await listed(opened, inbox)
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
        assert await looked(opened, inbox, "1.a") == [None]


async def test_dated_listing_costs_a_look_at_each_file_and_others_do_not(place: Place) -> None:
    os.utime(place.put("1.a,S=17"), (LONG_AGO, LONG_AGO))
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        for start, received in (
            (Start("all"), None),
            (Start("all", dated=True), datetime.fromtimestamp(LONG_AGO, UTC)),
        ):
            pages = [page async for page in opened.pending(inbox, None, start)]
            assert [ref.received for page in pages for ref in page.refs] == [received]


@pytest.mark.parametrize("disposition", [Disposition(delete=True), Disposition(seen=True), Disposition(move="Done")])
async def test_file_system_that_says_yes_and_does_nothing_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, disposition: Disposition
) -> None:
    place.put("1.a")
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        await listed(opened, inbox)
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
        monkeypatch.setattr(Path, "rename", lambda *_, **__: None)
        told = SealedSettlement(MessageRef(inbox, "1.a"), "mid", "delivered", disposition)
        done: Sequence[Disposed] = await opened.settle([told])
        assert [one.state for one in done] == ["failed"]
        assert "file system says" in done[0].reason
    assert (place.root / "new/1.a").exists()


async def read(place: Place, uid: str, limit: int = 1 << 20) -> RawMessage:
    async with place.session() as opened:
        inbox = await opened.open("INBOX")
        (answer,) = [one async for one in opened.fetch([Claim(MessageRef(inbox, uid), "mid")], limit)]
    assert isinstance(answer, RawMessage)
    answer.octets.close()
    return answer


async def test_empty_file_is_in_doubt(place: Place) -> None:
    place.put("1.a", b"")
    assert "empty" in (await read(place, "1.a")).doubt


@pytest.mark.parametrize("size", [40_000, 500_000])
async def test_file_that_changes_while_it_is_read_is_in_doubt(
    place: Place, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    file = place.put("1.a", bytes(300_000))
    assert (await read(place, "1.a")).doubt == ""
    assert (await read(place, "1.a", 10)).doubt == ""
    whole = os.read

    def reading(descriptor: int, count: int) -> bytes:
        chunk = whole(descriptor, count)
        os.truncate(file, size)
        return chunk

    monkeypatch.setattr("mailpoller.sources.maildir.folder.os.read", reading)
    assert "changed" in (await read(place, "1.a")).doubt


def test_position_of_an_older_version_keeps_what_it_knows() -> None:
    old = Position("1 00112233aabbccdd 1700000000000000000 - AAAAAAAAAAE=")
    reached = Reached.parse(old)
    assert reached == Reached(1_700_000_000_000_000_000, None, frozenset([bytes(7) + b"\1"]))
    assert not reached.replaced(Stamps(1, 1, 1, 1, (1, 1)))


def test_position_is_read_as_it_was_written() -> None:
    reached = Reached(None, 5, frozenset([b"12345678"]), (17, 18), 9)
    assert Reached.parse(reached.write()) == reached
