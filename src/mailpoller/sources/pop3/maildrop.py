"""The maildrop as one connection shows it: locked, numbered, and the same until QUIT."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Literal, TypeVar

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.sources.pop3.header import LONGEST_TOP, HeaderTaker, fingerprint, received_at
from mailpoller.sources.pop3.protocol import PATIENCE_BODY, Pop3Protocol, Request

MAX_MESSAGES = 1_000_000
"""Messages in a maildrop. A listing of more is not believed."""
IN_FLIGHT = 500
"""Commands with short answers that are under way at once."""
PASSING = {"IN-USE", "SYS/TEMP", "LOGIN-DELAY"}
"""Response codes of what may succeed later."""

_UIDL = re.compile(rb"^[ \t]*(\d{1,9})[ \t]+([!-\xff]{1,500})(?![!-\xff])", re.MULTILINE)
"""The first two fields of a line; servers add more (RFC 1939 knows of none)."""
_LIST = re.compile(rb"^[ \t]*(\d{1,9})[ \t]+(\d{1,18})(?!\d)", re.MULTILINE)

State = tuple[Literal["applied", "failed", "pending"], str]
T = TypeVar("T")


@dataclass(slots=True)
class Contents:
    """What is in a maildrop, in the server's order.

    ``numbers``: uid -> message number, ``sizes``: number -> octets, as far as the server told. ``by_uidl``: the uids are the
    server's; else it has none. ``twins``: uid -> the uids of the messages after it that cannot be told from it.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    twins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    by_uidl: bool = True
    digest: bytes = b""
    """SHA-256 of the server's answer to UIDL, if that alone tells the messages apart."""

    def size(self, uid: str) -> int | None:
        """Octets, as the server told."""
        return self.sizes.get(self.numbers[uid])


@dataclass(slots=True)
class Knowledge:
    """What was learned of a maildrop's uids and outlives the session, in memory only.

    ``last``: the contents as listed last. ``ambiguous``: names that UIDL has given to two messages, as long as one of them is
    there: they are believed of neither.
    """

    last: Contents | None = None
    ambiguous: set[str] = field(default_factory=set)


class Maildrop:
    """One connection, logged in, and what is in the maildrop."""

    def __init__(self, protocol: Pop3Protocol) -> None:
        self.protocol = protocol
        self.contents: Contents | None = None
        self.marked: set[str] = set()
        """The uids that the server will delete at QUIT."""
        self.used = False
        """Somebody has listed it: who wants news must come again."""

    # --- what is in it ---------------------------------------------------------------------------------------
    async def look(self, knowledge: Knowledge, limit: int) -> Contents:
        """List it. Messages of more than ``limit`` octets are not downloaded to be known.

        Raises :class:`TransientError` with the server's words if it refuses.
        """
        protocol = self.protocol
        reply, body = await protocol.gather("UIDL")
        last = knowledge.last
        if not reply.ok and (reply.code in PASSING or "UIDL" in protocol.capabilities):
            raise TransientError(f"the server does not list the maildrop: {reply}")
        digest = sha256(body).digest() if reply.ok else b""
        if last is not None and digest and last.digest == digest:
            self.contents = last
            return last
        listed, listing = await protocol.gather("LIST")
        if not listed.ok:
            raise TransientError(f"the server does not list the maildrop: {listed}")
        self._bound(body, listing)
        sizes = {int(number): int(size) for number, size in _LIST.findall(listing)}
        await asyncio.sleep(0)
        names = {int(number): name.decode("latin-1") for number, name in _UIDL.findall(body)}
        await asyncio.sleep(0)
        # An empty maildrop does not tell whether the server has UIDL.
        by_uidl = reply.ok or (not sizes and (last is None or last.by_uidl))
        found = Contents(sizes=sizes, by_uidl=by_uidl, digest=digest)
        await self._name(found, names, knowledge, limit)
        self.contents = knowledge.last = found
        return found

    def _bound(self, *bodies: bytes) -> None:
        if any(body.count(b"\n") > MAX_MESSAGES for body in bodies):
            self.protocol.lose(f"the server broke the protocol: a listing of more than {MAX_MESSAGES} messages")
            raise SessionLost(self.protocol.lost or "")

    async def _name(self, found: Contents, names: dict[int, str], knowledge: Knowledge, limit: int) -> None:
        """Give each message its uid: its own UIDL; else UIDL, if any, and fingerprint; else these and how many before it are
        the same."""
        knowledge.ambiguous.intersection_update(names.values())
        if len(set(names.values())) < len(names):
            knowledge.ambiguous.update(name for name, count in Counter(names.values()).items() if count > 1)
        everything = sorted(found.sizes.keys() | names.keys())
        doubtful = [one for one in everything if one not in names or names[one] in knowledge.ambiguous]
        if not doubtful:
            found.numbers = {names[number]: number for number in everything}
            return
        found.digest = b""
        digests = await self._digests(doubtful, found.sizes, limit)
        groups: defaultdict[str, list[str]] = defaultdict(list)
        unsure = frozenset(doubtful)
        for number in everything:
            if number not in unsure:
                found.numbers[names[number]] = number
                continue
            digest = digests.get(number)
            known_by = f"size:{found.sizes.get(number)}" if digest is None else f"sha256:{digest}"
            base = f"{names[number]}+{known_by}" if number in names else known_by
            group = groups[base]
            group.append(base if not group else f"{base}#{len(group) + 1}")
            found.numbers[group[-1]] = number
        for group in groups.values():
            for index, uid in enumerate(group[:-1]):
                found.twins[uid] = tuple(group[index + 1 :])

    async def _digests(self, numbers: Sequence[int], sizes: dict[int, int], limit: int) -> dict[int, str]:
        """Fingerprints, by TOP; where the server refuses that, by RETR, but not of what is larger than ``limit``."""
        digests = await self._ask("TOP", numbers, LONGEST_TOP, _fingerprint)
        rest = [number for number in numbers if number not in digests and sizes.get(number, limit + 1) <= limit]
        return digests | await self._ask("RETR", rest, limit + LONGEST_TOP, _fingerprint)

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
            self.protocol.send()
            for number, taker, request in asked:
                if (await request.answer(self.protocol)).ok:
                    found[number] = read(taker)
        return found

    # --- deleting --------------------------------------------------------------------------------------------
    async def delete(self, uids: Sequence[str]) -> dict[str, State]:
        """Mark messages for deletion at QUIT: ``pending``; ``applied`` are those that are not there any more.

        Of messages that cannot be told apart the last goes first, else the next session would take a later one, which is
        perhaps not settled, for the one that was deleted.
        """
        assert self.contents is not None
        states: dict[str, State] = {}
        numbers, twins = self.contents.numbers, self.contents.twins
        going = self.marked.union(uids)
        asked: list[tuple[str, Request]] = []
        for uid in sorted(set(uids), key=lambda one: numbers.get(one, 0), reverse=True):
            if uid not in numbers:
                states[uid] = ("applied", "")
            elif uid in self.marked:
                states[uid] = ("pending", _AT_QUIT)
            elif not going.issuperset(twins.get(uid, ())):
                going.discard(uid)
                states[uid] = ("pending", "it cannot be told from a message that is not settled")
            else:
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

        Raises :class:`SessionLost` if the connection was lost, or if something was marked and the server does not say that it
        is deleted.
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


def _fingerprint(taker: HeaderTaker) -> str:
    return fingerprint(taker.text)
