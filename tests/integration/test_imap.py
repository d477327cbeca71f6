"""The IMAP source on a real Dovecot: what the conformance suite does not ask because it is IMAP's own."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import os
import shutil
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.core.message import Claim, Gone, MessageRef, RawMessage
from mailpoller.core.ports import Start, Wake
from servers.dovecot import Dovecot
from servers.mailboxes import ALL, claims_of, fetched, imap_source, listed, session_of, settled
from servers.proxy import Fault, FaultProxy, random_faults


def mail(number: int, size: int = 0) -> bytes:
    head = b"From: a@example.com\r\nSubject: number %d\r\n\r\n" % number
    return head + b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n" * max(
        1, (size - len(head)) // 64
    )


def texts(answers: list[RawMessage | Gone]) -> list[bytes]:
    return [bytes(one.octets.view()) for one in answers if isinstance(one, RawMessage)]


@pytest.fixture(scope="module")
def courier_like() -> Iterator[Dovecot]:
    """The namespace of Courier, and none of the extensions that came after it."""
    with Dovecot(prefix="INBOX.", separator=".", extra="imap_capability = IMAP4rev1 NAMESPACE UIDPLUS") as server:
        yield server


# --- TLS -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["tls", "ssl-tls", "starttls-required", "start-tls-required", "starttls", "start-tls"])
async def test_mail_is_fetched_over_every_kind_of_tls(dovecot: Dovecot, user: str, tmp_path: Path, mode: str) -> None:
    port = dovecot.imaps_port if mode in ("tls", "ssl-tls") else dovecot.imap_port
    dovecot.deliver_all(user, [mail(number, 50_000) for number in range(20)])
    async with session_of(imap_source(tmp_path, port, user, tls=mode, ca_file=dovecot.ca_file)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        assert sorted(texts(await fetched(session, claims_of(refs)))) == sorted(mail(n, 50_000) for n in range(20))


async def test_a_pinned_certificate_is_trusted_and_no_other(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    der = ssl.PEM_cert_to_DER_cert(dovecot.ca_file.read_text())
    pin = hashlib.sha256(der).hexdigest()
    colons = ":".join(pin[i : i + 2] for i in range(0, 64, 2)).upper()
    async with session_of(imap_source(tmp_path, dovecot.imaps_port, user, tls="tls", pin=colons)) as session:
        await session.open("INBOX")
    for mode, port in (("tls", dovecot.imaps_port), ("starttls-required", dovecot.imap_port)):
        with pytest.raises(TransientError, match="not the pinned one"):
            await imap_source(tmp_path, port, user, tls=mode, pin="0" * 64).connect()


class ElsewhereProxy(FaultProxy):
    """A proxy at an address that is not in the server's certificate."""

    host = "127.0.0.2"


@pytest.mark.parametrize("mode", ["tls", "starttls-required", "starttls"])
async def test_tls_trouble_is_never_called_a_wrong_password(
    dovecot: Dovecot, user: str, tmp_path: Path, mode: str
) -> None:
    port = dovecot.imaps_port if mode == "tls" else dovecot.imap_port
    with pytest.raises(TransientError, match="not trusted: self-signed"):
        await imap_source(tmp_path, port, user, tls=mode).connect()
    async with ElsewhereProxy(port) as proxy:
        elsewhere = imap_source(tmp_path, proxy.port, user, tls=mode, host=proxy.host, ca_file=dovecot.ca_file)
        with pytest.raises(TransientError, match="not trusted: IP address mismatch"):
            await elsewhere.connect()
    with pytest.raises(TransientError, match=r"does this port speak TLS|no greeting"):
        wrong = dovecot.imap_port if mode == "tls" else dovecot.imaps_port
        await imap_source(tmp_path, wrong, user, tls=mode, connect_timeout="300ms").connect()


async def test_equal_policies_share_one_context_and_connections_have_small_buffers(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    source = imap_source(tmp_path, dovecot.imaps_port, user, tls="tls", ca_file=dovecot.ca_file)
    async with session_of(source) as one, session_of(source) as two:
        transports = [session._protocol.transport for session in (one, two)]  # type: ignore[attr-defined]
        contexts = {id(transport.get_extra_info("sslcontext")) for transport in transports}
        assert len(contexts) == 1
        assert len(transports[0]._ssl_protocol._ssl_buffer) == 16 * 1024


# --- logging in ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mechanism", ["plain", "login", "auto"])
async def test_every_way_to_log_in_is_understood_and_refused_with_words(
    dovecot: Dovecot, user: str, tmp_path: Path, mechanism: str
) -> None:
    settings = {"auth": {"mechanism": mechanism}}
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, **settings)) as session:
        assert await session.folders() == ["INBOX"]
    with pytest.raises(CredentialsRefused, match="AUTHENTICATIONFAILED") as caught:
        await imap_source(tmp_path, dovecot.imap_port, user, password="wrong-wrong", **settings).connect()
    assert "wrong-wrong" not in str(caught.value)


async def test_a_server_that_is_not_there_is_a_passing_error(tmp_path: Path) -> None:
    async with FaultProxy(1) as proxy:
        await proxy.refuse()
        with pytest.raises(TransientError, match=r"cannot connect.*refused"):
            await imap_source(tmp_path, proxy.port, "joe").connect()
    with pytest.raises(TransientError, match=r"DNS: no-such-host\.invalid is not found"):
        await imap_source(tmp_path, 143, "joe", host="no-such-host.invalid").connect()


# --- folders ---------------------------------------------------------------------------------------------------------
async def test_folders_with_any_name_are_polled(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    names = ["Entwürfe", "Größe & Co/Unter 'x'", "日本語", 'Quo"te', "100% *"]
    for number, name in enumerate(names):
        dovecot.deliver(user, mail(number), name)
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, folders=[*names, "Missing"])) as session:
        assert await session.folders() == names
        for number, name in enumerate(names):
            folder = await session.open(name)
            assert folder.name == name
            refs, _ = await listed(session, folder)
            assert texts(await fetched(session, claims_of(refs))) == [mail(number)]


async def test_folders_below_a_namespace_are_found_and_made(courier_like: Dovecot, tmp_path: Path) -> None:
    courier_like.deliver("carl", mail(1), "INBOX.Support.New")
    courier_like.deliver("carl", mail(2))
    async with session_of(
        imap_source(tmp_path, courier_like.imap_port, "carl", folders=["Support/New", "inbox", "INBOX.Support.New"])
    ) as session:
        assert list(await session.folders()) == ["Support/New", "inbox", "INBOX.Support.New"]
        refs, _ = await listed(session, await session.open("Support/New"))
        assert texts(await fetched(session, claims_of(refs))) == [mail(1)]
        refs, _ = await listed(session, await session.open("inbox"))
        (done,) = await session.settle(settled(refs, Disposition(seen=True, move="Done/2026")))
        assert (done.state, done.reason) == ("applied", "")
    assert courier_like.octets("carl", "INBOX.Done.2026") == {1: mail(2)}
    assert courier_like.flags("carl", "INBOX.Done.2026") == {1: {"\\Seen"}}
    assert courier_like.flags("carl") == {}


async def test_the_epoch_names_protocol_host_user_and_uidvalidity(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver(user, mail(1))
    source = imap_source(tmp_path, dovecot.imap_port, user, host="LocalHost")
    assert (source.account.type, source.account.host, source.account.user) == ("imap", "localhost", user)
    async with session_of(source) as session:
        folder = await session.open("INBOX")
    validity = dovecot.uidvalidity(user)
    assert folder.epoch == f"imap://{user}@localhost:{dovecot.imap_port}/;UIDVALIDITY={validity}"


async def test_a_new_uidvalidity_is_a_new_epoch_and_old_claims_are_refused(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver_all(user, [mail(1), mail(2)])
    source = imap_source(tmp_path, dovecot.imap_port, user)
    async with session_of(source) as session:
        before = await session.open("INBOX")
        old, _ = await listed(session, before)
    dovecot.renumber(user)
    async with session_of(source) as session:
        after = await session.open("INBOX")
        assert after.epoch != before.epoch
        with pytest.raises(TransientError, match="not open in this epoch"):
            await fetched(session, claims_of(old))
        done = await session.settle(settled(old, Disposition(delete=True)))
        assert [one.state for one in done] == ["pending", "pending"]
    assert len(dovecot.flags(user)) == 2


# --- messages --------------------------------------------------------------------------------------------------------
async def test_five_thousand_messages_are_listed_in_pages_and_fetched(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    messages = [mail(number) for number in range(5000)]
    dovecot.deliver_all(user, messages)
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        folder = await session.open("INBOX")
        found: list[bytes] = []
        uids: list[int] = []
        async for page in session.pending(folder, None, ALL):
            assert len(page.refs) <= 500
            assert all(ref.size is not None for ref in page.refs)
            uids += [int(ref.uid) for ref in page.refs]
            # Each page's position goes on exactly behind it.
            assert page.position == f"{uids[-1] + 1} below={uids[-1]}"
            found += texts(await fetched(session, claims_of(page.refs)))
        assert uids == sorted(uids)
        assert sorted(found) == sorted(messages)
    assert set(dovecot.flags(user).values()) == {frozenset()}


async def test_a_message_of_25_mb_goes_to_a_spool_file(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    big = mail(1, 25_000_000)
    dovecot.deliver(user, big)
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        (answer,) = await fetched(session, claims_of(refs))
        assert isinstance(answer, RawMessage)
        assert answer.octets.path is not None
        assert answer.octets.size == len(big)
        assert answer.octets.digest == hashlib.sha256(big).digest()
        answer.octets.close()
    assert list((tmp_path / "spool").iterdir()) == []


async def test_nothing_beyond_the_limit_is_downloaded(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    whole, cut = mail(1, 60_000), mail(2, 5_000_000)
    dovecot.deliver_all(user, [whole, cut])
    async with (
        FaultProxy(dovecot.imap_port) as proxy,
        session_of(imap_source(tmp_path, proxy.port, user)) as session,
    ):
        refs, _ = await listed(session, await session.open("INBOX"))
        for sized in (True, False):
            known = refs if sized else [MessageRef(ref.folder, ref.uid) for ref in refs]
            before = proxy.down
            answers = {a.claim.ref.uid: a for a in await fetched(session, claims_of(known), limit=100_000)}
            assert isinstance(answers["1"], RawMessage) and isinstance(answers["2"], RawMessage)
            assert (answers["1"].truncated, answers["2"].truncated) == (False, True)
            assert answers["1"].octets.view() == whole
            assert answers["2"].octets.view() == cut[:100_000]
            assert proxy.down - before < len(whole) + 100_000 + 1000


async def test_a_message_that_is_exactly_as_long_as_the_limit_is_whole(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    octets = mail(1, 10_000)
    dovecot.deliver(user, octets)
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        for limit, truncated in ((len(octets) - 1, True), (len(octets), False), (len(octets) + 1, False)):
            (answer,) = await fetched(session, claims_of(refs), limit)
            assert isinstance(answer, RawMessage)
            assert answer.truncated is truncated
            assert answer.octets.view() == octets[:limit]


async def test_what_the_server_says_about_a_message_is_told(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    received = datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)
    dovecot.deliver(user, mail(1), date=received, seen=True)
    dovecot.store(user, "1", "+FLAGS ($Label)")
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        (answer,) = await fetched(session, claims_of(refs))
        assert isinstance(answer, RawMessage)
        assert answer.received == received
        assert set(answer.flags) == {"\\Seen", "$Label"}
        assert answer.announced == len(mail(1))


async def test_a_vanished_message_is_gone_and_the_others_are_had(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver_all(user, [mail(number) for number in range(1, 6)])
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        dovecot.expunge(user, "2,4")
        answers = await fetched(session, claims_of([*refs, MessageRef(refs[0].folder, "77", 5)]))
        assert {a.claim.ref.uid for a in answers if isinstance(a, Gone)} == {"2", "4", "77"}
        assert sorted(texts(answers)) == [mail(1), mail(3), mail(5)]


async def test_what_is_expunged_in_the_middle_of_a_download_is_had_or_gone(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver_all(user, [mail(number, 30_000) for number in range(200)])
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        answers = []
        async for answer in session.fetch(claims_of(refs), 50_000_000):
            if not answers:
                await asyncio.to_thread(dovecot.expunge, user, "60:190")
            answers.append(answer)
    assert sorted(int(one.claim.ref.uid) for one in answers) == list(range(1, 201))
    assert {one.claim.ref.uid for one in answers if isinstance(one, Gone)} <= {str(uid) for uid in range(60, 191)}
    for one in answers:
        assert isinstance(one, Gone) or one.octets.view() == mail(int(one.claim.ref.uid) - 1, 30_000)


async def test_a_message_moved_away_and_back_is_listed_anew(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver_all(user, [mail(1), mail(2)])
    dovecot.create(user, "Elsewhere")
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        folder = await session.open("INBOX")
        _, position = await listed(session, folder)
        dovecot.move(user, "1", "INBOX", "Elsewhere")
        dovecot.move(user, "1", "Elsewhere", "INBOX")
        folder = await session.open("INBOX")
        refs, _ = await listed(session, folder, position)
        assert texts(await fetched(session, claims_of(refs))) == [mail(1)]


async def test_a_fetch_that_nobody_finishes_leaves_nothing_and_stops_nobody(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver_all(user, [mail(number, 2_000_000) for number in range(10)])
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, position = await listed(session, await session.open("INBOX"))
        stream = session.fetch(claims_of(refs), 50_000_000)
        first = await anext(stream)
        assert isinstance(first, RawMessage)
        first.octets.close()
        await stream.aclose()  # type: ignore[attr-defined]
        await session.settle(settled(refs[:1], Disposition(seen=True)))
        answers = await fetched(session, claims_of(refs[5:6]))
        assert texts(answers) == [mail(5, 2_000_000)]
        for answer in answers:
            assert isinstance(answer, RawMessage)
            answer.octets.close()
        assert list((tmp_path / "spool").iterdir()) == []
        assert position is not None


async def test_several_fetches_and_settlements_overlap(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver_all(user, [mail(number, 20_000) for number in range(400)])
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))

        async def carry(part: list[MessageRef]) -> int:
            answers = await fetched(session, claims_of(part))
            done = await session.settle(settled(part, Disposition(seen=True)))
            assert {one.state for one in done} == {"applied"}
            return len(texts(answers))

        counts = await asyncio.gather(*(carry(refs[start : start + 100]) for start in range(0, 400, 100)))
        assert counts == [100] * 4
    assert set(dovecot.flags(user).values()) == {frozenset({"\\Seen"})}


async def test_another_folder_opened_in_the_middle_never_mixes_up_messages(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver_all(user, [mail(number, 400_000) for number in range(100)])
    dovecot.deliver_all(user, [mail(1000 + number, 100) for number in range(100)], "Other")
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, folders=["INBOX", "Other"])) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        stream = session.fetch(claims_of(refs), 50_000_000)
        answers = [await anext(stream)]
        await session.open("Other")
        with pytest.raises(TransientError, match="another folder"):
            async for answer in stream:
                answers.append(answer)  # noqa: PERF401 what came before the error counts
        assert 0 < len(answers) < 100
        for answer in answers:
            assert isinstance(answer, RawMessage)
            assert answer.octets.view() == mail(int(answer.claim.ref.uid) - 1, 400_000)
        done = await session.settle(settled(refs, Disposition(delete=True)))
        assert {one.state for one in done} == {"pending"}
    assert len(dovecot.flags(user)) == len(dovecot.flags(user, "Other")) == 100


# --- positions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["unseen", "since", "now"])
async def test_an_interrupted_first_listing_keeps_its_start_and_loses_nothing_newer(
    dovecot: Dovecot, user: str, tmp_path: Path, kind: str
) -> None:
    instant = datetime(2026, 5, 1, 12, tzinfo=UTC)
    for number in range(1100):
        wanted = number % 2 == 0
        dovecot.deliver(user, mail(number), date=instant if wanted else instant - timedelta(seconds=1), seen=not wanted)
    start = Start(kind, instant if kind == "since" else None)  # type: ignore[arg-type]
    source = imap_source(tmp_path, dovecot.imap_port, user)
    async with session_of(source) as session:
        pages = session.pending(await session.open("INBOX"), None, start)
        first = await anext(pages)
        await pages.aclose()  # type: ignore[attr-defined]
    # Later mail that the filter would not want, had it been there at the first listing.
    dovecot.deliver(user, mail(2000), date=instant - timedelta(days=9), seen=True)
    async with session_of(source) as session:
        folder = await session.open("INBOX")
        rest, position = await listed(session, folder, first.position, start)
        found = [int(ref.uid) for ref in [*first.refs, *rest]]
        assert found == [*(range(1, 1101, 2) if kind != "now" else ()), 1101]
        assert await listed(session, folder, position, start) == ([], position)


async def test_a_poll_without_news_costs_one_short_command(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver_all(user, [mail(number) for number in range(700)])
    async with (
        FaultProxy(dovecot.imap_port) as proxy,
        session_of(imap_source(tmp_path, proxy.port, user)) as session,
    ):
        _, position = await listed(session, await session.open("INBOX"))
        up, down = proxy.up, proxy.down
        for _ in range(10):
            assert await listed(session, await session.open("INBOX"), position) == ([], position)
        assert proxy.up - up < 10 * 20
        assert proxy.down - down < 10 * 60
        assert (proxy.down - down) > 0
    async with (
        FaultProxy(dovecot.imap_port) as proxy,
        session_of(imap_source(tmp_path, proxy.port, user)) as session,
    ):
        folder = await session.open("INBOX")
        down = proxy.down
        assert await listed(session, folder, position) == ([], position)
        assert proxy.down == down  # SELECT has told that there is nothing new


# --- dispositions ----------------------------------------------------------------------------------------------------
async def test_flags_moves_and_deletions_are_carried_out(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver_all(user, [mail(number) for number in range(1, 7)])
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        ways = [
            Disposition(seen=True),
            Disposition(flags=("$Done", "\\Flagged")),
            Disposition(seen=True, move="Fertig/Größe"),
            Disposition(delete=True),
            Disposition(),
        ]
        settlements = [one for ref, way in zip(refs, ways, strict=False) for one in settled([ref], way)]
        for _ in range(2):  # idempotent
            assert [one.state for one in await session.settle(settlements)] == ["applied"] * 5
    assert dovecot.flags(user) == {1: {"\\Seen"}, 2: {"$Done", "\\Flagged"}, 5: frozenset(), 6: frozenset()}
    assert dovecot.octets(user, "Fertig/Größe") == {1: mail(3)}
    assert dovecot.flags(user, "Fertig/Größe") == {1: {"\\Seen"}}


async def test_without_move_a_message_is_copied_and_only_it_is_expunged(courier_like: Dovecot, tmp_path: Path) -> None:
    courier_like.deliver_all("copy", [mail(1), mail(2), mail(3)])
    courier_like.store("copy", "3", "+FLAGS (\\Deleted)")  # somebody else's, and not ours to expunge
    async with session_of(imap_source(tmp_path, courier_like.imap_port, "copy")) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        done = await session.settle(settled(refs[:1], Disposition(move="Done")))
        assert [(one.state, one.reason) for one in done] == [("applied", "")]
    assert courier_like.flags("copy") == {2: frozenset(), 3: {"\\Deleted"}}
    assert courier_like.octets("copy", "INBOX.Done") == {1: mail(1)}


async def test_without_uidplus_nothing_is_expunged_but_marked(tmp_path: Path) -> None:
    with Dovecot(extra="imap_capability = IMAP4rev1") as server:
        server.deliver_all("old", [mail(1), mail(2), mail(3)])
        async with session_of(imap_source(tmp_path, server.imap_port, "old")) as session:
            refs, _ = await listed(session, await session.open("INBOX"))
            done = [
                *await session.settle(settled(refs[:1], Disposition(delete=True))),
                *await session.settle(settled(refs[1:2], Disposition(move="Done"))),
            ]
            assert [one.state for one in done] == ["applied", "applied"]
            assert all("no UIDPLUS" in one.reason for one in done)
        assert server.flags("old") == {1: {"\\Deleted"}, 2: {"\\Deleted"}, 3: frozenset()}
        assert server.octets("old", "Done") == {1: mail(2)}


async def test_a_target_that_was_removed_is_made_anew(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver_all(user, [mail(1), mail(2)])
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        await session.settle(settled(refs[:1], Disposition(move="Done")))
        await session.settle(settled(refs[:1], Disposition(move="Done")))  # known to exist from now on
        with dovecot.client(user) as client:
            client.delete("Done")
        (done,) = await session.settle(settled(refs[1:], Disposition(move="Done")))
        assert (done.state, done.reason) == ("applied", "")
    assert dovecot.octets(user, "Done") == {1: mail(2)}


async def test_what_the_server_forbids_fails_with_its_words(user: str, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.mkdir()
    extra = "mail_plugins = acl\nprotocol imap {\n mail_plugins = acl imap_acl\n}\nplugin {\n acl = vfile\n}\n"
    with Dovecot(extra=extra) as server:
        server.deliver_all(user, [mail(1), mail(2)], "Shared")
        (server.maildir(user, "Shared") / "dovecot-acl").write_text("owner lr\n")
        source = imap_source(tmp_path, server.imap_port, user, folders=["Shared"])
        async with session_of(source) as session:
            refs, _ = await listed(session, await session.open("Shared"))
            assert len(texts(await fetched(session, claims_of(refs)))) == 2
            done = await session.settle(settled(refs, Disposition(seen=True)))
            assert {one.state for one in done} == {"failed"}
            assert all(one.reason for one in done)
        stages = [stage async for stage in source.probe([Disposition(seen=True)])]
        assert [stage.name for stage in stages if not stage.ok] == ["disposition"]
        assert stages[-1].advice


async def test_mail_that_the_target_has_no_room_for_stays_where_it_is(tmp_path: Path) -> None:
    extra = (
        "mail_plugins = quota\nprotocol imap {\n mail_plugins = quota imap_quota\n}\n"
        "plugin {\n quota = maildir:User quota\n quota_rule = *:storage=50k\n quota_grace = 0\n}\n"
        "imap_capability = IMAP4rev1 UIDPLUS\n"
    )
    with Dovecot(extra=extra) as server:
        server.deliver_all("full", [mail(number, 20_000) for number in (1, 2)])
        async with session_of(imap_source(tmp_path, server.imap_port, "full")) as session:
            refs, _ = await listed(session, await session.open("INBOX"))
            done = await session.settle(settled(refs, Disposition(move="Done")))
            assert {(one.state, "OVERQUOTA" in one.reason) for one in done} == {("failed", True)}
        assert server.flags("full") == {1: frozenset(), 2: frozenset()}


async def test_a_move_into_the_folder_itself_fails(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver(user, mail(1))
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        (done,) = await session.settle(settled(refs, Disposition(move="inbox")))
        assert done.state == "failed"
    assert dovecot.octets(user) == {1: mail(1)}


# --- waiting ---------------------------------------------------------------------------------------------------------
async def test_idle_goes_on_where_other_commands_come_between(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver(user, mail(1))
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user)) as session:
        refs, position = await listed(session, await session.open("INBOX"))
        waiting = asyncio.create_task(session.wait(timedelta(minutes=5)))
        for _ in range(5):
            await asyncio.sleep(0.05)
            await session.settle(settled(refs, Disposition(seen=True)))
            assert len(texts(await fetched(session, claims_of(refs)))) == 1
        assert not waiting.done()
        dovecot.deliver(user, mail(2))
        async with asyncio.timeout(60):
            assert await waiting is Wake.NEWS
        new, _ = await listed(session, await session.open("INBOX"), position)
        assert texts(await fetched(session, claims_of(new))) == [mail(2)]


async def test_news_of_the_first_folder_are_seen_after_another_one_was_open(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver(user, mail(1))
    dovecot.create(user, "Other")
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, folders=["INBOX", "Other"])) as session:
        await session.folders()
        for name in ("INBOX", "Other"):
            await listed(session, await session.open(name))
        assert await session.wait(timedelta(seconds=0.3)) is Wake.LIMIT
        for name in ("INBOX", "Other"):
            await listed(session, await session.open(name))
        dovecot.deliver(user, mail(2))
        began = time.monotonic()
        assert await session.wait(timedelta(minutes=5)) is Wake.NEWS
        assert time.monotonic() - began < 30
        # News are told once: who cannot list now is not called again and again.
        assert await session.wait(timedelta(seconds=0.3)) is Wake.LIMIT


async def test_a_folder_that_is_deleted_while_we_watch_it_is_noticed(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver(user, mail(1), "Work")
    source = imap_source(tmp_path, dovecot.imap_port, user, folders=["Work"])
    async with session_of(source) as session:
        await listed(session, await session.open("Work"))
        waiting = asyncio.create_task(session.wait(timedelta(seconds=20)))
        await asyncio.sleep(0.1)
        with dovecot.client(user) as client:
            client.delete("Work")
        async with asyncio.timeout(5):
            with pytest.raises(SessionLost, match="relogin"):
                await waiting
    async with session_of(source) as session:
        with pytest.raises(TransientError, match="none of the mailbox's folders"):
            await session.folders()
        with pytest.raises(TransientError, match="cannot be opened"):
            await session.open("Work")


async def test_a_folder_that_takes_the_name_of_another_is_never_taken_for_it(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver_all(user, [mail(1), mail(2)], "Work")
    source = imap_source(tmp_path, dovecot.imap_port, user, folders=["Work"])
    async with session_of(source) as session:
        folder = await session.open("Work")
        refs, _ = await listed(session, folder)
        waiting = asyncio.create_task(session.wait(timedelta(seconds=20)))
        await asyncio.sleep(0.1)
        with dovecot.client(user) as client:
            client.rename("Work", "Former")
        dovecot.deliver_all(user, [mail(3), mail(4)], "Work")
        with pytest.raises(TransientError):
            await fetched(session, claims_of(refs))
        with pytest.raises(SessionLost):
            await waiting
    async with session_of(source) as session:
        assert await session.open("Work") != folder
        done = await session.settle(settled(refs, Disposition(delete=True)))
        assert {one.state for one in done} == {"pending"}
    assert set(dovecot.octets(user, "Work").values()) == {mail(3), mail(4)}


async def test_without_idle_waiting_is_sleeping_until_the_limit(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, idle=False)) as session:
        _, position = await listed(session, await session.open("INBOX"))
        dovecot.deliver(user, mail(1))
        began = time.monotonic()
        assert await session.wait(timedelta(seconds=0.5)) is Wake.LIMIT
        assert time.monotonic() - began > 0.4
        refs, _ = await listed(session, await session.open("INBOX"), position)
        assert len(refs) == 1


async def test_a_server_that_is_restarted_is_noticed_and_reached_again(user: str, tmp_path: Path) -> None:
    with Dovecot() as server:
        server.deliver(user, mail(1))
        source = imap_source(tmp_path, server.imap_port, user)
        async with session_of(source) as session:
            folder = await session.open("INBOX")
            _, position = await listed(session, folder)
            waiting = asyncio.create_task(session.wait(timedelta(minutes=9)))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.stop)
            with pytest.raises(SessionLost):
                async with asyncio.timeout(60):
                    await waiting
        await asyncio.to_thread(server.start)
        async with session_of(source) as session:
            assert await session.open("INBOX") == folder
            assert await listed(session, folder, position) == ([], position)


# --- shadow, and a bad line ------------------------------------------------------------------------------------------
async def test_shadow_mode_changes_nothing_not_even_recent(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver_all(user, [mail(1), mail(2)])
    new = sorted(path.name for path in (dovecot.maildir(user) / "new").iterdir())
    async with session_of(imap_source(tmp_path, dovecot.imap_port, user, mode="shadow")) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        await fetched(session, claims_of(refs))
        for way in (Disposition(seen=True), Disposition(delete=True), Disposition(move="Done")):
            assert {one.state for one in await session.settle(settled(refs, way))} == {"applied"}
    assert len(new) == 2
    assert dovecot.flags(user) == {1: frozenset(), 2: frozenset()}
    assert dovecot.folders(user) == {"INBOX"}


def _sweep(kind: str) -> list[Fault]:
    """One connection after the other breaks a little later: while logging in, listing, fetching, settling."""
    down = [Fault(kind, after, "down") for after in (0, 130, 600, 900, 1500, 4000, 30_000, 100_000, 190_000)]  # type: ignore[arg-type]
    up = [Fault(kind, after, "up") for after in (20, 60, 110, 250)]  # type: ignore[arg-type]
    return [*up, *down]


PLANS = {
    **{kind: _sweep(kind) for kind in ("cut", "close", "stall")},
    **{f"seed {seed}": list(itertools.islice(random_faults(seed, octets=100_000), 20)) for seed in (0, 2, 5)},
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
async def test_a_line_that_breaks_anywhere_loses_nothing_and_hangs_nothing(
    dovecot: Dovecot, user: str, tmp_path: Path, plan: list[Fault]
) -> None:
    messages = [mail(number, 3000) for number in range(60)]
    dovecot.deliver_all(user, messages)
    found: dict[str, bytes] = {}
    done = False
    async with FaultProxy(dovecot.imap_port, plan=plan) as proxy:
        source = imap_source(tmp_path, proxy.port, user, connect_timeout="500ms", command_timeout="500ms")
        async with asyncio.timeout(240):
            while not done:
                try:
                    async with session_of(source) as session:
                        refs, _ = await listed(session, await session.open("INBOX"))
                        # Half of what is left, so that later faults still find something to break.
                        todo = [Claim(ref, "mid") for ref in refs if ref.uid not in found]
                        async for answer in session.fetch(todo[: max(5, len(todo) // 2)], 1_000_000):
                            assert isinstance(answer, RawMessage)
                            found[answer.claim.ref.uid] = bytes(answer.octets.view())
                        states = await session.settle(settled(refs, Disposition(flags=("$Done",))))
                        done = len(found) == len(messages) and {one.state for one in states} == {"applied"}
                except TransientError:
                    continue
        assert proxy.connections > 5
    assert sorted(found.values()) == sorted(messages)
    assert set(dovecot.flags(user).values()) == {frozenset({"$Done"})}
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_connection_cut_at_every_step_of_logging_in_is_a_passing_error(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    async with FaultProxy(dovecot.imap_port) as proxy:
        for after in range(0, 400, 40):
            for direction in ("down", "up"):
                proxy.plan = [Fault("cut", after, direction)]  # type: ignore[arg-type]
                try:
                    session = await imap_source(tmp_path, proxy.port, user).connect()
                except TransientError as error:
                    assert not isinstance(error, SessionLost)
                else:
                    await session.close()


# --- the probe -------------------------------------------------------------------------------------------------------
async def test_a_probe_times_every_stage(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver(user, mail(1))
    source = imap_source(tmp_path, dovecot.imaps_port, user, tls="tls", ca_file=dovecot.ca_file)
    stages = [stage async for stage in source.probe([Disposition(seen=True), Disposition(move="Done")])]
    assert [stage.name for stage in stages] == [
        "dns", "tcp", "tls", "greeting", "login", "folder", "message", "disposition"
    ]  # fmt: skip
    assert all(stage.ok and stage.advice == "" for stage in stages)
    assert "will be created" in stages[-1].detail
    assert dovecot.folders(user) == {"INBOX"}
    assert dovecot.flags(user) == {1: frozenset()}


@pytest.mark.parametrize(
    ("settings", "stage", "advice"),
    [
        ({"host": "no-such-host.invalid"}, "dns", "getent"),
        ({"port": 1}, "tcp", "nc -vz"),
        ({"tls": "tls"}, "tls", "STARTTLS"),
        ({"tls": "starttls-required"}, "tls", "fingerprint"),
        ({"password": "wrong"}, "login", "username"),
        ({"folders": ["Nowhere"]}, "folder", "folders"),
    ],
)
async def test_a_probe_ends_where_it_fails_and_says_what_to_do(
    dovecot: Dovecot, user: str, tmp_path: Path, settings: dict[str, object], stage: str, advice: str
) -> None:
    port = settings.pop("port", dovecot.imap_port) if "port" in settings else dovecot.imap_port
    stages = [one async for one in imap_source(tmp_path, port, user, **settings).probe([])]  # type: ignore[arg-type]
    assert [one.name for one in stages if not one.ok] == [stage]
    assert stages[-1].name == stage
    assert advice in stages[-1].advice
    assert "secret" not in repr(stages)


async def test_a_probe_names_the_mechanism_that_works_where_scram_is_offered_and_cannot(tmp_path: Path) -> None:
    salt = b"salty"
    hashed = base64.b64encode(hashlib.sha256(b"secret" + salt).digest() + salt).decode()
    with Dovecot(mechanisms="plain login scram-sha-256", stored="{SSHA256}" + hashed) as server:
        settings = {"tls": "tls", "ca_file": server.ca_file}
        stages = [one async for one in imap_source(tmp_path, server.imaps_port, "joe", **settings).probe([])]
        assert (stages[-1].name, stages[-1].ok) == ("login", False)
        assert "mechanism: plain" in stages[-1].advice
        settings["auth"] = {"mechanism": "plain"}
        stages = [one async for one in imap_source(tmp_path, server.imaps_port, "joe", **settings).probe([])]
        assert all(stage.ok for stage in stages)


# --- a store that is put back ----------------------------------------------------------------------------------------
def store(server: Dovecot, user: str) -> Path:
    return server.directory / "mail" / user


@pytest.mark.parametrize("running", [True, False], ids=["while we are there", "while we are away"])
async def test_a_store_that_is_put_back_is_noticed(tmp_path: Path, running: bool) -> None:
    with Dovecot() as server:
        server.deliver_all("joe", [mail(number) for number in range(1, 6)])
        source = imap_source(tmp_path, server.imap_port, "joe")
        async with session_of(source) as session:
            folder = await session.open("INBOX")
            await listed(session, folder)
            copy = tmp_path / "copy"
            shutil.copytree(store(server, "joe"), copy, symlinks=True)
            server.deliver_all("joe", [mail(number) for number in range(6, 11)])
            before, position = await listed(session, await session.open("INBOX"))
            assert [ref.uid for ref in before] == ["6", "7", "8", "9", "10"] or len(before) == 10
            kept = {ref.uid: ref for ref in await session.look(before) if ref is not None}
        server.stop()
        owner = store(server, "joe").stat()
        shutil.rmtree(store(server, "joe"))
        shutil.copytree(copy, store(server, "joe"), symlinks=True)
        for path in (store(server, "joe"), *store(server, "joe").rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        server.start()
        if running:
            async with session_of(source) as session:
                behind = await session.survey(await session.open("INBOX"), position)
                assert behind.behind
                assert behind.position is not None
                position = behind.position
        server.deliver_all("joe", [mail(number, 500) for number in range(20, 30)])  # past the old mark
        async with session_of(source) as session:
            survey = await session.survey(await session.open("INBOX"), position)
            shown = {ref.uid: ref for ref in survey.familiar}
            assert shown["5"].size == kept.get("5", shown["5"]).size
            assert shown["6"].size != kept["6"].size
            assert bool(survey.strange) == running
