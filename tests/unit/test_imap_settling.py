"""OK is no evidence: what a server says that it did is compared with what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposed, Disposition
from mailpoller.core.ports import Source
from servers.mailboxes import imap_source, listed, session_of, settled
from servers.scripted import CAPABILITIES, Conversation, ScriptedImap

MOVE = Disposition(move="Done")
DELETE = Disposition(delete=True)
WITHOUT_MOVE = CAPABILITIES.replace(" MOVE", "")


def numbered(count: int) -> dict[int, bytes]:
    return {uid: b"Subject: %d\r\n\r\n" % uid for uid in range(1, count + 1)}


async def settle(source: Source, disposition: Disposition, chosen: Sequence[int] | None = None) -> list[Disposed]:
    async with session_of(source) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        return list(
            await session.settle(settled([ref for ref in refs if not chosen or int(ref.uid) in chosen], disposition))
        )


def states(done: Sequence[Disposed]) -> list[str]:
    return [one.state for one in done]


def still_there(done: Sequence[Disposed]) -> list[bool]:
    return [one.state == "failed" and "still there" in one.reason for one in done]


# --- an honest server ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("capabilities", [CAPABILITIES, WITHOUT_MOVE])
@pytest.mark.parametrize("disposition", [MOVE, DELETE, Disposition(seen=True, flags=("$Done",), move="Done")])
async def test_what_is_done_is_applied(tmp_path: Path, capabilities: str, disposition: Disposition) -> None:
    async with ScriptedImap(messages=numbered(3), capabilities=capabilities) as server:
        done = await settle(imap_source(tmp_path, server.port, "joe"), disposition)
        assert states(done) == ["applied"] * 3
        assert (server.messages, len(server.elsewhere.get("Done", ()))) == ({}, 3 if disposition.move else 0)


async def test_the_look_behind_a_command_waits_for_nothing(tmp_path: Path) -> None:
    def slow(conversation: Conversation, tag: str, arguments: str) -> bytes:
        # What is not on the line already when the first answer is given comes a round trip later.
        held = bytes(conversation.reader._buffer)  # type: ignore[attr-defined]
        together.append(held.count(b"\r\n"))
        answer = server._store(conversation, tag, arguments)
        assert answer is not None
        return answer

    together: list[int] = []
    async with ScriptedImap({"STORE": slow}, messages=numbered(3)) as server:
        assert (
            states(await settle(imap_source(tmp_path, server.port, "joe"), Disposition(seen=True))) == ["applied"] * 3
        )
        assert together == [2]


# --- servers that lie ------------------------------------------------------------------------------------------------
async def test_a_move_that_is_ok_and_moved_nothing_has_failed(tmp_path: Path) -> None:
    async with ScriptedImap({"MOVE": b"%T OK MOVE completed\r\n"}, messages=numbered(3)) as server:
        assert still_there(await settle(imap_source(tmp_path, server.port, "joe"), MOVE)) == [True] * 3


async def test_of_a_move_that_removed_one_message_only_that_one_is_applied(tmp_path: Path) -> None:
    def move(conversation: Conversation, tag: str, arguments: str) -> bytes:
        server.messages.pop(2, None)
        return b"* OK [COPYUID 5 1:3 11:13] copied\r\n* 2 EXPUNGE\r\n%T OK done\r\n"

    async with ScriptedImap({"MOVE": move}, messages=numbered(3)) as server:
        done = await settle(imap_source(tmp_path, server.port, "joe"), MOVE)
        assert (states(done), still_there(done)) == (["failed", "applied", "failed"], [True, False, True])


async def test_a_flag_that_is_ok_and_not_set_has_failed(tmp_path: Path) -> None:
    async with ScriptedImap({"STORE": b"%T OK done\r\n"}, messages=numbered(2)) as server:
        done = await settle(imap_source(tmp_path, server.port, "joe"), Disposition(seen=True))
        assert {(one.state, "\\Seen is not set" in one.reason) for one in done} == {("failed", True)}


@pytest.mark.parametrize(
    "search", [b"* SEARCH\r\n%T OK\r\n", b"%T OK\r\n", b"%T BAD what?\r\n", b"* SEARCH x\r\n%T OK\r\n"]
)
async def test_a_search_that_says_that_no_flag_is_lacking_is_not_believed_alone(tmp_path: Path, search: bytes) -> None:
    async with ScriptedImap({"STORE": b"%T OK done\r\n", "SEARCH": search}, messages=numbered(3)) as server:
        server.flags = {2: {"\\Seen"}}
        done = await settle(imap_source(tmp_path, server.port, "joe"), Disposition(seen=True))
        assert states(done) == ["failed", "applied", "failed"]


async def test_of_a_flag_that_was_set_on_some_messages_the_others_have_failed(tmp_path: Path) -> None:
    def store(conversation: Conversation, tag: str, arguments: str) -> bytes:
        server.flags = {1: {"\\Seen", "$Done"}, 2: {"$Done"}, 3: {"\\Seen", "$Done"}}
        return b"%T OK done\r\n"

    async with ScriptedImap({"STORE": store}, messages=numbered(3)) as server:
        done = await settle(imap_source(tmp_path, server.port, "joe"), Disposition(seen=True, flags=("$Done",)))
        assert states(done) == ["applied", "failed", "applied"]
        assert any("OR UNSEEN UNKEYWORD $Done" in line for line in server.lines)


async def test_a_flag_is_set_in_whatever_case_the_server_writes_it(tmp_path: Path) -> None:
    async with ScriptedImap({"STORE": b"%T OK done\r\n"}, messages=numbered(2)) as server:
        server.flags = {1: {"\\SEEN", "$done"}, 2: {"\\seen", "$DONE"}}
        done = await settle(imap_source(tmp_path, server.port, "joe"), Disposition(seen=True, flags=("$Done",)))
        assert states(done) == ["applied"] * 2


@pytest.mark.parametrize("lie", ["STORE", "EXPUNGE"])
async def test_a_deletion_that_is_ok_and_deleted_nothing_has_failed(tmp_path: Path, lie: str) -> None:
    async with ScriptedImap({lie: b"%T OK done\r\n"}, messages=numbered(3)) as server:
        assert still_there(await settle(imap_source(tmp_path, server.port, "joe"), DELETE)) == [True] * 3


async def test_without_uidplus_the_mark_has_to_be_seen(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(2), capabilities="IMAP4rev1") as server:
        source = imap_source(tmp_path, server.port, "joe")
        done = await settle(source, DELETE)
        assert {(one.state, "marked as deleted" in one.reason) for one in done} == {("applied", True)}
        server.script["STORE"], server.flags = b"%T OK done\r\n", {}
        assert states(await settle(source, DELETE)) == ["failed"] * 2


@pytest.mark.parametrize(
    "answer",
    [b"%T OK done\r\n", b"%T OK [COPYUID 1 2 9] done\r\n"],
)
async def test_an_original_is_not_deleted_on_the_word_that_it_was_copied(tmp_path: Path, answer: bytes) -> None:
    async with ScriptedImap({"COPY": answer}, messages=numbered(3), capabilities=WITHOUT_MOVE) as server:
        server.elsewhere["Done"] = {7: b"Subject: another\r\n\r\n"}
        done = await settle(imap_source(tmp_path, server.port, "joe"), MOVE)
        told = b"COPYUID" in answer  # of message 2
        assert states(done) == ["failed", "applied" if told else "failed", "failed"]
        assert sorted(server.messages) == ([1, 3] if told else [1, 2, 3])


@pytest.mark.parametrize("status", [True, False])
async def test_a_copy_without_a_word_is_believed_when_the_target_shows_it(tmp_path: Path, status: bool) -> None:
    def copy(conversation: Conversation, tag: str, arguments: str) -> bytes:
        server.copied(arguments)
        return b"%T OK done\r\n"

    script = {"COPY": copy} if status else {"COPY": copy, "STATUS": b"%T NO\r\n"}
    async with ScriptedImap(script, messages=numbered(3), capabilities=WITHOUT_MOVE) as server:  # type: ignore[arg-type]
        server.elsewhere["Done"] = {}
        assert states(await settle(imap_source(tmp_path, server.port, "joe"), MOVE)) == ["applied"] * 3
        assert (server.messages, len(server.elsewhere["Done"])) == ({}, 3)
        assert bool(server.asked("EXAMINE")) == (not status)


# --- a copy and a refusal --------------------------------------------------------------------------------------------
def copying(server: ScriptedImap, verb: str) -> None:
    """Let the server copy, and say no."""

    def refuse(conversation: Conversation, tag: str, arguments: str) -> bytes:
        server.copied(arguments)
        return b"%T NO [SERVERBUG] something went wrong\r\n"

    server.script[verb] = refuse
    server.elsewhere["Done"] = {}


@pytest.mark.parametrize(("verb", "capabilities"), [("MOVE", CAPABILITIES), ("COPY", WITHOUT_MOVE)])
async def test_a_refusal_after_a_copy_piles_up_no_copies(tmp_path: Path, verb: str, capabilities: str) -> None:
    async with ScriptedImap(messages=numbered(3), capabilities=capabilities) as server:
        copying(server, verb)
        source = imap_source(tmp_path, server.port, "joe")
        assert states(await settle(source, MOVE)) == ["applied"] * 3  # what was left to do is done
        assert (server.messages, len(server.elsewhere["Done"])) == ({}, 3)


async def test_a_copy_whose_original_cannot_be_removed_is_not_made_again(tmp_path: Path) -> None:
    async with ScriptedImap({"EXPUNGE": b"%T NO [SERVERBUG] no\r\n"}, messages=numbered(3)) as server:
        copying(server, "MOVE")
        source = imap_source(tmp_path, server.port, "joe")
        for _ in range(3):
            assert not {"applied"} & set(states(await settle(source, MOVE)))
            assert len(server.elsewhere["Done"]) == 3
        del server.script["EXPUNGE"]
        assert states(await settle(source, MOVE)) == ["applied"] * 3
        assert (server.messages, len(server.elsewhere["Done"])) == ({}, 3)


async def test_a_message_that_was_not_copied_is_moved_alone_and_stops_no_other(tmp_path: Path) -> None:
    def move(conversation: Conversation, tag: str, arguments: str) -> bytes:
        if 2 in server._chosen(arguments.split(" ")[0]):
            return b"%T NO message 2 is broken\r\n"
        answer = server._move(conversation, tag, arguments)
        assert answer is not None
        return answer

    async with ScriptedImap({"MOVE": move}, messages=numbered(3)) as server:
        server.elsewhere["Done"] = {}
        done = await settle(imap_source(tmp_path, server.port, "joe"), MOVE)
        assert states(done) == ["applied", "failed", "applied"]
        assert (sorted(server.messages), len(server.elsewhere["Done"])) == ([2], 2)


async def test_where_it_cannot_be_told_nothing_is_copied_again(tmp_path: Path) -> None:
    async with ScriptedImap({"EXAMINE": b"%T NO not you\r\n"}, messages=numbered(3)) as server:
        copying(server, "MOVE")
        source = imap_source(tmp_path, server.port, "joe")
        for state in ("pending", "failed", "failed"):
            assert set(states(await settle(source, MOVE))) == {state}
        assert len(server.elsewhere["Done"]) == 3
        assert sorted(server.messages) == [1, 2, 3]


async def test_the_folder_itself_by_another_name_is_no_copy(tmp_path: Path) -> None:
    async with ScriptedImap({"MOVE": b"%T NO already there\r\n"}, messages=numbered(3)) as server:
        assert set(states(await settle(imap_source(tmp_path, server.port, "joe"), MOVE))) == {"failed"}
        assert sorted(server.messages) == [1, 2, 3]


async def test_mail_goes_on_in_the_folder_after_another_one_was_looked_into(tmp_path: Path) -> None:
    async with ScriptedImap(messages=numbered(3)) as server:
        copying(server, "MOVE")
        async with session_of(imap_source(tmp_path, server.port, "joe")) as session:
            folder = await session.open("INBOX")
            refs, position = await listed(session, folder)
            await session.settle(settled(refs[:2], MOVE))
            server.messages[4] = b"Subject: 4\r\n\r\n"
            server.script["NOOP"] = b"* 2 EXISTS\r\n%T OK\r\n"
            refs, _ = await listed(session, await session.open("INBOX"), position)
            assert [ref.uid for ref in refs] == ["4"]
            assert [ref is not None for ref in await session.look(refs)] == [True]
