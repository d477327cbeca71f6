"""POP3 on real servers whose names change, whose store is put back, and which give something else in place of a
mail."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.message import Position, RawMessage, Survey
from mailpoller.core.ports import Session
from mailpoller.testing.builders import plain
from servers import courier
from servers.dovecot import Dovecot
from servers.mailboxes import claims_of, fetched, listed, session_of, settled
from servers.pop3_mailboxes import pop3_source

BEFORE, AFTER = "%08Xu%08Xv", "%v.%u"
DELETE = Disposition(delete=True)

_numbers = itertools.count()


@pytest.fixture
def dovecot() -> Iterator[Dovecot]:
    with Dovecot(pop3=True, extra=f"protocol pop3 {{\n  pop3_uidl_format = {BEFORE}\n}}\n") as server:
        yield server


@pytest.fixture
def user() -> str:
    return f"named{next(_numbers)}"


def renamed(dovecot: Dovecot, before: str, after: str) -> None:
    """The server is upgraded: other names for the same messages."""
    dovecot.stop()
    file = dovecot.directory / "dovecot.conf"
    file.write_text(file.read_text("utf-8").replace(before, after), "utf-8")
    dovecot.start()


async def surveyed(session: Session, position: Position | None) -> Survey:
    return await session.survey(await session.open("INBOX"), position)


async def test_other_names_for_the_same_messages_are_all_told_in_one_whole_survey(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver_all(user, [plain(subject=f"mail {number}", text="x" * number) for number in range(30)])
    source = pop3_source(tmp_path, dovecot.pop3_port, user)
    async with session_of(source) as session:
        first = await surveyed(session, None)
        refs, position = await listed(session, first.familiar[0].folder)
    renamed(dovecot, BEFORE, AFTER)
    try:
        async with session_of(source) as session:
            second = await surveyed(session, position)
            again, _ = await listed(session, refs[0].folder, position)
    finally:
        renamed(dovecot, AFTER, BEFORE)
    assert first.whole
    assert second.whole
    assert not {ref.uid for ref in first.familiar} & {ref.uid for ref in second.familiar}
    assert [ref.size for ref in first.familiar] == [ref.size for ref in second.familiar]
    assert list(again) == list(second.familiar)


@pytest.mark.parametrize("running", [True, False], ids=["while-we-run", "while-we-are-down"])
async def test_after_the_store_was_put_back_a_name_with_another_bearer_is_not_deleted_for_the_former_one(
    dovecot: Dovecot, user: str, tmp_path: Path, running: bool
) -> None:
    dovecot.deliver_all(user, [plain(subject="first"), plain(subject="second")])
    copy = tmp_path / "copy"
    source = pop3_source(tmp_path, dovecot.pop3_port, user)
    async with session_of(source) as session:
        await listed(session, await session.open("INBOX"))  # so that the copy has the numbers
        await session.wait(timedelta(0))
        box = dovecot.maildir(user)
        shutil.copytree(box, copy)
        dovecot.deliver(user, plain(subject="third"))
        refs, position = await listed(session, await session.open("INBOX"))
        await fetched(session, claims_of(refs))
        await session.wait(timedelta(0))
        dovecot.stop()
        shutil.rmtree(box)
        shutil.copytree(copy, box)
        for path in (box, *box.rglob("*")):
            shutil.chown(path, *dovecot._owner)
        dovecot.start()
        dovecot.deliver(user, plain(subject="another third one, and longer"))
        if running:
            await _deletes_what_it_was(session, refs, position)
    if not running:
        source = pop3_source(tmp_path, dovecot.pop3_port, user)
        async with session_of(source) as session:
            await _deletes_what_it_was(session, refs, position)
    files = [file.read_bytes() for file in box.glob("[cn]*/*")]
    assert len(files) == 1
    assert b"another third one" in files[0]


async def _deletes_what_it_was(session: Session, refs: list, position: Position | None) -> None:  # type: ignore[type-arg]
    folder = await session.open("INBOX")
    survey = await session.survey(folder, position)
    assert [ref.uid for ref in survey.familiar] == [ref.uid for ref in refs], "the same names"
    assert [ref.size == now.size for ref, now in zip(refs, survey.familiar, strict=True)] == [True, True, False]
    again, _ = await listed(session, folder, position)
    assert refs[2].uid in [ref.uid for ref in again], "told again"
    looked = await session.look(refs)
    assert [now is not None and now.size == ref.size for ref, now in zip(refs, looked, strict=True)] == [
        True,
        True,
        False,
    ]
    done = await session.settle(settled(refs, DELETE))
    assert "looked at" in done[2].reason
    await session.wait(timedelta(0))


UNICODE = "From: a@example.com\r\nSubject: Grüße\r\nMessage-ID: <1@example.com>\r\n\r\nhällo\r\n".encode()


@pytest.mark.skipif(not courier.installed, reason="no Courier at hand: see tests/servers/courier.py")
async def test_courier_gives_mail_with_utf8_in_its_header_as_it_is_once_it_is_told_that_we_take_it(
    tmp_path: Path,
) -> None:
    shown = {}
    for utf8 in (False, True):
        async with courier.Courier(tmp_path, utf8=utf8) as server:
            box = server.maildir("joe")
            for part in ("cur", "new", "tmp"):
                (box / part).mkdir(parents=True, exist_ok=True)
            if not utf8:
                (box / "new" / "1700000001.M1P1.mail").write_bytes(UNICODE.replace(b"\r\n", b"\n"))
                (box / "new" / "1700000002.M2P1.mail").write_bytes(b"Subject: plain\n\nhello\n")
            source = pop3_source(tmp_path, server.port, "joe", auth={"mechanism": "user"})
            async with session_of(source) as session:
                refs, _ = await listed(session, await session.open("INBOX"))
                answers = await fetched(session, claims_of(refs))
                found = {one.claim.ref.uid: one for one in answers if isinstance(one, RawMessage)}
                assert len(found) == 2
                shown[utf8] = [(ref.uid, ref.size) for ref in refs]
                first, second = found[refs[0].uid], found[refs[1].uid]
                assert second.doubt == ""
                if utf8:
                    assert (bytes(first.octets.view()), first.doubt) == (UNICODE, "")
                else:
                    assert "in place of the message" in first.doubt
                    assert b"Cannot display Unicode content" in bytes(first.octets.view())
    assert shown[False] == shown[True], "the names and sizes are the same, so nothing is delivered again for it"
