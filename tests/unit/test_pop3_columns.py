"""A maildrop of a million messages is listed in columns: what is told is the same as in dictionaries, for a tenth of
the memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.sources.pop3 import listing as listing_module
from mailpoller.sources.pop3 import maildrop as maildrop_module
from mailpoller.sources.pop3.columns import Names, Numbers, Sizes, Some
from mailpoller.sources.pop3.listing import Listing, NameLines, SizeLines
from mailpoller.sources.pop3.maildrop import Contents
from mailpoller.sources.pop3.memory import Memory
from mailpoller.sources.pop3.protocol import Reply
from mailpoller.sources.pop3.reader import ProtocolViolation
from servers.mailboxes import session_of
from servers.pop3_mailboxes import pop3_source
from servers.scripted_pop3 import ScriptedPop3, listing


def name_lines(names: dict[int, str], like: Names | None = None) -> NameLines:
    taker = NameLines(like)
    octets = b"".join(b"%d %b\r\n" % (number, name.encode("latin-1")) for number, name in names.items())
    for begin in range(0, len(octets), 1000):
        taker.write(octets[begin : begin + 1000])
    taker.finish()
    return taker


def size_lines(sizes: dict[int, int]) -> SizeLines:
    taker = SizeLines()
    octets = b"".join(b"%d %d\r\n" % one for one in sizes.items())
    for begin in range(0, len(octets), 777):
        taker.write(octets[begin : begin + 777])
    taker.finish()
    return taker


async def contents_of(names: dict[int, str], sizes: dict[int, int], like: Names | None = None) -> Contents:
    uidl, listed = name_lines(names, like), size_lines(sizes)
    numbers = await Numbers(uidl.names, uidl.named).index()
    return Contents(numbers=numbers, sizes=listed.sizes(), names=uidl.names)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
async def test_columns_tell_what_dictionaries_would(count: int) -> None:
    rand = random.Random(count)
    names = {number: "".join(rand.choices("abcdé", k=20)) for number in range(1, count + 1)}
    sizes = {number: rand.randrange(1 << 40) for number in names}
    contents = await contents_of(names, sizes)
    assert dict(contents.numbers) == {name: number for number, name in names.items()}
    assert dict(contents.sizes) == sizes
    assert list(contents.numbers) == list(names.values())
    assert all(contents.numbers[name] == number for number, name in names.items())
    for stranger in ("", "nobody", "\u20ac", "a\n"):
        assert stranger not in contents.numbers and contents.numbers.get(stranger) is None
    assert contents.sizes.get(0) is None and contents.sizes.get(count + 1) is None


def test_sizes_with_gaps_are_found_as_well() -> None:
    assert dict(size_lines({2: 20, 5: 50}).sizes()) == {2: 20, 5: 50}
    assert dict(size_lines({5: 50, 2: 20}).sizes()) == {2: 20, 5: 50}
    assert Sizes().get(1) is None


async def test_names_that_are_given_twice_are_known() -> None:
    numbers = await Numbers(Names([b"a", b"b", b"a", b"c", b"b"]), range(1, 6)).index()
    assert numbers.repeated == {"a", "b"} and numbers["a"] == 1


async def test_million_names_would_take_little_more_than_their_octets() -> None:
    names = {number: f"{number:050d}" for number in range(1, 50_001)}
    octets = b"".join(b"%d %b\r\n" % (number, name.encode()) for number, name in names.items())
    tracemalloc.start()
    try:
        taker = NameLines()
        for begin in range(0, len(octets), 10_000):
            taker.write(octets[begin : begin + 10_000])
        taker.finish()
        numbers = await Numbers(taker.names, taker.named).index()
        held, peak = tracemalloc.get_traced_memory()
        again = name_lines(names | {50_001: "one more, and no other"}, taker.names)
        more = tracemalloc.get_traced_memory()[0] - held
    finally:
        tracemalloc.stop()
    assert len(numbers) == 50_000 and len(again.names) == 50_001
    assert held < 50_000 * 80 and peak < 50_000 * 90, "names of 50 octets"
    assert more < 50_000 * 30, "what is listed again is shared"


async def test_what_was_listed_before_is_not_told_again_and_what_has_changed_is() -> None:
    memory, names = Memory(), {number: f"name-{number:06d}" for number in range(1, 1001)}
    sizes = dict.fromkeys(names, 100)
    first = await contents_of(names, sizes)
    position = await memory.note(first)
    names[1001] = "one-more-name"
    sizes[1001] = 5
    second = await contents_of(names, sizes, first.names)
    following = await memory.note(second)
    assert list(memory.after(position)) == ["one-more-name"]
    sizes[300] = 7
    memory.depart(["name-000002"])
    third = await contents_of(names, sizes, second.names)
    await memory.note(third)
    assert list(memory.after(following)) == ["name-000002", "name-000300"]
    sizes[5] = 9
    fourth = await contents_of(names, sizes, third.names)
    before = await memory.note(third)
    await memory.note(fourth)
    assert list(memory.after(before)) == ["name-000005"]
    del names[1], sizes[1]
    names = {number - 1: name for number, name in names.items()}
    sizes = {number - 1: size for number, size in sizes.items()}
    last = await memory.note(await contents_of(names, sizes, fourth.names))
    assert list(memory.after(last)) == []
    assert len(memory.after(position)) == 4 and len(Memory().after(position)) == 0


def test_some_are_made_when_they_are_asked_for() -> None:
    some = Some(Numbers(Names([b"a", b"b", b"c"]), range(1, 4)), [0, 2])
    assert (len(some), some[1], some[0:5], list(some)) == (2, "c", ["a", "c"], ["a", "c"])


def test_large_listing_in_no_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "MAX_DISORDERED", 100)
    stat = Reply(True, "", "101 1")
    backwards = {number: f"name-{number}" for number in range(101, 0, -1)}
    with pytest.raises(ProtocolViolation, match="in no order"):
        Listing.read(name_lines(backwards), size_lines(dict.fromkeys(backwards, 1)), stat)
    few = {2: "two", 1: "one"}
    found = Listing.read(name_lines(few), size_lines({2: 20, 1: 10}), Reply(True, "", "2 30"))
    assert (found.contradiction, found.name(1), found.name(2), found.name(3)) == ("", "one", "two", None)


def test_listing_without_end_is_refused_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "MAX_LISTING", 10_000)
    taker = SizeLines()
    with pytest.raises(ProtocolViolation, match="larger than"):
        for _ in range(100):
            taker.write(b"1 1\r\n" * 100)
    taker = SizeLines()
    with pytest.raises(ProtocolViolation, match="line of a listing"):
        taker.write(b"1" * 9000)


async def test_names_of_nobody_are_not_asked_about_without_end(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maildrop_module, "MAX_DOUBTFUL", 50)
    alike = listing(f"{number} alike" for number in range(1, 101))
    mails = [(f"uid{number}", b"Subject: x\r\n\r\n") for number in range(1, 101)]
    async with ScriptedPop3({"UIDL": alike}, mails=mails) as server:
        async with session_of(pop3_source(tmp_path, server.port, "joe")) as session:  # type: ignore[arg-type]
            with pytest.raises(TransientError, match="no name of their own"):
                await session.open("INBOX")
        assert not server.asked("TOP")
