"""The maildrop as one connection shows it: locked, numbered, and the same until QUIT."""

from __future__ import annotations

import asyncio
import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeVar

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.sources.pop3.columns import Names, Numbers, Sizes
from mailpoller.sources.pop3.header import LONGEST_TOP, HeaderTaker, added, fingerprint, received_at
from mailpoller.sources.pop3.listing import Listing, NameLines, SizeLines, counted, counted_name, totalled
from mailpoller.sources.pop3.protocol import PATIENCE_BODY, Pop3Protocol, Reply, Request
from mailpoller.sources.pop3.reader import ProtocolViolation

MAX_DOUBTFUL = 100_000
"""Messages that are known by their headers for want of names of their own."""
IN_FLIGHT = 500
"""Commands with short answers that are under way at once."""
PASSING = {"IN-USE", "SYS/TEMP", "LOGIN-DELAY"}
"""Response codes of what may succeed later."""

CONFIRMED = 3
"""Connections in a row that contradict themselves: after so many, messages that UIDL does not show are taken without
a name."""

_HASHED = re.compile(
    r"(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64}|[A-Za-z0-9+/_-]{22}={0,2}|[A-Za-z0-9+/_-]{27}=?)"
)
"""Names that may be a digest of the message: two equal messages bear the same one."""

State = tuple[Literal["applied", "failed", "pending"], str]
T = TypeVar("T")


@dataclass(slots=True)
class Contents:
    """What is in a maildrop, in the server's order.

    ``numbers``: uid -> message number, ``sizes``: number -> octets, as far as the server told. ``by_uidl``: the uids
    are the server's; else it has none. ``twins``: uid -> the uids of the messages after it that cannot be told from
    it. ``contradiction``: what of UIDL, LIST and STAT does not fit, in words; ``whole``: what is not in here is not
    in the maildrop.
    """

    numbers: Numbers = field(default_factory=Numbers)
    sizes: Sizes = field(default_factory=Sizes)
    twins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_uidl: bool = True
    contradiction: str = ""
    whole: bool = True
    lacking: Sequence[int] = ()
    """Numbers of messages that the server tells no name of, and that are not in here for it."""
    names: Names | None = None
    """The names that UIDL told."""
    digest: bytes = b""
    """SHA-256 of the server's answers, if they alone tell the messages apart."""

    def size(self, uid: str) -> int | None:
        """Octets, as the server told."""
        return self.sizes.get(self.numbers[uid])


@dataclass(slots=True)
class Knowledge:
    """What was learned of a maildrop's uids and outlives the session, in memory only.

    ``last``: the contents as listed last. ``ambiguous``: names that UIDL has given to two messages, as long as one of
    them is there: they are believed of neither. ``alike``: digests of headers that messages of several sizes have, as
    long. ``contradictions``: how many connections in a row have contradicted themselves.
    """

    last: Contents | None = None
    ambiguous: set[str] = field(default_factory=set)
    alike: set[str] = field(default_factory=set)
    contradictions: int = 0


class Maildrop:
    """One connection, logged in, and what is in the maildrop."""

    def __init__(self, protocol: Pop3Protocol) -> None:
        self.protocol = protocol
        self.contents: Contents | None = None
        self.marked: set[str] = set()
        """The uids that the server will delete at QUIT."""
        self.used = False
        """Somebody has asked what is in it: who wants news must come again."""
        self.seen: set[str] = set()
        """The uids that this connection has shown to be what they were: fetched, or looked at."""
        self._deletions = 0
        self._count: int | None = None

    # --- what is in it ---------------------------------------------------------------------------------------
    async def look(self, knowledge: Knowledge, limit: int) -> Contents:
        """List it. Messages of more than ``limit`` octets are not downloaded to be known.

        What is listed twice over with a contradiction is taken as far as it goes, and not ``whole``.
        Raises :class:`TransientError` with the server's words if it refuses.
        """
        last = knowledge.last
        names, stat, digest = await self._outline(last)
        if last is not None and last.digest and last.digest == digest:
            knowledge.contradictions = 0
            self.contents = last
            return last
        listing = self._read(names, await self._sizes(), stat)
        if listing.contradiction:
            names, stat, digest = await self._outline(last)
            listing = self._read(names, await self._sizes(), stat)
        # An empty maildrop does not tell whether the server has UIDL.
        by_uidl = names is not None or (not listing.sizes and (last is None or last.by_uidl))
        found = Contents(sizes=listing.sizes, by_uidl=by_uidl, digest=digest, names=listing.names)
        if names is None or not self._tells_all(stat, names):
            found.digest = b""
        if listing.contradiction:
            found.contradiction, found.whole, found.digest = listing.contradiction, False, b""
            found.lacking = listing.lacking
            knowledge.contradictions += 1
        else:
            knowledge.contradictions = 0
            if knowledge.ambiguous:
                knowledge.ambiguous.intersection_update(name.decode("latin-1") for name in listing.names)
        await self._name(found, listing, knowledge, limit)
        self.contents = knowledge.last = found
        if found.contradiction and knowledge.contradictions >= CONFIRMED:
            await self.complete(knowledge, limit)
            found.whole = listing.outvoted
        return found

    async def complete(self, knowledge: Knowledge, limit: int) -> None:
        """Take the messages that the server persists in telling no name of: they are known by their headers."""
        found = self.contents
        assert found is not None
        lacking, found.lacking = found.lacking, ()
        if lacking:
            await self._name(found, Listing(nameless=lacking), knowledge, limit)

    async def _outline(self, last: Contents | None) -> tuple[NameLines | None, Reply, bytes]:
        """The answers to UIDL (None if that is refused) and STAT, and a digest of both, if the server has both.
        ``last``: what was listed before, with which memory is shared."""
        names = NameLines(None if last is None else last.names)
        named = await self.protocol.collect(names, "UIDL")
        if not named.ok and (named.code in PASSING or "UIDL" in self.protocol.capabilities):
            raise TransientError(f"the server does not list the maildrop: {named}")
        # Not in one breath: a listing without its end would take this answer for more of itself.
        stat = await self.protocol.run("STAT")
        self._count = counted(stat)
        if not named.ok:
            return None, stat, b""
        names.digest.update(stat.text.encode())
        return names, stat, names.digest.digest()

    def _tells_all(self, stat: Reply, names: NameLines) -> bool:
        """Whether the same answers to UIDL and STAT mean the same messages: names that nobody gives twice, or a sum
        of their sizes."""
        summed = (totalled(stat) or 0) > 0 and not names.counted
        return self._count is not None and (summed or names.tell)

    async def _sizes(self) -> SizeLines:
        """The answer to LIST."""
        sizes = SizeLines()
        listed = await self.protocol.collect(sizes, "LIST")
        if not listed.ok:
            raise TransientError(f"the server does not list the maildrop: {listed}")
        await asyncio.sleep(0)
        return sizes

    def _read(self, names: NameLines | None, sizes: SizeLines, stat: Reply) -> Listing:
        try:
            return Listing.read(names, sizes, stat)
        except ProtocolViolation as violation:
            self.protocol.lose(f"the server broke the protocol: {violation}")
            raise SessionLost(self.protocol.lost or "") from None

    def prove(self, done: Callable[[bool], None]) -> Request:
        """Ask something whose answer is known (STAT), to see that the answers before it were what they seemed.
        ``done`` is told whether it is so; it is not called if the connection is lost before."""

        def answered(reply: Reply) -> None:
            # Not at once: what came with it, unasked for, speaks against it, and is read first.
            self.protocol.loop.call_soon(done, self.proven(reply))

        return self.protocol.submit("STAT", on_done=answered)

    def proven(self, reply: Reply) -> bool:
        """Whether ``reply`` is what STAT must say in this connection. Servers count what is marked, or do not."""
        if self._count is None:
            return True  # it never gave a proper one
        count = counted(reply)
        return count is not None and self._count - self._deletions <= count <= self._count

    async def _name(self, found: Contents, listing: Listing, knowledge: Knowledge, limit: int) -> None:
        """Give each message its uid: its own UIDL; else UIDL, if any, and fingerprint; else these and how many before
        it are the same. Messages that bear one name and cannot be told apart by their headers either keep it: they
        are equal."""
        before = found.numbers  # to which these come
        index = await Numbers(listing.names, listing.named).index()
        named_all = not listing.nameless and (found.by_uidl or not found.sizes)
        if named_all and not index.repeated and not knowledge.ambiguous:
            found.numbers = index
            return
        everything = sorted({*listing.named, *listing.nameless, *(() if found.by_uidl else found.sizes)})
        doubtful: dict[int, str | None] = {}
        for number in everything:
            name = listing.name(number)
            if name is None or name in knowledge.ambiguous or name in index.repeated:
                doubtful[number] = name
        if len(doubtful) > MAX_DOUBTFUL:
            raise TransientError(f"{len(doubtful)} messages have no name of their own: more than can be told apart")
        if not doubtful:
            found.numbers = index
            return
        found.digest = b""
        known = await self._known_by(list(doubtful), found.sizes, knowledge, limit)
        bearers: defaultdict[str, set[str]] = defaultdict(set)
        for number, name in doubtful.items():
            if name is not None:
                bearers[name].add(known[number])
        knowledge.ambiguous.update(name for name in index.repeated if len(bearers[name]) > 1)
        groups: defaultdict[str, list[str]] = defaultdict(list)
        taken: set[str] = set()
        uids, numbers = Names(), array("I")
        for number in everything:
            if number not in doubtful:
                uid = listing.name(number) or ""
            else:
                name, base = doubtful[number], known[number]
                if name is not None:
                    base = f"{name}+{base}" if name in knowledge.ambiguous else name
                group = groups[base]
                uid = base if not group else f"{base}#{len(group) + 1}"
                while uid in taken or uid in before or (uid in index and index[uid] not in doubtful):
                    uid += "'"
                group.append(uid)
                taken.add(uid)
            uids.append(uid.encode("latin-1"))
            numbers.append(number)
        for place, uid in enumerate(before):
            uids.append(uid.encode("latin-1"))
            numbers.append(before.number(place))
        found.numbers = await Numbers(uids, numbers).index()
        for group in groups.values():
            for index_, uid in enumerate(group[:-1]):
                found.twins[uid] = tuple(group[index_ + 1 :])

    async def _known_by(
        self, numbers: Sequence[int], sizes: Mapping[int, int], knowledge: Knowledge, limit: int
    ) -> dict[int, str]:
        """By what messages are known whose name does not do: their header's digest, and their size where that is the
        same and the size is not (without the fields that servers add); or the size alone. Where the server refuses
        TOP, by RETR, but not of what is larger than ``limit``."""

        found = await self._ask("TOP", numbers, LONGEST_TOP, _fingerprint)
        rest = [number for number in numbers if number not in found and sizes.get(number, limit + 1) <= limit]
        found |= await self._ask("RETR", rest, limit + LONGEST_TOP, _fingerprint)
        known = {number: f"size:{sizes.get(number)}" for number in numbers}
        lengths: defaultdict[str, dict[int, int | None]] = defaultdict(dict)
        for number, (digest, extra) in found.items():
            lengths[digest][number] = None if number not in sizes else sizes[number] - extra
        knowledge.alike.intersection_update(lengths)
        for digest, those in lengths.items():
            if len(set(those.values())) > 1:
                knowledge.alike.add(digest)
            for number, length in those.items():
                known[number] = f"sha256:{digest}" + (f"/{length}" if digest in knowledge.alike else "")
        return known

    async def received(self, uids: Iterable[str]) -> dict[str, datetime]:
        """When the server took each message, of those whose header tells it."""
        assert self.contents is not None
        wanted = {self.contents.numbers[uid]: uid for uid in uids}
        found = await self._ask("TOP", list(wanted), LONGEST_TOP, lambda taker: received_at(taker.text))
        return {wanted[number]: instant for number, instant in found.items() if instant is not None}

    async def _ask(
        self, command: Literal["TOP", "RETR"], numbers: Sequence[int], most: int, read: Callable[[HeaderTaker], T]
    ) -> dict[int, T]:
        """What ``read`` finds in each answer of at most ``most`` octets, without those that were refused."""
        found: dict[int, T] = {}
        lines = ("0",) if command == "TOP" else ()
        for begin in range(0, len(numbers), IN_FLIGHT):
            asked: list[tuple[int, HeaderTaker, Request]] = []
            for number in numbers[begin : begin + IN_FLIGHT]:
                taker = HeaderTaker(most)
                request = self.protocol.submit(command, str(number), *lines, taker=taker, patience=PATIENCE_BODY)
                asked.append((number, taker, request))
            proof = self.protocol.submit("STAT")
            self.protocol.send()
            for number, taker, request in asked:
                if (await request.answer(self.protocol)).ok:
                    found[number] = read(taker)
            if not self.proven(await proof.answer(self.protocol)):
                self.protocol.lose("the server broke the protocol: its answers are not those to our questions")
                raise SessionLost(self.protocol.lost or "")
        return found

    # --- deleting --------------------------------------------------------------------------------------------
    async def delete(self, sizes: Mapping[str, int | None], doubted: Collection[str] = ()) -> dict[str, State]:
        """Mark messages for deletion at QUIT: ``pending``; ``applied`` are those that are not there any more.

        ``sizes``: uid -> octets of the message that is meant, as it was listed once. Only what this connection has
        shown to be that message is marked: it was fetched or looked at here, or else LIST tells the same size, and
        ``doubted`` does not hold its name.

        Of messages that cannot be told apart the last goes first, else the next session would take a later one, which
        is perhaps not settled, for the one that was deleted.
        """
        contents = self.contents
        assert contents is not None
        states: dict[str, State] = {}
        numbers, twins = contents.numbers, contents.twins
        going = self.marked.union(sizes)
        asked: list[tuple[str, Request]] = []
        for uid in sorted(sizes, key=lambda one: numbers.get(one, 0), reverse=True):
            if uid not in numbers:
                states[uid] = ("applied", "") if contents.whole else ("pending", contradictory(contents))
            elif uid in self.marked:
                states[uid] = ("pending", _AT_QUIT)
            elif not (uid in self.seen or (_alike(sizes[uid], contents.size(uid)) and uid not in doubted)):
                going.discard(uid)
                states[uid] = ("pending", "it was not looked at in this connection")
            elif not going.issuperset(twins.get(uid, ())):
                going.discard(uid)
                states[uid] = ("pending", "it cannot be told from a message that is not settled")
            else:
                self._deletions += 1
                asked.append((uid, self.protocol.submit("DELE", str(numbers[uid]))))
        self.protocol.send()
        for uid, request in asked:
            reply = await request.answer(self.protocol)
            if reply.ok:
                self.marked.add(uid)
                states[uid] = ("pending", _AT_QUIT)
            else:
                states[uid] = ("pending" if reply.code in PASSING else "failed", f"the server says {reply}")
        return states

    async def quit(self, seconds: float) -> None:
        """End the session, within ``seconds``: what is marked is deleted now. The connection is gone afterwards.

        Raises :class:`SessionLost` if the connection was lost, or if something was marked and the server does not say
        that it is deleted.
        """
        try:
            async with asyncio.timeout(seconds):
                reply = await self.protocol.run("QUIT")
            trouble, harmless = ("" if reply.ok else f"the server says {reply}"), True
        except TimeoutError:
            trouble, harmless = f"no answer to QUIT within {seconds:g} s", True
        except SessionLost as error:
            # Some servers hang up instead of an answer.
            trouble, harmless = str(error), self.protocol.hung_up
        finally:
            self.protocol.lose("the session was closed")
        if trouble and self.marked:
            raise SessionLost(f"it is not known whether {len(self.marked)} messages were deleted: {trouble}")
        if trouble and not harmless:
            raise SessionLost(trouble)


_AT_QUIT = "it is deleted when the session ends"


def contradictory(contents: Contents) -> str:
    """Why it cannot be said of a message that it is not there."""
    return f"the server's listing contradicts itself: {contents.contradiction}"


def shared_name(uid: str) -> bool:
    """True if another message may bear the name next, because the server counts or because it is made from the
    octets."""
    return counted_name(uid) or "sha256:" in uid or "size:" in uid or _HASHED.fullmatch(uid) is not None


def _alike(one: int | None, other: int | None) -> bool:
    return one is not None and one == other


def _fingerprint(taker: HeaderTaker) -> tuple[str, int]:
    return fingerprint(taker.text), added(taker.text)
