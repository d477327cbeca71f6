"""The outbox: what is accepted is kept, and each recipient gets it once or never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from clocks import SkippingClock
from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.errors import (
    CredentialsRefused,
    EntryPutOff,
    EntryRefused,
    LedgerUnavailable,
    MailpollerError,
    TransientError,
)
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.core.ports import Mail, OutboxMail, Said
from mailpoller.core.ports.ledger.outbox import OUTBOX_WAITS_AT_MOST
from mailpoller.core.reply_charset import PRESETS
from mailpoller.core.sender import Sender
from mailpoller.engine.acceptance import Acceptance, OutboxBounds
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.postman import Postman
from mailpoller.engine.prudent_clock import PrudentClock
from mailpoller.engine.senders import Answering, Identity, Intake, Senders
from mailpoller.engine.sending import waiting_time
from mailpoller.mail.addressed import addressed
from mailpoller.mail.understand.conversation import mint
from mailpoller.storage.octet_files import OctetFiles
from mailpoller.testing.memory_ledger import MemoryLedger

SUPPORT = Identity("support", Sender("support@x.example", "Support"), departments=frozenset(("root",)), lanes=2)
SALES = Identity("sales", Sender("sales@x.example"), departments=frozenset(("sales",)))
SENDERS = Senders(
    {"support": SUPPORT, "sales": SALES},
    {
        "help": Answering("support", ("root",)),
        "deals": Answering("sales", ("sales",)),
        "mute": Answering("", ("root",)),
    },
    {"root": "support", "sales": "sales"},
    {"desk": Intake("desk", ("root",))},
)
ENTRY: dict[str, Any] = {"to": ["ada@x.example"], "subject": "Re: order", "text": "Hello"}


class FakeOutgoing:
    """Answers as it is told: by address, or with ``trouble``."""

    host = "relay.test"
    sender = "system@x.example"

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.trouble: list[BaseException] = []
        self.says: dict[str, list[Said]] = {}
        self.hold: asyncio.Event | None = None
        self.never = ""
        """The Message-ID of a mail at which the relay says that it is not well."""

    async def post(self, mail: Mail) -> Mapping[str, Said]:
        await asyncio.sleep(0)
        if self.hold is not None:
            await self.hold.wait()
        if self.trouble:
            raise self.trouble.pop(0)
        if self.never and self.never.encode() in mail.octets:
            raise TransientError("550 this sender may not write to him")
        self.mails.append(mail)
        return {one: self._said(one) for one in mail.recipients}

    def _said(self, address: str) -> Said:
        queued = self.says.get(address)
        return queued.pop(0) if queued else Said("accepted", "250 Ok")

    async def send(self, mail: Mail) -> str:
        raise AssertionError("it can post")

    def probe(self) -> Any: ...
    async def close(self) -> None: ...


class Site:
    """Acceptance and postman on one ledger. ``restarted`` is the next process after a kill."""

    def __init__(self, tmp_path: Path, ledger: MemoryLedger | None = None, **bounds: Any) -> None:
        self.path = tmp_path
        self.bounds = bounds
        self.clock = SkippingClock() if ledger is None else ledger._clock
        self.ledger = ledger or MemoryLedger(self.clock)
        self.files = OctetFiles(tmp_path / "outbox")
        self.outgoing = FakeOutgoing()
        self.room = OutboxRoom()
        self.alarm = Alarm(self.ledger, None, (), self.clock)
        outgoings = {"support": self.outgoing, "sales": self.outgoing}
        self.postman = Postman(self.ledger, self.files, outgoings, SENDERS, self.alarm, self.clock, self.room)
        self.acceptance = Acceptance(
            self.ledger, self.files, SENDERS, self.clock, OutboxBounds(**bounds), self.room, self.postman.wake
        )

    def restarted(self) -> Site:
        return Site(self.path, self.ledger.restarted(), **self.bounds)

    def use(self, senders: Senders) -> None:
        self.acceptance.senders = self.postman.senders = senders

    async def hand_in(self, entry: object = None, **request: Any) -> Mapping[str, Any]:
        octets = entry if isinstance(entry, bytes) else json.dumps(ENTRY if entry is None else entry).encode()
        return await self.acceptance.hand_in({"octets": octets, "peer": "helpdesk", **request})

    async def mail(self, id: str) -> OutboxMail:
        found = await self.ledger.outbox_mail(id)
        assert found is not None
        return found

    async def states(self, id: str) -> list[str]:
        return [one.state for one in (await self.mail(id)).recipients]

    @property
    def kept(self) -> int:
        return len(self.files.names())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(self.postman.run(stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)

    async def until(self, true: Any, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not (await true() if asyncio.iscoroutinefunction(true) else true()):
                await asyncio.sleep(0.005)

    async def done(self, id: str) -> None:
        async def settled() -> bool:
            return (await self.mail(id)).due_at is None

        await self.until(settled)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_an_answer_to_what_is_not_settled_yet_is_taken_later(site: Site) -> None:
    ref = MessageRef(Folder("help", "INBOX", "1"), "17", 1000)
    await site.ledger.open_folder(ref.folder, Account("imap", "imap.example.com", "u"))
    (claim,) = await site.ledger.claim([ref])
    assert isinstance(claim, Claim)
    with pytest.raises(TransientError):
        await site.hand_in({**ENTRY, "to": None, "reply_to": claim.mid})
    outcome = Outcome(claim, "delivered", LEAVE, {"q": "1"}, sender="ada@c.example", message_id="<1@c.example>")
    await site.ledger.settle([outcome])
    answer = await site.hand_in({**ENTRY, "to": None, "reply_to": claim.mid})
    assert (await site.mail(answer["id"])).open == ("ada@c.example",)


# --- acceptance ------------------------------------------------------------------------------------------------------
async def test_what_is_accepted_is_on_the_disk_before_anybody_is_told(site: Site) -> None:
    answer = await site.hand_in()
    mail = await site.mail(answer["id"])
    octets = site.files.read(mail.digest)
    assert (mail.identity, mail.sender, mail.size) == ("support", "support@x.example", len(octets))
    message = message_from_bytes(octets)
    assert message["Message-ID"] == answer["message_id"] == f"<{mail.id}@x.example>"


@pytest.mark.parametrize("step", ["outbox_accept"])
async def test_a_ledger_that_cannot_commit_accepts_nothing_and_its_file_goes(site: Site, step: str) -> None:
    site.ledger.fail(step)
    with pytest.raises(LedgerUnavailable):
        await site.hand_in()
    assert site.kept == 1  # nobody knows yet whether it was recorded
    await site.hand_in()
    await site.until(lambda: site.kept == 1)
    assert len(await site.ledger.outbox_list(limit=10)) == 1


async def test_a_commit_whose_answer_was_lost_keeps_its_file(site: Site) -> None:
    site.ledger.fail("outbox_accept", after=True)
    with pytest.raises(LedgerUnavailable):
        await site.hand_in({**ENTRY, "key": "k"})
    again = await site.hand_in({**ENTRY, "key": "k"})
    assert again["repeated"] and site.kept == 1
    await site.hand_in()
    assert site.kept == 2
    assert site.room.octets == sum(one.size for one in await site.ledger.outbox_list(limit=9))


@pytest.mark.parametrize("recorded", [False, True])
async def test_who_is_cancelled_while_he_hands_in_leaves_no_file_that_nobody_knows(site: Site, recorded: bool) -> None:
    reached, accept = asyncio.Event(), site.ledger.outbox_accept

    async def slow(mail: OutboxMail) -> OutboxMail:
        if recorded:
            await accept(mail)
        reached.set()
        await asyncio.sleep(60)
        raise AssertionError

    site.ledger.outbox_accept = slow  # type: ignore[method-assign]
    task = asyncio.create_task(site.hand_in())
    await reached.wait()
    assert site.kept == 1
    site.ledger.outbox_accept = accept  # type: ignore[method-assign]
    other = asyncio.create_task(site.hand_in())  # which must not touch what is under way
    await other
    assert site.kept == 2
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    await site.until(lambda: site.acceptance._doubtful == {} and site.kept == 1 + recorded)
    assert site.room.octets == sum(one.size for one in await site.ledger.outbox_list(limit=9))


async def test_the_same_key_is_the_same_mail_and_with_other_content_refused(site: Site) -> None:
    first = await site.hand_in({**ENTRY, "key": "order-17"})
    again = await site.hand_in({"key": "order-17", **ENTRY})
    assert (again["id"], again["repeated"], first["repeated"]) == (first["id"], True, False)
    with pytest.raises(EntryRefused, match="key"):
        await site.hand_in({**ENTRY, "text": "other", "key": "order-17"})
    assert site.kept == 1


async def test_two_at_once_under_one_key_are_one_mail(site: Site) -> None:
    answers = await asyncio.gather(*(site.hand_in({**ENTRY, "key": "k"}) for _ in range(5)))
    assert len({one["id"] for one in answers}) == 1
    assert site.kept == 1


async def test_an_intake_never_sends_for_whom_it_may_not(site: Site) -> None:
    for entry in (
        {"identity": "sales"}, {"department": "sales"}, {"mailbox": "deals"}, {"identity": "nobody"},
        {"department": "root", "identity": "sales"}, {"mailbox": "nobody"}, {"mailbox": "mute"},
    ):  # fmt: skip
        with pytest.raises(EntryRefused):
            await site.hand_in({**ENTRY, **entry})
    assert site.kept == 0


async def test_without_an_intake_nothing_is_taken(site: Site) -> None:
    site.use(Senders(SENDERS.identities, SENDERS.mailboxes, SENDERS.defaults))
    with pytest.raises(EntryRefused, match="no intake"):
        await site.hand_in()


async def test_only_the_users_of_an_intake_may_use_it(site: Site) -> None:
    desk = Intake("desk", ("root",), frozenset(("nobody-of-that-name",)))
    site.use(Senders(SENDERS.identities, SENDERS.mailboxes, SENDERS.defaults, {"desk": desk}))
    with pytest.raises(EntryRefused, match="may not use"):
        await site.hand_in(peer="nobody")
    with pytest.raises(EntryRefused, match="may not use"):
        await site.hand_in(peer="")


async def test_bounds_are_refused_with_a_reason_before_anything_is_kept(tmp_path: Path) -> None:
    site = Site(tmp_path, max_size=900, max_recipients=2)
    with pytest.raises(EntryRefused, match="max_recipients"):
        await site.hand_in({**ENTRY, "to": [f"a{n}@x.example" for n in range(10_000)]})
    with pytest.raises(EntryRefused, match="no recipient"):
        await site.hand_in({**ENTRY, "to": []})
    first = await site.hand_in()
    with pytest.raises(TransientError, match="full"):
        await site.hand_in({**ENTRY, "text": "x" * 500})
    assert site.kept == 1
    async with site.running():
        await site.done(first["id"])
    await site.hand_in({**ENTRY, "text": "x" * 100})  # there is room again


async def test_an_identity_whose_relay_is_dead_leaves_room_for_the_others(tmp_path: Path) -> None:
    site = Site(tmp_path, max_size=20_000)
    site.use(replace(SENDERS, intakes={"desk": Intake("desk", ("root", "sales"))}))
    with capture_logs() as said:
        for _ in range(2):
            with pytest.raises(EntryPutOff, match="support has no more room"):
                for _ in range(100):
                    await site.hand_in({**ENTRY, "identity": "support", "text": "x" * 500})
    assert [one["identity"] for one in said if one["event"] == "outbox.full"] == ["support"]
    assert 8_000 < site.room.octets <= 10_000
    answers = [await site.hand_in({**ENTRY, "identity": "sales"}) for _ in range(5)]
    async with site.running():
        for answer in answers:
            await site.done(answer["id"])
        await site.until(lambda: site.room.octets == 0)
    await site.hand_in({**ENTRY, "identity": "support", "text": "x" * 500})


async def test_what_comes_in_at_once_exceeds_no_bound(tmp_path: Path) -> None:
    site = Site(tmp_path, max_size=5_000)
    await asyncio.gather(*(site.hand_in() for _ in range(40)), return_exceptions=True)
    waiting = sum(one.size for one in await site.ledger.outbox_list(limit=99))
    assert 2_000 < waiting == site.room.octets <= 2_500
    assert site.kept == len(await site.ledger.outbox_list(limit=99))


async def test_a_disk_that_is_full_accepts_nothing(site: Site) -> None:
    site.files.path.parent.joinpath("outbox").write_text("no directory")
    with pytest.raises(TransientError):
        await site.hand_in()
    assert await site.ledger.outbox_list(limit=1) == []


@pytest.mark.parametrize(
    "octets", [b"{", b"[]", b"7", b'{"to":' * 100_000, b'{"text": "\\ud800", "to": "a@x.example"}', b"\xff"]
)
async def test_what_is_no_entry_is_refused_and_nothing_else_suffers(site: Site, octets: bytes) -> None:
    with pytest.raises(EntryRefused):
        await site.hand_in(octets)
    await site.hand_in()


async def test_a_mid_that_nobody_knows_cannot_be_answered(site: Site) -> None:
    with pytest.raises(EntryRefused, match="mid"):
        await site.hand_in({**ENTRY, "reply_to": "5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a"})


async def test_a_conversation_is_signed_into_the_message_id(site: Site) -> None:
    site.acceptance.mint = lambda conversation: mint(conversation, "a", b"0123456789abcdef")
    answer = await site.hand_in({**ENTRY, "conversation": "case 4711"})
    token = mint("case 4711", "a", b"0123456789abcdef")
    mail = await site.mail(answer["id"])
    assert answer["message_id"] == f"<{token}.{mail.id}@x.example>"
    with pytest.raises(EntryRefused, match="conversation"):
        await site.hand_in({**ENTRY, "conversation": "x" * 200})


async def test_without_a_key_a_conversation_that_is_named_is_refused(site: Site) -> None:
    with pytest.raises(EntryRefused, match="key"):
        await site.hand_in({**ENTRY, "conversation": "4711"})


async def test_an_answer_is_in_the_charset_of_its_mailbox(site: Site) -> None:
    tokyo = Answering("support", ("root",), PRESETS["japanese"])
    site.use(Senders(SENDERS.identities, {"tokyo": tokyo}, SENDERS.defaults, SENDERS.intakes))
    for more in ({"mailbox": "tokyo"}, {}):
        answer = await site.hand_in({**ENTRY, **more, "subject": "Re: 注文", "text": "ありがとう"})
        octets = site.files.read((await site.mail(answer["id"])).digest)
        assert b"charset=iso-2022-jp" in octets and b"=?iso-2022-jp?b?" in octets


async def test_what_comes_while_a_round_ends_is_sent_at_once(site: Site) -> None:
    async with site.running():
        for _ in range(30):
            answer = await site.hand_in()
            await site.done(answer["id"])  # the round may just find that there is nothing more


# --- sending ---------------------------------------------------------------------------------------------------------
async def test_a_mail_leaves_in_its_senders_name_and_its_file_goes(site: Site) -> None:
    answer = await site.hand_in({**ENTRY, "bcc": "bob@x.example"})
    async with site.running():
        await site.done(answer["id"])
    (mail,) = site.outgoing.mails
    assert (mail.sender, mail.recipients) == ("support@x.example", ("ada@x.example", "bob@x.example"))
    assert await site.states(answer["id"]) == ["accepted", "accepted"]
    assert (site.kept, site.room.octets) == (0, 0)


async def test_who_has_a_mail_does_not_get_it_again(site: Site) -> None:
    site.outgoing.says["bob@x.example"] = [Said("deferred", "451 greylisted")]
    site.outgoing.says["eve@x.example"] = [Said("refused", "550 no such user")]
    answer = await site.hand_in({**ENTRY, "cc": ["bob@x.example", "eve@x.example"]})
    async with site.running():
        await site.until(lambda: len(site.outgoing.mails) == 1)
        await site.until(lambda: site.ledger.calls.count("outbox_answered") == 1)
        assert await site.states(answer["id"]) == ["accepted", "deferred", "refused"]
        site.clock.seconds += waiting_time(0).total_seconds()
        site.postman.insist()
        await site.done(answer["id"])
    assert [one.recipients for one in site.outgoing.mails] == [
        ("ada@x.example", "bob@x.example", "eve@x.example"),
        ("bob@x.example",),
    ]
    assert len({one.octets for one in site.outgoing.mails}) == 1


async def test_what_is_put_off_waits_longer_each_time_and_is_given_up_at_last(site: Site) -> None:
    site.outgoing.says["ada@x.example"] = [Said("deferred", "451 no")] * 1000
    answer = await site.hand_in()
    waits = []
    async with site.running():
        for _ in range(200):
            before = site.ledger.calls.count("outbox_answered")
            site.postman.insist()
            await site.until(lambda before=before: site.ledger.calls.count("outbox_answered") > before)
            due_at = (await site.mail(answer["id"])).due_at
            if due_at is None:
                break
            waits.append((due_at - site.clock.now()).total_seconds())
            site.clock.seconds += waits[-1]
    assert waits[:4] == [60, 120, 240, 480] and max(waits) == 7200
    (recipient,) = (await site.mail(answer["id"])).recipients
    assert (recipient.state, recipient.words) == ("refused", "given up after 5 days: 451 no")
    assert sum(waits) < timedelta(days=5, hours=3).total_seconds()


@pytest.mark.parametrize("trouble", [TransientError("down"), CredentialsRefused("no login")])
async def test_the_relays_trouble_counts_against_no_mail(site: Site, trouble: Exception) -> None:
    site.outgoing.trouble = [trouble] * 3
    answers = [await site.hand_in() for _ in range(3)]
    async with site.running():
        for left in (2, 1, 0):
            await site.until(lambda left=left: len(site.outgoing.trouble) <= left)
            site.postman.insist()
        for answer in answers:
            await site.done(answer["id"])
    assert len(site.outgoing.mails) == 3
    assert all([(await site.mail(one["id"])).attempts == 1 for one in answers])


async def test_what_comes_in_does_not_hasten_a_relay_that_is_down(site: Site) -> None:
    site.outgoing.trouble = [TransientError("down")] * 100
    await site.hand_in()
    async with site.running():
        await site.until(lambda: len(site.outgoing.trouble) < 100)
        left = len(site.outgoing.trouble)
        for _ in range(20):
            await site.hand_in()
        await asyncio.sleep(0.05)
        assert len(site.outgoing.trouble) >= left - 1
        assert [(one["state"], one["mails"]) for one in await site.postman.report()] == [("down", 21)]
        assert site.postman.hindered() == [{"identity": "support", "state": "down", "reason": "down"}]


async def test_what_waited_too_long_for_a_relay_is_told_after_one_more_try(site: Site) -> None:
    answer = await site.hand_in()
    site.clock.seconds += timedelta(days=6).total_seconds()
    site.outgoing.trouble = [TransientError("down")]
    async with site.running():
        await site.done(answer["id"])
    (recipient,) = (await site.mail(answer["id"])).recipients
    assert (recipient.state, recipient.words) == ("refused", "given up after 6 days: down")


class Leaping(SkippingClock):
    """The same time, so much ahead."""

    def __init__(self, right: SkippingClock) -> None:
        super().__init__()
        self.right, self.ahead = right, timedelta(0)

    def now(self) -> datetime:
        return self.right.now() + self.ahead

    def monotonic(self) -> float:
        return self.right.monotonic()


async def test_a_clock_that_leaps_ahead_gives_up_no_mail(site: Site) -> None:
    machine = Leaping(site.clock)
    prudent = site.postman._sending._prudent = PrudentClock(machine, site.ledger)
    site.postman._sending._clock = machine
    accepted = await site.hand_in()
    mail = await site.mail(accepted["id"])
    machine.ahead = timedelta(days=400)
    await site.postman._sending.concluded(mail, {mail.open[0]: Said("deferred", "451 no")})
    assert await site.states(accepted["id"]) == ["deferred"]
    site.clock.seconds += timedelta(days=9).total_seconds()
    prudent.now()
    await site.postman._sending.concluded(mail, {mail.open[0]: Said("deferred", "451 no")})
    assert await site.states(accepted["id"]) == ["refused"], "a week is no mistake"


async def test_one_failed_connection_gives_up_none_that_it_was_not_for(site: Site) -> None:
    answers = [await site.hand_in() for _ in range(20)]
    site.clock.seconds += timedelta(days=6).total_seconds()
    site.outgoing.trouble = [TransientError("the network is not there yet")] * 2
    async with site.running():
        await site.until(lambda: not site.outgoing.trouble)
        await asyncio.sleep(0.05)
        site.postman.insist()
        for answer in answers:
            await site.done(answer["id"])
    states = [state for answer in answers for state in await site.states(answer["id"])]
    assert states.count("accepted") >= 18


async def test_what_waited_too_long_is_told_though_its_turn_never_comes(site: Site) -> None:
    answers = [await site.hand_in() for _ in range(20)]
    site.clock.seconds += timedelta(days=6).total_seconds()
    site.outgoing.trouble = [TransientError("down")] * 9
    async with site.running():
        await site.until(lambda: bool(site.postman.hindered()))
        site.clock.seconds += 3700
        site.postman.insist()
        for answer in answers:
            await site.done(answer["id"])
    assert {state for answer in answers for state in await site.states(answer["id"])} == {"refused"}


async def test_one_identitys_trouble_is_not_anothers(site: Site) -> None:
    desk = Intake("desk", ("root", "sales"))
    broken = FakeOutgoing()
    broken.trouble = [TransientError("down")] * 100
    site.use(Senders(SENDERS.identities, SENDERS.mailboxes, SENDERS.defaults, {"desk": desk}))
    site.postman._outgoings = {"support": broken, "sales": site.outgoing}
    await site.hand_in({**ENTRY, "identity": "support"})
    answer = await site.hand_in({**ENTRY, "identity": "sales"})
    async with site.running():
        await site.done(answer["id"])


@pytest.mark.parametrize("reason", ["it is disabled (enabled: false)", "gone"])
async def test_an_identity_that_may_not_send_keeps_its_outbox(site: Site, reason: str) -> None:
    answer = await site.hand_in()
    held = {} if reason == "gone" else {"support": Identity("support", SUPPORT.sender, held=reason)}
    site.use(Senders(held, SENDERS.mailboxes, SENDERS.defaults, SENDERS.intakes))
    async with site.running():
        await site.until(site.postman.hindered)
        assert site.outgoing.mails == []
        (told,) = await site.postman.report()
        assert told["state"] == "held"
        site.use(SENDERS)
        site.postman.insist()
        await site.done(answer["id"])


async def test_mail_that_is_diverted_reaches_nobody_else(site: Site) -> None:
    diverted = Identity("support", SUPPORT.sender, divert_to="test@x.example", departments=SUPPORT.departments)
    answer = await site.hand_in({**ENTRY, "cc": "bob@x.example"})
    site.use(Senders({"support": diverted}, SENDERS.mailboxes, SENDERS.defaults, SENDERS.intakes))
    async with site.running():
        await site.done(answer["id"])
    assert [one.recipients for one in site.outgoing.mails] == [("test@x.example",)]
    mail = message_from_bytes(site.outgoing.mails[0].octets)
    assert (mail.get_all("To"), mail.get_all("Cc")) == (["test@x.example"], None)
    assert (mail["X-Diverted-To"], mail["X-Diverted-Cc"]) == ("ada@x.example", "bob@x.example")
    addressed(site.outgoing.mails[0])  # a service that goes by the header takes it
    assert await site.states(answer["id"]) == ["accepted", "accepted"]


async def test_an_answer_is_recorded_before_the_next_mail_on_that_connection(site: Site) -> None:
    one_lane = Identity("support", SUPPORT.sender, lanes=1, departments=SUPPORT.departments)
    site.use(Senders({"support": one_lane}, SENDERS.mailboxes, SENDERS.defaults, SENDERS.intakes))
    answers = [await site.hand_in() for _ in range(3)]
    site.ledger.fail("outbox_answered", times=10**9)
    async with site.running():
        await site.until(lambda: site.ledger.calls.count("outbox_answered") >= 3)
        assert len(site.outgoing.mails) == 1
        site.ledger.heal()
        for answer in answers:
            await site.done(answer["id"])
    assert len(site.outgoing.mails) == 3


async def test_a_crash_repeats_one_mail_a_connection_with_the_same_message_id(site: Site) -> None:
    for _ in range(6):
        await site.hand_in()
    site.ledger.fail("outbox_answered", times=1000)
    task = asyncio.create_task(site.postman.run(asyncio.Event()))
    await site.until(lambda: len(site.outgoing.mails) == 2)
    task.cancel()
    await asyncio.wait([task])
    after = site.restarted()
    async with after.running():
        for one in await after.ledger.outbox_list(limit=10):
            await after.done(one.id)
    ids = [message_from_bytes(one.octets)["Message-ID"] for one in [*site.outgoing.mails, *after.outgoing.mails]]
    assert (len(ids), len(set(ids))) == (8, 6)


async def test_octets_that_are_not_what_was_accepted_are_never_sent(site: Site) -> None:
    answer = await site.hand_in()
    mail = await site.mail(answer["id"])
    (site.files.path / mail.digest.hex()).write_bytes(b"something else")
    async with site.running():
        await site.until(lambda: site.ledger.calls.count("outbox_answered") >= 1)
    assert site.outgoing.mails == []
    assert await site.states(answer["id"]) == ["deferred"]


async def test_a_disk_that_is_not_there_yet_gives_up_no_mail(site: Site) -> None:
    answer = await site.hand_in()
    site.clock.seconds += timedelta(days=6).total_seconds()
    away = site.files.path.rename(site.files.path.with_name("elsewhere"))
    async with site.running():
        await site.until(lambda: site.ledger.calls.count("outbox_answered") >= 1)
        assert await site.states(answer["id"]) == ["deferred"]
        away.rename(site.files.path)
        await site.postman.retry(answer["id"])
        await site.done(answer["id"])
    assert await site.states(answer["id"]) == ["accepted"]


async def test_a_bug_of_an_outgoing_puts_off_one_mail_and_not_the_others(site: Site) -> None:
    site.outgoing.trouble = [RuntimeError("bug")]
    answers = [await site.hand_in() for _ in range(4)]
    async with site.running():
        await site.until(lambda: len(site.outgoing.mails) == 3)
        await site.until(lambda: site.ledger.calls.count("outbox_answered") == 4)
    states = sorted([(await site.states(one["id"]))[0] for one in answers])
    assert states == ["accepted"] * 3 + ["deferred"]


async def test_what_is_cancelled_is_sent_to_nobody_else_and_never_while_it_is_on_its_way(site: Site) -> None:
    site.outgoing.hold = asyncio.Event()
    first, second, third = [await site.hand_in() for _ in range(3)]
    async with site.running():
        await site.until(lambda: len(site.postman._in_hand) == 2)
        with pytest.raises(MailpollerError, match="being sent"):
            await site.postman.cancel(first["id"])
        assert await site.postman.cancel(third["id"]) == 1  # a round has taken it already
        site.outgoing.hold.set()
        await site.done(second["id"])
    assert len(site.outgoing.mails) == 2
    assert await site.states(third["id"]) == ["cancelled"]


async def test_errors_of_sending_stand_with_the_outgoing_and_the_mailbox(site: Site) -> None:
    site.outgoing.says["ada@x.example"] = [Said("refused", "550 5.1.1 no such user")]
    answer = await site.hand_in({**ENTRY, "mailbox": "help"})
    async with site.running():
        await site.done(answer["id"])
    await site.alarm.step()
    for subject in ("support", "help"):
        (fault,) = await site.ledger.faults(subject)
        assert (fault.event, fault.detail) == ("outbox.refused", f"sent, {answer['id'][:12]}: 550 5.1.1 no such user")


async def test_a_rate_is_kept(site: Site) -> None:
    slow = Identity("support", SUPPORT.sender, rate=60, departments=SUPPORT.departments)
    site.use(Senders({"support": slow}, SENDERS.mailboxes, SENDERS.defaults, SENDERS.intakes))
    answers = [await site.hand_in() for _ in range(5)]
    began = site.clock.seconds
    async with site.running():
        for answer in answers:
            await site.done(answer["id"])
    assert site.clock.seconds - began >= 4


async def test_a_rate_holds_up_no_stop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Identity("support", SUPPORT.sender, rate=1, departments=SUPPORT.departments)
    site.use(Senders({"support": slow}, SENDERS.mailboxes, SENDERS.defaults, SENDERS.intakes))
    monkeypatch.setattr(site.clock, "sleep", asyncio.sleep)
    answers = [await site.hand_in() for _ in range(3)]
    began = asyncio.get_running_loop().time()
    async with site.running():
        await site.done(answers[0]["id"])
    assert asyncio.get_running_loop().time() - began < 5
    assert len(site.outgoing.mails) == 1


async def test_only_files_of_mails_that_are_done_with_are_removed(site: Site) -> None:
    answer = await site.hand_in()
    octets = site.files.read((await site.mail(answer["id"])).digest)
    async with site.running():
        await site.done(answer["id"])
    site.files.keep(octets)  # as if we had been killed before it was removed
    site.files.keep(b"of a mail that the ledger does not know: it may be older than it was")
    after = site.restarted()
    async with after.running():
        await after.until(lambda: after.kept == 1)


async def test_an_outgoing_under_another_name_sends_what_waited_under_the_former_one(site: Site) -> None:
    answer = await site.hand_in()
    renamed = Identity("desk", SUPPORT.sender, formerly="support")
    after = site.restarted()
    after.use(Senders({"desk": renamed}))
    after.postman._outgoings = {"desk": after.outgoing}
    async with after.running():
        await after.done(answer["id"])


async def test_a_mail_whose_cancelling_failed_is_sent_after_all_and_keeps_nobody_busy(site: Site) -> None:
    site.outgoing.hold = asyncio.Event()
    answers = [await site.hand_in() for _ in range(3)]
    async with site.running():
        await site.until(lambda: len(site.postman._in_hand) == 2)
        site.ledger.fail("outbox_cancel")
        with pytest.raises(LedgerUnavailable):
            await site.postman.cancel(answers[2]["id"])
        site.outgoing.hold.set()
        for answer in answers:
            await site.done(answer["id"])
    assert await site.states(answers[2]["id"]) == ["accepted"]


async def test_nothing_is_begun_once_the_service_stops_and_what_is_on_its_way_is_finished(site: Site) -> None:
    site.outgoing.hold = asyncio.Event()
    answers = [await site.hand_in() for _ in range(5)]
    stop = asyncio.Event()
    task = asyncio.create_task(site.postman.run(asyncio.Event(), stop))
    await site.until(lambda: len(site.postman._in_hand) == 2)
    stop.set()
    await asyncio.sleep(0.02)
    assert not task.done()
    site.outgoing.hold.set()
    await asyncio.wait_for(task, 5)
    states = [(await site.states(one["id"]))[0] for one in answers]
    assert (states.count("accepted"), states.count("waiting"), len(site.outgoing.mails)) == (2, 3, 2)


async def test_an_outgoing_that_gets_another_name_sends_nothing_twice(site: Site) -> None:
    site.outgoing.hold = asyncio.Event()
    answers = [await site.hand_in() for _ in range(4)]
    async with site.running():
        await site.until(lambda: len(site.postman._in_hand) == 2)
        site.postman._outgoings = {"desk": (new := FakeOutgoing())}
        site.use(Senders({"desk": Identity("desk", SUPPORT.sender, formerly="support")}))
        site.postman.insist()
        await asyncio.sleep(0.05)
        site.outgoing.hold.set()
        for answer in answers:
            await site.done(answer["id"])
    ids = [message_from_bytes(one.octets)["Message-ID"] for one in [*site.outgoing.mails, *new.mails]]
    assert sorted(ids) == sorted(answer["message_id"] for answer in answers)


async def test_what_is_held_is_said_no_longer_once_all_of_it_was_cancelled(site: Site) -> None:
    answer = await site.hand_in()
    site.use(Senders({}, SENDERS.mailboxes, SENDERS.defaults, SENDERS.intakes))
    async with site.running():
        await site.until(lambda: bool(site.postman.hindered()))
        assert await site.alarm.stands(Kind.OUTBOX_HELD, "support")
        await site.postman.cancel(answer["id"])
        site.postman.insist()
        await site.until(lambda: not site.postman.hindered())
    assert not await site.alarm.stands(Kind.OUTBOX_HELD, "support")


async def test_from_the_moment_that_mail_is_diverted_not_one_more_reaches_a_customer(site: Site) -> None:
    site.outgoing.hold = asyncio.Event()
    answers = [await site.hand_in() for _ in range(6)]
    async with site.running():
        await site.until(lambda: len(site.postman._in_hand) == 2)
        diverted = replace(SUPPORT, divert_to="test@x.example")
        site.use(Senders({"support": diverted}, SENDERS.mailboxes, SENDERS.defaults, SENDERS.intakes))
        site.postman.insist()
        site.outgoing.hold.set()
        for answer in answers:
            await site.done(answer["id"])
    assert [one.recipients[0] for one in site.outgoing.mails].count("ada@x.example") == 2


@pytest.mark.parametrize("lanes", [1, 2])
async def test_a_mail_that_the_relay_takes_for_its_own_trouble_does_not_stop_the_others(site: Site, lanes: int) -> None:
    site.use(replace(SENDERS, identities={"support": replace(SUPPORT, lanes=lanes)}))
    first, *others = [await site.hand_in() for _ in range(9)]
    site.outgoing.never = first["message_id"]
    async with site.running():
        await site.until(lambda: bool(site.postman.hindered()))
        for _ in range(2):
            site.postman.insist()
            await asyncio.sleep(0.05)
        for answer in others:
            await site.done(answer["id"])
        await site.until(lambda: site.postman.hindered() == [])
    assert await site.states(first["id"]) == ["deferred"]


def test_no_mail_is_put_off_for_so_long_that_a_clock_is_doubted_for_it() -> None:
    assert waiting_time(1000) < OUTBOX_WAITS_AT_MOST
