"""What a server can cost us is bounded in sum: by what was asked for, and by one budget for what was not."""

from __future__ import annotations

import asyncio
import random
import time
import tracemalloc
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.ports import Start, Wake
from mailpoller.sources.imap.details import Order, merged, within
from mailpoller.sources.imap.listing import _gaps
from mailpoller.wire import unasked
from mailpoller.wire.imap import protocol as protocol_module
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.reader import MAX_EARLY, TURN, ProtocolViolation, ResponseReader
from mailpoller.wire.imap.responses import Fetched, read_values
from mailpoller.wire.imap.search import hits
from mailpoller.wire.imap.uids import MAX_UIDS, count_set, read_set
from mailpoller.wire.unasked import Allowance
from pace import paced
from servers.mailboxes import claims_of, fetched, imap_source, session_of
from servers.scripted import Conversation, ScriptedImap
from waiting import until


@contextmanager
def at_most(octets: int) -> Iterator[None]:
    """What is done here takes no more memory than that at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < octets
    finally:
        tracemalloc.stop()


# --- one answer ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("octets", [rb"\x" * 60_000, b"x" * 120_000, rb"\\" * 60_000])
def test_quoted_string_costs_little_more_than_its_octets(octets: bytes) -> None:
    with at_most(12_000_000):  # what takes the backslashes away has some of it
        (_, _, value) = read_values([b'* X "' + octets + b'"'])
    assert isinstance(value, bytes) and len(value) in (60_000, 120_000)


@pytest.mark.parametrize("closed", [b'"', b""])
def test_quoted_string_that_goes_back_for_nothing_is_read_in_no_time(closed: bytes) -> None:
    began = time.thread_time()
    read_values([b'* X "' + rb"\"" * 100_000 + closed])
    assert time.thread_time() - began < paced(1)


@pytest.mark.parametrize("octets", [b"()" * 200_000, b"a " * 200_000, b'"" ' * 200_000, b'"' + b"x" * 300_000 + b'"'])
def test_response_of_too_many_words_or_too_long_ones_is_refused(octets: bytes) -> None:
    with at_most(40_000_000), pytest.raises(ProtocolViolation, match="too many words"):
        read_values([b"* LIST (" + octets + b")"])


def test_pieces_of_a_search_add_up_before_they_are_expanded() -> None:
    piece = b'* ESEARCH (TAG "A1") UID ALL 1:%d' % (MAX_UIDS // 2)
    assert len(hits([[piece]] * 2)) == MAX_UIDS // 2 * 2
    with at_most(4 * MAX_UIDS + 12_000_000), pytest.raises(ProtocolViolation, match="more than"):
        hits([[piece]] * 50)
    with at_most(1_000_000), pytest.raises(ProtocolViolation, match="more than"):
        hits([[b'* ESEARCH (TAG "A1") UID ALL 1:4294967295']])
    few = [[b"* SEARCH " + b"7 " * 1000]] * (MAX_UIDS // 1000 + 1)
    with pytest.raises(ProtocolViolation, match="more than"):
        hits(few)  # type: ignore[arg-type]


def test_set_is_counted_without_being_expanded() -> None:
    with at_most(1_000_000):
        assert count_set(b"1:4294967295,7") == 4294967296
    with pytest.raises(ProtocolViolation, match="no uid"):
        count_set(b"1::2")


def test_long_set_is_read_to_its_end() -> None:
    words = b",".join(b"%d" % uid for uid in range(1, 100_001, 2)) + b",200000:200009"
    assert list(read_set(words)) == [*range(1, 100_001, 2), *range(200_000, 200_010)]


# --- a connection ----------------------------------------------------------------------------------------------------
class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.paused = self.cut = False
        self.written = b""

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written += data

    def abort(self) -> None:
        self.cut = True


def connected(*, late: bool = True) -> tuple[ImapProtocol, Wire]:
    protocol, wire = ImapProtocol(asyncio.get_running_loop(), 30.0), Wire()
    protocol.connection_made(wire)
    protocol.data_received(b"* OK ready\r\n")
    if late:
        protocol.logged_in()
    return protocol, wire


async def test_line_before_the_login_is_short() -> None:
    protocol, wire = connected(late=False)
    protocol.data_received(b"* OK " + b"x" * MAX_EARLY)
    assert wire.cut and "before the login" in (protocol.lost or "")


@pytest.mark.parametrize("octets", [b"* X {9000}\r\n", b"* X {4000}\r\n" + b"x" * 4000 + b" {4090}\r\n"])
async def test_literals_before_the_login_are_short(octets: bytes) -> None:
    protocol, _ = connected(late=False)
    protocol.data_received(octets)
    assert protocol.lost is not None


UNASKED = [
    b"* OK still here\r\n",
    b"* 5 EXISTS\r\n",
    b"* 1 FETCH (FLAGS (\\Seen))\r\n",
    b"* 1 EXPUNGE\r\n",
    b'* LIST () "/" x\r\n',
    b"* VANISHED 1:4294967295\r\n",
    b"* CAPABILITY IMAP4rev1\r\n",
    b"+ go on\r\n",
    b"\r\n",
]


@pytest.mark.parametrize("response", UNASKED)
async def test_what_nobody_asked_for_has_one_budget(response: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked, "AT_ONCE", 50_000)
    monkeypatch.setattr("mailpoller.wire.imap.reader.MAX_BLANK", 500)
    protocol, wire = connected()
    for _ in range(20):
        protocol.data_received(response * 10)
    assert protocol.lost is None
    for _ in range(100):
        protocol.data_received(response * 10)
        await asyncio.sleep(0)
    assert wire.cut and protocol.lost is not None


async def test_budget_before_the_login_is_a_small_one() -> None:
    protocol, _ = connected(late=False)
    for _ in range(100):
        protocol.data_received(b"* OK\r\n" * 10)
    assert "nobody asked for" in (protocol.lost or "")


async def test_copies_that_nobody_can_have_made_are_not_listed() -> None:
    protocol, _ = connected()
    moving = protocol.submit("MOVE", "1:3", '"there"', within=select(protocol))
    with at_most(1_000_000):
        protocol.data_received(b"* OK [COPYUID 7 1:1999999 1:1999999] ok\r\n" * 2)
    assert "nobody asked for" in (protocol.lost or "") and len(moving.copied) == 0


def select(protocol: ImapProtocol) -> object:
    protocol.state = "SELECTED"
    return protocol.mailbox


@pytest.mark.parametrize("words", ["1:500", "*", "900:*", "7"])
async def test_fetch_is_not_answered_by_more_than_there_can_be(words: str) -> None:
    protocol, _ = connected()
    protocol.data_received(b"* 1000000 EXISTS\r\n* OK [UIDNEXT 1000] next\r\n")
    protocol.mailbox.arrived = 0  # as SELECT has it
    mailbox = select(protocol)
    protocol.submit("FETCH", words, "(UID FLAGS)", within=mailbox, on_fetch=lambda fetched: True)
    protocol.data_received(b"* 4294967295 EXISTS\r\n* OK [UIDNEXT 4294967295] next\r\n")  # what it says later
    for _ in range(70):
        protocol.data_received(b"* 1 FETCH (UID 1 FLAGS ())\r\n" * 50)
        await asyncio.sleep(0)
    assert "fewer messages" in (protocol.lost or "")


async def test_fetch_of_a_whole_folder_may_be_answered_by_all_of_it() -> None:
    protocol, _ = connected()
    protocol.data_received(b"* 5000 EXISTS\r\n")
    mailbox = select(protocol)
    shown: list[object] = []
    protocol.submit("FETCH", "1:*", "(UID)", within=mailbox, on_fetch=lambda fetched: shown.append(fetched) is None)
    for number in range(1, 5001):
        protocol.data_received(b"* %d FETCH (UID %d)\r\n" % (number, number))
    assert protocol.lost is None and len(shown) == 5000


async def test_what_may_be_an_answer_to_a_fetch_is_none_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked, "AT_ONCE", 50_000)
    protocol, _ = connected()
    protocol.data_received(b"* 5000 EXISTS\r\n")
    mailbox, order = select(protocol), Order(2)
    protocol.submit("FETCH", "2:*", "(UID)", within=mailbox, on_fetch=order.note)
    for number in range(1, 5001):
        protocol.data_received(b"* %d FETCH (UID %d)\r\n" % (number, 2 * number))
    assert protocol.lost is None and len(order.sort().uids) == 5000
    assert (order.number(20), order.number(21), order.last) == (10, 0, 5000)


def test_order_that_is_none_is_put_right() -> None:
    order = Order(1, 100)
    for number, uid in [(3, 30), (1, 10), (2, 20), (2, 20), (9, 900)]:
        assert not order.note(Fetched(str(uid), number=number))
    assert list(order.sort().uids) == [10, 20, 30]
    assert [order.number(uid) for uid in (10, 20, 30, 900)] == [1, 2, 3, 0]


async def test_uids_are_put_in_order_each_once() -> None:
    assert list(within(array("I", [5, 3, 3, 9, 1]), 2, 8)) == [3, 5]
    assert list(within(array("I", [1, 3, 5, 9]), 2, 8)) == [3, 5]
    assert list(await merged(array("I", [1, 3]), array("I"), array("I", [2, 3, 4]))) == [1, 2, 3, 4]
    shuffled = array("I", random.Random(1).sample(range(1, 400_001), 200_000))
    with at_most(200_000 * 60):
        assert len(within(shuffled, 1, 400_000)) == 200_000


async def test_gaps_without_number_are_one_in_the_end() -> None:
    order = Order()
    for uid in range(2, 10_000, 2):
        order.note(Fetched(str(uid), number=uid))
    gaps, reached, count = await _gaps(order.sort().uids, order, 1, 0)
    assert len(gaps) == 1000 and (gaps[0].low, gaps[-1].high) == (1, 9997)
    assert sum(gap.missing for gap in gaps) == 4999 and (reached, count) == (9998, 9998)


async def test_others_have_their_turn_between_many_responses() -> None:
    protocol, wire = connected()
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if protocol.mailbox.exists < 10 * TURN:
            asyncio.get_running_loop().call_soon(turn)

    turn()
    protocol.data_received(b"".join(b"* %d EXISTS\r\n" % number for number in range(1, 10 * TURN + 1)))
    assert wire.paused and protocol.mailbox.exists == TURN
    await until(lambda: protocol.mailbox.exists == 10 * TURN)
    assert turns >= 9 and protocol.mailbox.exists == 10 * TURN and not wire.paused


def test_small_messages_are_dealt_with_in_turns() -> None:
    taken: list[bytes] = []
    shape = b'* 1 FETCH (UID %d FLAGS () INTERNALDATE " 1-Feb-2026 03:04:05 +0000" BODY[] {2}\r\nhi)\r\n'
    octets = b"".join(shape % uid for uid in range(1, 2 * TURN))
    reader = ResponseReader(
        lambda response: None, lambda line, size: None, lambda uid, flags, date, octets: taken.append(uid) is None
    )
    at = reader.feed(octets)
    assert len(taken) == TURN // 4 and octets[at:].startswith(b"* 1 FETCH (UID %d " % (TURN // 4 + 1))
    while at < len(octets):
        at += reader.feed(octets[at:])
    assert len(taken) == 2 * TURN - 1


async def test_last_words_behind_many_responses_are_heard() -> None:
    protocol, _ = connected()
    protocol.data_received(b"* 5 EXISTS\r\n" * 3 * TURN + b"* BYE go home\r\n")
    protocol.connection_lost(None)
    assert "go home" in (protocol.lost or "")


@pytest.mark.parametrize("error", [KeyError("a secret"), OverflowError("a secret"), RecursionError("a secret")])
async def test_whatever_a_reader_raises_ends_the_connection_with_its_name(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(response: object) -> None:
        raise error

    monkeypatch.setattr(protocol_module, "read_fetch", stumble)
    protocol, wire = connected()
    request = protocol.submit("NOOP")
    protocol.data_received(b"* 1 FETCH (FLAGS ())\r\n")
    assert wire.cut
    with pytest.raises(SessionLost, match=type(error).__name__) as lost:
        await request.answer()
    assert "secret" not in str(lost.value)


async def test_capabilities_are_no_more_than_can_be() -> None:
    protocol, _ = connected()
    protocol.data_received(b"* CAPABILITY" + b"".join(b" X%d" % number for number in range(100_000)) + b"\r\n")
    assert len(protocol.capabilities) <= MAX_EARLY // 2


async def test_what_is_told_of_downgraded_messages_is_told_ten_times() -> None:
    protocol, _ = connected()
    told: list[str] = []
    protocol.on_downgrade = told.append
    protocol.data_received(b"* OK [DOWNGRADED 1] ok\r\n" * 100)
    assert len(told) == 10


# --- a session -------------------------------------------------------------------------------------------------------
async def test_news_that_lead_to_nothing_are_told_ever_more_seldom(tmp_path: Path) -> None:
    def idle(conversation: Conversation, tag: str, arguments: str) -> bytes:
        conversation.idle_tag = tag
        return b"+ idling\r\n* 1 EXISTS\r\n"

    script = {"IDLE": idle, "DONE": b"* 0 EXISTS\r\n%T OK done\r\n"}
    async with (
        ScriptedImap(script) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        folder = await session.open("INBOX")
        told = 0
        ends = asyncio.get_running_loop().time() + 1.2
        while (left := ends - asyncio.get_running_loop().time()) > 0:
            if await session.wait(timedelta(seconds=left)) is Wake.NEWS:
                told += 1
                async for _ in session.pending(folder, None, Start("all")):
                    pass
        assert 2 <= told <= 6


async def test_news_of_messages_that_never_come_lead_to_nothing(tmp_path: Path) -> None:
    def idle(conversation: Conversation, tag: str, arguments: str) -> bytes:
        conversation.idle_tag = tag
        server.messages[len(server.messages) + 1] = b"Subject: hello\r\n\r\n"
        return b"+ idling\r\n* %d EXISTS\r\n" % len(server.messages)

    async with ScriptedImap({"IDLE": idle}) as server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        folder, position = await session.open("INBOX"), None
        ends = asyncio.get_running_loop().time() + 1.2
        while (left := ends - asyncio.get_running_loop().time()) > 0:
            await session.wait(timedelta(seconds=left))
            async for page in session.pending(folder, position, Start("all")):
                position = page.position or position
        assert len(server.messages) <= 8


async def test_news_that_lead_to_mail_are_told_at_once_however_many(tmp_path: Path) -> None:
    async with ScriptedImap() as server, session_of(imap_source(tmp_path, server.port, "joe")) as session:
        folder, position = await session.open("INBOX"), None
        began = time.monotonic()
        for uid in range(1, 31):
            server.messages[uid] = b"Subject: hello\r\n\r\n"
            server.conversations[0].say(b"* %d EXISTS\r\n" % uid)
            assert await session.wait(timedelta(seconds=30)) is Wake.NEWS
            async for page in session.pending(folder, position, Start("all")):
                position = page.position or position
                assert [ref.uid for ref in page.refs] == [str(uid)]
                assert len(await fetched(session, claims_of(page.refs))) == 1
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("capabilities", ["IMAP4rev1", "IMAP4rev1 NAMESPACE"])
async def test_listing_of_folders_that_cannot_be_read_ends_the_session_and_says_why(
    tmp_path: Path, capabilities: str
) -> None:
    listed = b'* LIST () "/" "' + b"x" * 300_000 + b'"\r\n%T OK done\r\n'
    async with (
        ScriptedImap(
            {"LIST": listed, "NAMESPACE": b'* NAMESPACE (("" "/")) NIL NIL\r\n%T OK done\r\n'},
            capabilities=capabilities,
        ) as server,
        session_of(imap_source(tmp_path, server.port, "joe", folders=["Elsewhere"])) as session,
    ):
        with pytest.raises(SessionLost, match="too many words"):
            await session.folders()
        with pytest.raises(SessionLost):
            await session.open("INBOX")


@pytest.mark.parametrize("name", ["NOOP", "IDLE"])
async def test_flood_ends_the_session_and_says_why(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked, "AT_ONCE", 100_000)
    async with (
        ScriptedImap({name: b"+ ok\r\n" + b"* OK and\r\n" * 2000}) as server,
        session_of(imap_source(tmp_path, server.port, "joe")) as session,
    ):
        with pytest.raises((SessionLost, TransientError), match="nobody asked for"):
            await session.open("INBOX")
            await session.open("INBOX")  # which has it tell its news
            await session.wait(timedelta(seconds=30))


def test_allowance_is_given_back_little_by_little() -> None:
    allowance = Allowance(0.0)
    allowance.widen()
    spent = 0
    while allowance.spend(900, 0.0):
        spent += 1
    assert spent == unasked.AT_ONCE // 1000
    assert not allowance.spend(900, 0.0)
    allowance = Allowance(0.0)
    assert all(allowance.spend(900, second) for second in range(1, 10_000))
