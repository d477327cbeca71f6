"""A POP3 server's names, listings and absences are believed only with their witness."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from clocks import SkippingClock
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Gone, MessageRef, RawMessage
from mailpoller.core.ports import Session, Source, Wake
from mailpoller.core.spool import Spool
from mailpoller.sources.pop3 import Pop3Config
from servers.mailboxes import claims_of, fetched, listed, session_of, settled
from servers.scripted_pop3 import Conversation, Reply, ScriptedPop3, listing

DELETE = Disposition(delete=True)


def mail(subject: str, body: str = "hello") -> bytes:
    return f"Subject: {subject}\r\n\r\n{body}\r\n".encode()


def some(*names: str) -> list[tuple[str, bytes]]:
    return [(name, mail(name)) for name in names]


def source_of(directory: Path, port: int, clock: SkippingClock | None = None, **settings: Any) -> Source:
    values = {"type": "pop3", "host": "127.0.0.1", "port": port, "tls": "none", "username": "joe", "password": "secret"}
    spool = Spool(directory / "spool")
    spool.prepare()
    runtime = Runtime(clock or SkippingClock(), spool, directory)
    return Pop3Config.model_validate(values | {"command_timeout": "5s"} | settings).build("box", runtime)


async def shown(session: Session, since: Any = None) -> tuple[list[str], Any]:
    refs, position = await listed(session, await session.open("INBOX"), since)
    return [ref.uid for ref in refs], position


def arrives_at_quit(server: ScriptedPop3, mail: tuple[str, bytes]) -> None:
    """A mail arrives between two connections."""

    def quit(conversation: Conversation, arguments: str) -> None:
        server._quit(conversation, arguments)
        del server.script["QUIT"]
        server.mails.append(mail)

    server.script["QUIT"] = quit


class Counting(ScriptedPop3):
    """Names messages 1, 2, 3 in each session anew."""

    def _uidl(self, conversation: Conversation, arguments: str) -> bytes:
        return listing(f"{number} {number}" for number in conversation.mails)


class Hashing(ScriptedPop3):
    """Names messages by a digest of their octets."""

    def _uidl(self, conversation: Conversation, arguments: str) -> bytes:
        return listing(f"{number} {md5(octets).hexdigest()}" for number, (_, octets) in conversation.mails.items())


# --- survey --------------------------------------------------------------------------------------------------------
async def test_survey_tells_all_when_something_changed_and_once_more_a_minute_later(tmp_path: Path) -> None:
    async with ScriptedPop3(mails=some("a", "b")) as server:
        clock = SkippingClock()
        async with session_of(source_of(tmp_path, server.port, clock)) as session:

            async def surveyed(go_on: bool = True) -> list[tuple[str, int | None]] | None:
                folder = await session.open("INBOX")
                survey = await session.survey(folder, None)
                assert not (survey.strange or survey.behind or survey.position)
                if go_on:
                    await listed(session, folder)
                assert survey.whole is bool(survey.familiar)
                return [(ref.uid, ref.size) for ref in survey.familiar] or None

            everything = [(name, len(octets)) for name, octets in server.mails]
            assert await surveyed(go_on=False) == everything
            assert await surveyed() == everything, "what nobody went on with is told again"
            assert await surveyed() is None
            clock.seconds += 61
            assert await surveyed() == everything, "absence is concluded from two looks"
            clock.seconds += 1000
            assert await surveyed() is None
            server.mails.pop()
            assert await surveyed() == everything[:1]


async def test_survey_of_an_emptied_maildrop_is_whole(tmp_path: Path) -> None:
    async with ScriptedPop3(mails=some("a")) as server, session_of(source_of(tmp_path, server.port)) as session:
        assert len((await session.survey(await session.open("INBOX"), None)).familiar) == 1
        await listed(session, await session.open("INBOX"))
        server.mails.clear()
        survey = await session.survey(await session.open("INBOX"), None)
        assert (survey.whole, list(survey.familiar)) == (True, [])


async def test_all_names_changed_shows_in_one_whole_survey(tmp_path: Path) -> None:
    """The maildrop of a server that was upgraded or replaced: same mails, same order, other names."""
    octets = [mail(str(number)) for number in range(30)]
    before = [(f"{number:08x}56789abc", one) for number, one in enumerate(octets, 1)]
    after = [(f"1450744508.{number}", one) for number, one in enumerate(octets, 1)]
    async with ScriptedPop3(mails=before) as server, session_of(source_of(tmp_path, server.port)) as session:
        folder = await session.open("INBOX")
        await session.survey(folder, None)
        _, position = await listed(session, folder)
        server.mails = after
        folder = await session.open("INBOX")
        survey = await session.survey(folder, position)
        assert survey.whole
        assert [(ref.uid, ref.size) for ref in survey.familiar] == [(uid, len(one)) for uid, one in after]
        refs, _ = await listed(session, folder, position)
        assert [ref.uid for ref in refs] == [uid for uid, _ in after]


async def test_name_that_got_another_size_or_another_bearer_is_shown_again(tmp_path: Path) -> None:
    async with (
        ScriptedPop3(mails=some("name-a", "name-b")) as server,
        session_of(source_of(tmp_path, server.port)) as session,
    ):
        _, position = await shown(session)
        server.mails[0] = ("name-a", mail("another one"))
        uids, position = await shown(session, position)
        assert uids == ["name-a"]
        folder = await session.open("INBOX")
        refs, position = await listed(session, folder)
        await session.settle(settled(refs[1:], DELETE))
        arrives_at_quit(server, ("name-b", mail("name-b")))
        assert (await shown(session, position))[0] == ["name-b"]


# --- look, and what is deleted -------------------------------------------------------------------------------------
async def test_look_tells_what_this_connection_shows(tmp_path: Path) -> None:
    async with (
        ScriptedPop3(mails=some("name-a", "name-b", "name-c")) as server,
        session_of(source_of(tmp_path, server.port)) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        server.mails = [("name-a", mail("longer than it was")), ("name-c", mail("name-c"))]
        await session.open("INBOX")
        looked = await session.look(refs)
        assert [ref and (ref.uid, ref.size) for ref in looked] == [
            ("name-a", len(mail("longer than it was"))), None, ("name-c", refs[2].size),
        ]  # fmt: skip
        done = await session.settle(settled(refs, DELETE))
        assert [one.state for one in done] == ["pending", "applied", "pending"]
        assert server.asked("DELE") == ["DELE 2"], "what is of another size is not marked"


async def test_look_without_sizes_tells_none_and_only_what_was_fetched_is_deleted(tmp_path: Path) -> None:
    sizes = listing(["1 ?", "2 ?"])
    async with (
        ScriptedPop3({"LIST": sizes}, mails=some("name-a", "name-b")) as server,
        session_of(source_of(tmp_path, server.port)) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        await session.open("INBOX")
        assert [ref and ref.size for ref in await session.look(refs)] == [None, None]
        await fetched(session, claims_of(refs[:1]))
        done = await session.settle(settled(refs, DELETE))
        assert "looked at" in done[1].reason
        assert server.asked("DELE") == ["DELE 1"]


async def test_second_message_that_a_counting_server_calls_one_is_not_deleted_for_the_first(tmp_path: Path) -> None:
    async with Counting(mails=[("", mail("first"))]) as server:
        async with session_of(source_of(tmp_path, server.port)) as session:
            refs, position = await listed(session, await session.open("INBOX"))
            await fetched(session, claims_of(refs))
            await session.settle(settled(refs, DELETE))
            assert server.asked("DELE") == ["DELE 1"]
            arrives_at_quit(server, ("", mail("other")))
            folder = await session.open("INBOX")
            again, _ = await listed(session, folder, position)
            assert [ref.uid for ref in again] == ["1"], "it is shown, though the same name with the same size was"
            (looked,) = await session.look(refs)
            assert looked is not None
            assert looked.size is None, "the size proves nothing: the message itself must"
            (done,) = await session.settle(settled(refs, DELETE))
            assert (done.state, server.mails) == ("pending", [("", mail("other"))])
        assert server.asked("DELE") == ["DELE 1"]


async def test_what_was_claimed_by_one_connection_is_not_taken_from_another_that_shows_another_size(
    tmp_path: Path,
) -> None:
    def retr(conversation: Conversation, arguments: str) -> bytes:
        server.mails = [("x", mail("another message, under the same name"))]
        return b"-ERR cannot read it\r\n"

    async with (
        ScriptedPop3({"RETR": retr}, mails=some("x")) as server,
        session_of(source_of(tmp_path, server.port)) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        with pytest.raises(TransientError, match="another size"):
            await fetched(session, claims_of(refs))
        assert len(server.asked("RETR")) == 1


async def test_where_a_name_may_be_given_again_the_further_look_comes_at_once(tmp_path: Path) -> None:
    for kind, hasty in ((Hashing, True), (Counting, True), (ScriptedPop3, False)):
        async with kind(mails=some("a-name-of-its-own", "b-name-of-its-own")) as server:
            clock = SkippingClock()
            async with session_of(source_of(tmp_path, server.port, clock)) as session:
                refs, _ = await listed(session, await session.open("INBOX"))
                await fetched(session, claims_of(refs))
                await session.settle(settled(refs, DELETE))
                assert await session.wait(timedelta(seconds=30)) is (Wake.NEWS if hasty else Wake.LIMIT)
                assert clock.seconds == (0 if hasty else 30)
                await session.open("INBOX")
                assert await session.wait(timedelta(seconds=30)) is Wake.LIMIT


# --- equal octets --------------------------------------------------------------------------------------------------
class Bookkeeper:
    """What a ledger and an engine do with a source, as far as names go: uid -> size and octets of what was
    delivered."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.known: dict[str, tuple[int | None, bytes]] = {}
        self.delivered: Counter[bytes] = Counter()
        self.position: Any = None

    async def poll(self, delete: bool) -> None:
        wake = Wake.NEWS
        rounds = 0
        while wake is Wake.NEWS and rounds < 2:
            await self._look(delete)
            wake, rounds = await self.session.wait(timedelta(seconds=1)), rounds + 1

    async def _look(self, delete: bool) -> None:
        folder = await self.session.open("INBOX")
        survey = await self.session.survey(folder, self.position)
        if survey.whole:
            present = {ref.uid for ref in survey.familiar}
            self.known = {uid: one for uid, one in self.known.items() if uid in present}
        refs, self.position = await listed(self.session, folder, self.position)
        asked = {ref.uid: ref for ref in (*refs, *survey.familiar)}
        owed = [MessageRef(folder, uid, size) for uid, (size, _) in self.known.items()] if delete else []
        for _ref, now in zip(owed, await self.session.look(owed), strict=True):
            if now is not None:
                asked[now.uid] = now
        doubtful = [ref for uid, ref in asked.items() if uid not in self.known or self.known[uid][0] != ref.size]
        for answer in await fetched(self.session, claims_of(doubtful)):
            if isinstance(answer, RawMessage):
                uid, octets = answer.claim.ref.uid, bytes(answer.octets.view())
                if uid not in self.known or self.known[uid][1] != octets:
                    self.delivered[octets] += 1
                self.known[uid] = (answer.announced, octets)
        if delete:
            done = [MessageRef(folder, uid, size) for uid, (size, _) in self.known.items()]
            await self.session.settle(settled(done, DELETE))


@pytest.mark.parametrize("delete", [False, True], ids=["leave", "delete"])
@pytest.mark.parametrize("naming", ["hash", "none", "count"])
@pytest.mark.parametrize("seed", range(5))
async def test_equal_mails_that_come_and_go_in_any_order_are_neither_lost_nor_deleted_undelivered(
    tmp_path: Path, naming: str, delete: bool, seed: int
) -> None:
    kind: Callable[..., ScriptedPop3] = {"hash": Hashing, "none": ScriptedPop3, "count": Counting}[naming]
    script: dict[str, Reply] = {"UIDL": b"-ERR what?\r\n"} if naming == "none" else {}
    chance = random.Random(seed)
    capabilities = "PIPELINING TOP" + ("" if naming == "none" else " UIDL")
    kinds = [mail("a"), mail("a"), mail("b"), mail("a", "another body"), mail("c", "more text")]
    arrived: Counter[bytes] = Counter()
    taken: Counter[bytes] = Counter()
    async with (
        kind(script, mails=[], capabilities=capabilities) as server,
        session_of(source_of(tmp_path, server.port, poll_interval="1s")) as session,
    ):
        books = Bookkeeper(session)
        for _ in range(15):
            before = Counter(octets for _, octets in server.mails)
            await books.poll(delete)
            after = Counter(octets for _, octets in server.mails)
            gone = before - after
            assert not gone or delete
            for octets in arrived:
                assert books.delivered[octets] >= arrived[octets] - taken[octets], "lost"
                # Without names, mails with one header and two bodies are told apart once both are there.
                if naming == "hash" or (naming == "none" and not octets.startswith(b"Subject: a")):
                    assert books.delivered[octets] <= arrived[octets], "delivered twice"
            for _ in range(chance.randrange(4)):
                octets = chance.choice(kinds)
                server.mails.append(("", octets))
                arrived[octets] += 1
            if not delete and naming != "count" and server.mails and chance.random() < 0.3:
                _, octets = server.mails.pop(chance.randrange(len(server.mails)))
                taken[octets] += 1


# --- listings that contradict themselves ---------------------------------------------------------------------------
MAILS = some("name-a", "name-b", "name-c", "name-d")
FULL = {
    "UIDL": [f"{n} {uid}" for n, (uid, _) in enumerate(MAILS, 1)],
    "LIST": [f"{n} {len(MAILS[0][1])}" for n in range(1, 5)],
}
BROKEN: dict[str, dict[str, bytes]] = {
    "a line of UIDL lacks": {"UIDL": listing(FULL["UIDL"][:1] + FULL["UIDL"][2:])},
    "the last line of UIDL lacks": {"UIDL": listing(FULL["UIDL"][:3])},
    "a line lacks in both": {
        "UIDL": listing(FULL["UIDL"][:1] + FULL["UIDL"][2:]), "LIST": listing(FULL["LIST"][:1] + FULL["LIST"][2:]),
    },
    "the last line lacks in both": {"UIDL": listing(FULL["UIDL"][:3]), "LIST": listing(FULL["LIST"][:3])},
    "a line lacks in all three": {
        "UIDL": listing(FULL["UIDL"][:1] + FULL["UIDL"][2:]), "LIST": listing(FULL["LIST"][:1] + FULL["LIST"][2:]),
        "STAT": b"+OK 3 78\r\n",
    },
    "one number with two names": {"UIDL": listing([*FULL["UIDL"][:3], "3 name-d"])},
    "UIDL is empty": {"UIDL": listing([])},
    "all is empty but STAT": {"UIDL": listing([]), "LIST": listing([])},
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
async def test_listing_with_a_gap_is_taken_as_far_as_it_goes_and_nothing_is_gone_for_it(
    tmp_path: Path, kind: str
) -> None:
    async with ScriptedPop3(mails=MAILS) as server, session_of(source_of(tmp_path, server.port)) as session:
        folder = await session.open("INBOX")
        refs, position = await listed(session, folder)
        server.script = dict(BROKEN[kind])
        with capture_logs() as logs:
            await session.open("INBOX")
            survey = await session.survey(folder, position)
            assert not survey.whole
            assert set(survey.familiar) <= set(refs)
            again, position = await listed(session, folder, position)
            assert set(again) <= set(refs), "nothing is given a name of our own yet"
            looked = await session.look(refs)
            assert all(ref is not None for ref in looked)
            answers: list[RawMessage | Gone] = []
            with pytest.raises(TransientError, match="contradicts itself"):
                async for answer in session.fetch(claims_of(refs), 1_000_000):
                    answers.append(answer)  # noqa: PERF401
            assert all(isinstance(answer, RawMessage) for answer in answers)
            assert len(answers) == len(survey.familiar)
            done = await session.settle(settled([ref for ref in refs if ref not in survey.familiar], DELETE))
            assert {one.state for one in done} == {"pending"}
            await shown(session)
        assert [line["event"] for line in logs] == ["maildrop.contradicted"], "told once"
        server.script = {}
        uids, _ = await shown(session, position)
        assert {ref.uid for ref in refs if ref not in survey.familiar} <= set(uids), "told again when it is back"


async def test_gap_that_is_there_only_once_is_asked_away(tmp_path: Path) -> None:
    asked = 0

    def uidl(conversation: Conversation, arguments: str) -> bytes:
        nonlocal asked
        asked += 1
        return listing(FULL["UIDL"][1:] if asked == 1 else FULL["UIDL"])

    async with (
        ScriptedPop3({"UIDL": uidl}, mails=MAILS) as server,
        session_of(source_of(tmp_path, server.port)) as session,
    ):
        with capture_logs() as logs:
            assert (await shown(session))[0] == [uid for uid, _ in MAILS]
        assert logs == []


async def test_message_that_uidl_never_shows_is_taken_at_the_third_connection(tmp_path: Path) -> None:
    script: dict[str, Reply] = {"UIDL": listing(FULL["UIDL"][1:])}
    async with ScriptedPop3(script, mails=MAILS) as server, session_of(source_of(tmp_path, server.port)) as session:
        for turn in range(4):
            refs, _ = await listed(session, await session.open("INBOX"))
            assert [ref.uid for ref in refs if ref.uid.startswith("name-")] == ["name-b", "name-c", "name-d"]
            assert len(refs) == (3 if turn < 2 else 4)
        answers = await fetched(session, claims_of(refs))
        assert {bytes(one.octets.view()) for one in answers if isinstance(one, RawMessage)} == {o for _, o in MAILS}
        assert (await session.look([MessageRef(refs[0].folder, "name-z")])) == [None], "two of three agree"


async def test_connections_of_earlier_processes_count_as_well(tmp_path: Path) -> None:
    """``run --once`` from cron is another process each time."""
    script: dict[str, Reply] = {"UIDL": listing(FULL["UIDL"][1:])}
    position = None
    async with ScriptedPop3(script, mails=MAILS) as server:
        for turn in range(4):
            async with session_of(source_of(tmp_path, server.port)) as session:
                uids, position = await shown(session, position)
                assert len(uids) == (3 if turn < 2 else 4)


async def test_stat_that_always_counts_otherwise_stops_nothing(tmp_path: Path) -> None:
    async with (
        ScriptedPop3({"STAT": b"+OK 9 1000\r\n"}, mails=MAILS) as server,
        session_of(source_of(tmp_path, server.port)) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        assert len(await fetched(session, claims_of(refs))) == 4
        await session.settle(settled(refs, DELETE))
        states = []
        for _ in range(3):
            await session.open("INBOX")
            states.append({one.state for one in await session.settle(settled(refs, DELETE))})
        assert states[0] == {"pending"}
        assert states[-1] == {"applied"}
        assert server.mails == []


async def test_listing_that_swallows_the_next_answer_loses_the_session(tmp_path: Path) -> None:
    script: dict[str, Reply] = {"LIST": b"+OK\r\n1 20\r\n2 20\r\n"}
    async with ScriptedPop3(script, mails=MAILS) as server:
        session = await source_of(tmp_path, server.port, command_timeout="1s").connect()
        with pytest.raises(SessionLost):
            await session.open("INBOX")


# --- UTF8 ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("answer", [b"+OK\r\n", b"-ERR not now\r\n"], ids=["taken", "refused"])
async def test_utf8_is_asked_for_before_the_login_where_it_is_offered(tmp_path: Path, answer: bytes) -> None:
    offers = "PIPELINING;UIDL;TOP;UTF8 USER"
    async with ScriptedPop3({"UTF8": answer}, mails=MAILS, capabilities=offers) as server:
        async with session_of(source_of(tmp_path, server.port)) as session:
            assert len((await shown(session))[0]) == 4
        assert server.lines.index("UTF8") < server.lines.index("USER joe")
    async with ScriptedPop3(mails=MAILS) as server:
        async with session_of(source_of(tmp_path, server.port)) as session:
            await shown(session)
        assert server.asked("UTF8") == []


async def test_without_uidl_mails_with_one_header_and_two_bodies_do_not_inherit_each_others_name(
    tmp_path: Path,
) -> None:
    script: dict[str, Reply] = {"UIDL": b"-ERR what?\r\n"}
    mails = [("", mail("a", "first")), ("", mail("a", "second one"))]
    async with (
        ScriptedPop3(script, mails=mails, capabilities="PIPELINING TOP") as server,
        session_of(source_of(tmp_path, server.port)) as session,
    ):
        before, _ = await shown(session)
        server.mails.pop(0)
        assert (await shown(session))[0] == before[1:]
