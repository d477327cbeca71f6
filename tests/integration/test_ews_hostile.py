"""Bad answers: broken, endless, oversized, of another kind. A clear error, in bounded time and memory, and nothing
lost."""

from __future__ import annotations

import base64
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import RawMessage
from mailpoller.sources.ews import client as ews_client
from mailpoller.testing.source_suite import WHOLE, claim, connected, fetched, letter
from servers.ews import Rig, listed, settled
from servers.exchange import Exchange, Upset, enveloped, exchange, fault, seen_in


@pytest.fixture
def server() -> Iterator[Exchange]:
    with exchange(offers=["Basic"]) as server:
        yield server


@pytest.fixture
def rig(server: Exchange, tmp_path: Path) -> Rig:
    return Rig(server, tmp_path)


def bomb(depth: int = 12) -> bytes:
    """Entities that would expand to a billion."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "lol" * 10}">' for n in range(depth))
    return f'<?xml version="1.0"?><!DOCTYPE x [{entities}]><x>&e{depth - 1};</x>'.encode()


EXTERNAL = b'<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>'
XML = (("Content-Type", "text/xml; charset=utf-8"),)


@pytest.mark.parametrize(
    ("upset", "words"),
    [
        (Upset(body=b""), "broken XML"),
        (Upset(body=b"<html>not closed"), "no SOAP envelope"),
        (Upset(body=enveloped("")[:-30]), "broken XML"),
        (Upset(body=b"<a><b></a>"), "no SOAP envelope"),
        (Upset(body=enveloped("<m:Other/>")), "another question"),
        (Upset(body=bomb()), "document type declaration"),
        (Upset(body=EXTERNAL), "document type declaration"),
        (Upset(body=enveloped("<t:a>" * 100)), "too many elements"),
        (Upset(body=enveloped("<t:a/>" * 150_000)), "too many elements"),
        (Upset(body=enveloped("x" * 70_000_000)), "more than 16,777,216 octets"),
        (Upset(body=enveloped("\x00")), "broken XML"),
        (Upset.page(200), "text/html instead of XML"),
        (Upset.page(404), "HTTP 404"),
        (Upset.page(500), "HTTP 500"),
        (Upset.page(302, Location="https://evil.example/?secret=1"), "redirects to evil.example"),
        (Upset(headers=(*XML, ("Content-Encoding", "gzip"))), "a coding that was not asked for"),
        (
            Upset(500, fault("ErrorInternalServerError", "Something\nbad " + "x" * 4000)),
            "ErrorInternalServerError: Something bad",
        ),
        (Upset(500, enveloped("<s:Fault><faultcode>s:Client</faultcode></s:Fault>")), "Client"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_answer_that_is_none_is_a_clear_passing_error(rig: Rig, upset: Upset, words: str) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        rig.server.upset("SyncFolderItems", upset)
        began = time.monotonic()
        with pytest.raises(TransientError) as caught:
            await listed(session)
        assert words in str(caught.value)
        assert len(str(caught.value)) < 500
        assert not isinstance(caught.value, SessionLost)
        assert time.monotonic() - began < 30
        # The session goes on, and nothing was skipped.
        _, refs, _ = await listed(session)
        assert list((await fetched(session, refs)).values()) == [letter(1)]


@pytest.mark.parametrize("after", [0, 1, 200, 2_000])
async def test_answer_that_is_cut_ends_the_session_and_loses_nothing(rig: Rig, after: int) -> None:
    for number in range(3):
        rig.server.deliver(letter(number))
    session = await rig.source().connect()
    rig.server.upset("SyncFolderItems", Upset(body=enveloped("x" * 3000), cut_after=after))
    with pytest.raises(SessionLost):
        await listed(session)
    await session.close()
    async with connected(rig.source()) as session:
        assert len((await listed(session))[1]) == 3


async def test_pages_without_end_are_noticed(rig: Rig) -> None:
    rig.server.deliver(letter(1))

    def endless(answer: bytes) -> bytes:
        return answer.replace(b"InRange>true", b"InRange>false")

    rig.server.upset("SyncFolderItems", Upset(instead=endless), times=5)
    async with connected(rig.source()) as session:
        # What is listed is taken all the same.
        _, refs, position = await listed(session)
        assert len(refs) == 1
        assert position.endswith(" - 1 -"), "and the next listing starts at the same place"


async def test_sync_states_that_go_round_in_circles_are_noticed(rig: Rig) -> None:
    states = iter(["QQ==", "Qg==", "QQ==", "Qg=="])

    def circling(answer: bytes) -> bytes:
        said = re.sub(rb"<m:SyncState>[^<]*", b"<m:SyncState>" + next(states).encode(), answer)
        return said.replace(b"InRange>true", b"InRange>false")

    def unknown(answer: bytes) -> bytes:
        return circling(
            enveloped(
                "<m:SyncFolderItemsResponse><m:ResponseMessages><m:SyncFolderItemsResponseMessage "
                "ResponseClass='Success'><m:ResponseCode>NoError</m:ResponseCode><m:SyncState>x</m:SyncState><m:IncludesLastItemInRange>false</m:IncludesLastItemInRange><m:Changes/></m:SyncFolderItemsResponseMessage></m:ResponseMessages></m:SyncFolderItemsResponse>"
            )
        )

    rig.server.upset("SyncFolderItems", Upset(instead=unknown), times=4)
    async with connected(rig.source()) as session:
        with pytest.raises(TransientError, match="its pages have no end"):
            await listed(session)


async def test_listing_without_a_sync_state_is_an_error_and_no_empty_folder(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    rig.server.upset(
        "SyncFolderItems", Upset(instead=lambda answer: re.sub(rb"<m:SyncState>.*</m:SyncState>", b"", answer))
    )
    async with connected(rig.source()) as session:
        with pytest.raises(TransientError, match="no sync state"):
            await listed(session)


# --- messages ------------------------------------------------------------------------------------------------------
async def spoilt(rig: Rig, spoil: dict[bytes, bytes], times: int = 3) -> tuple[list[bytes], str]:
    """Fetch five letters of whose answers these octets are replaced: what was had, and the error."""

    def instead(answer: bytes) -> bytes:
        for old, new in spoil.items():
            answer = answer.replace(old, new)
        return answer

    for number in range(5):
        rig.server.deliver(letter(number))
    shown = []
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        rig.server.upset("GetItem", Upset(instead=instead), times=times)
        words = ""
        try:
            async for raw in session.fetch([claim(ref) for ref in refs], WHOLE):
                assert isinstance(raw, RawMessage), "nothing is gone"
                shown.append(bytes(raw.octets.view()))
                raw.octets.close()
        except TransientError as error:
            assert not isinstance(error, SessionLost)
            words = str(error)
    assert rig.spooled() == []
    return shown, words


B64 = base64.b64encode(letter(2))
OTHERS = Counter(letter(number) for number in (0, 1, 3, 4))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({B64: B64[:50] + b"*" + B64[51:]}, "its base64 is broken"),
        ({B64: b""}, "gives no content"),
        ({B64: B64[:40] + b"=" + B64[41:]}, "its base64 is broken"),
        ({B64: B64[:40] + b"<t:x/>" + B64[40:]}, "an element within MimeContent"),
        ({B64: B64[:40] + b"\x00" + B64[41:]}, "broken XML"),
        ({b'<t:MimeContent CharacterSet="UTF-8">' + B64 + b"</t:MimeContent>": b""}, "gives no answer for it"),
    ],
)
async def test_message_that_is_broken_on_the_way_costs_its_neighbours_nothing(
    rig: Rig, spoil: dict[bytes, bytes], words: str
) -> None:
    shown, told = await spoilt(rig, spoil)
    assert Counter(shown) == OTHERS
    assert told.startswith("1 of 5 messages cannot be fetched")
    assert words in told


@pytest.mark.parametrize(
    ("octets", "spoil", "words"),
    [
        (letter(2), lambda text: text[:-2], "its base64 is cut off"),
        (letter(2, size=400_000), lambda text: text[:-1000] + b"*" + text[-999:], "its base64 is broken"),
    ],
    ids=["cut", "broken"],
)
async def test_octets_without_a_proper_end_are_asked_for_alone_and_given_in_doubt(
    rig: Rig, octets: bytes, spoil: Callable[[bytes], bytes], words: str
) -> None:
    text = base64.b64encode(octets)
    rig.server.upset("GetItem", Upset(instead=lambda answer: answer.replace(text, spoil(text))), times=2)
    for one in (letter(1), octets, letter(3)):
        rig.server.deliver(one)
    shown: dict[bytes, str] = {}
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        async for raw in session.fetch([claim(ref) for ref in refs], WHOLE):
            assert isinstance(raw, RawMessage)
            held = bytes(raw.octets.view())
            shown[held] = raw.doubt
            raw.octets.close()
            if raw.doubt:
                assert octets.startswith(held)
                assert held
    assert {held: doubt for held, doubt in shown.items() if not doubt} == {letter(1): "", letter(3): ""}
    assert [doubt for doubt in shown.values() if doubt] == [words]
    assert rig.server.requests.count("GetItem") == 2
    assert rig.spooled() == []


async def test_octets_that_were_broken_once_are_whole_when_asked_for_alone(rig: Rig) -> None:
    shown, told = await spoilt(rig, {B64: B64[:-2]}, times=1)
    assert Counter(shown) == Counter(letter(number) for number in range(5))
    assert told == ""


async def test_base64_in_lines_and_with_references_is_read(rig: Rig) -> None:
    lines = b"&#xD;&#xA;".join(B64[n : n + 7] for n in range(0, len(B64), 7))
    shown, told = await spoilt(rig, {B64: b"\r\n " + lines + b"\r\n"})
    assert Counter(shown) == Counter(letter(number) for number in range(5))
    assert told == ""


async def test_answer_about_another_message_is_not_believed(rig: Rig) -> None:
    first, second = rig.server.deliver(letter(10)), rig.server.deliver(letter(11))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        wrong = Upset(instead=lambda answer: answer.replace(first.encode(), second.encode()))
        rig.server.upset("GetItem", wrong, times=3)
        shown = []
        with pytest.raises(TransientError, match="1 of 2"):
            async for raw in session.fetch([claim(ref) for ref in refs], WHOLE):
                assert isinstance(raw, RawMessage)
                shown.append(raw.claim.ref.uid)
                raw.octets.close()
        assert len(shown) == 1
    assert rig.spooled() == []


async def test_too_few_answers_are_noticed(rig: Rig) -> None:
    def fewer(answer: bytes) -> bytes:
        return re.sub(
            rb"<m:(\w+)ResponseMessage ResponseClass.*?</m:\1ResponseMessage>", b"", answer, count=1, flags=re.S
        )

    for number in range(4):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        rig.server.upset("GetItem", Upset(instead=fewer))
        assert Counter((await fetched(session, refs)).values()) == Counter(letter(number) for number in range(4))
        rig.server.upset("UpdateItem", Upset(instead=fewer))
        done = await settled(session, refs[0], seen=True)
        assert (done.state, done.reason) == ("pending", "the server does not update messages: 0 answers to 1 questions")


async def test_garbage_after_a_disposition_leaves_it_pending_and_repeating_it_is_harmless(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        _, (ref,), _ = await listed(session)
        rig.server.upset("MoveItem", Upset(instead=lambda answer: answer[:100]))
        assert (await settled(session, ref, seen=True, move="Processed")).state == "pending"
        assert (await settled(session, ref, seen=True, move="Processed")).state == "applied"
    assert seen_in(rig.server.mails("Processed")) == Counter([letter(1)])


async def test_full_spool_is_a_passing_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.server.deliver(letter(1, size=2_000_000))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)

        def full() -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(rig.runtime.spool, "file", full)
        with pytest.raises(TransientError, match="No space left"):
            await fetched(session, refs)
        monkeypatch.undo()
        assert len(await fetched(session, refs)) == 1


async def test_answer_that_trickles_for_ever_ends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes in time, the whole never does: 320 octets a second are no progress."""
    monkeypatch.setattr(ews_client, "_OVERALL", 0.01)
    async with connected(rig.source()) as session:
        trickle = Upset(body=enveloped("x" * 100_000), trickles=0.2)
        rig.server.upset("SyncFolderItems", trickle)
        began = time.monotonic()
        with pytest.raises(TransientError, match="not complete within"):
            await listed(session)
        assert time.monotonic() - began < 30
