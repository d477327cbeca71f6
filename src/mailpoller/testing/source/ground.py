"""A mailbox under test, and what its source is asked in the tests of its promises."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Literal

import pytest

from mailpoller.core.delivery import Disposition, Settlement
from mailpoller.core.errors import MailpollerError
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Position, RawMessage
from mailpoller.core.ports import Session, Source, Start
from mailpoller.core.record import record
from mailpoller.core.seals.ledger import SealedSettlement

ALL, NOW, UNSEEN = Start("all"), Start("now"), Start("unseen")
WHOLE = 50_000_000
"""A limit that no message of the suite reaches."""

Step = Literal["seen", "flag", "move", "delete"]


@record
class Shown:
    """One message as somebody else's mail program sees it. ``flags`` are named as IMAP names them."""

    octets: bytes
    flags: frozenset[str]


class MailboxUnderTest(abc.ABC):
    """A mailbox and the suite's way into it beside the source. A folder that is None is ``first``."""

    first = "INBOX"
    second = "Archive"
    target = "Processed"
    """A folder that does not exist, can be created, and is moved to."""
    flag = "\\Flagged"
    """A flag other than seen that the server keeps."""
    impossible_flag: str | None = None
    """A flag that the server never keeps; None if it keeps any."""
    has_positions = True
    """False: every listing is a full one, and no page has a position."""
    steps: frozenset[Step] = frozenset({"seen", "flag", "move", "delete"})
    """What the protocol can do to a message; a disposition that asks for more is answered ``failed``, with a reason."""
    keeps_received = True
    """The server says when it received a message. False: it says nothing, and a ``since`` listing shows everything."""
    knows_unseen = True
    """The server tells seen from unseen. False: an ``unseen`` listing shows everything."""
    has_folders = True
    """False: ``first`` is the only folder there can be."""
    ends_lines = False
    """True: the protocol gives every message a line end at its end, whether or not it had one."""
    disposes_at_close = False
    """True: what is done to a message counts only when its session ends, and is ``pending`` until a later one can
    tell."""
    waits_connected = True
    """False: while a session waits it has no connection that could be lost."""
    notices_within = timedelta(seconds=2)
    """How soon ``wait`` reports new mail."""

    @abc.abstractmethod
    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        """A new source of this mailbox, polling ``folders`` (by default only the first)."""

    @abc.abstractmethod
    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        """Put a message into a folder, received by the server at ``received`` (aware) or now."""

    @abc.abstractmethod
    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        """What is in a folder; nothing if it does not exist."""

    @abc.abstractmethod
    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        """Somebody else deletes a message."""

    @abc.abstractmethod
    async def cut(self) -> None:
        """Every open session loses its connection."""

    async def mend(self) -> None:  # noqa: B027  most connections are only made anew
        """The mailbox can be reached again after :meth:`cut`, if that takes anything."""

    async def octets(self, folder: str | None = None) -> Counter[bytes]:
        """The messages of a folder without their flags."""
        return Counter(one.octets for one in await self.shown(folder))


def letter(number: int, *, size: int = 0) -> bytes:
    """A message of at least ``size`` octets, CRLF line ends; another one for every number."""
    head = f"From: sender@example.com\r\nTo: support@example.org\r\nSubject: letter {number}\r\n\r\n".encode()
    line = b"The quick brown fox jumps over the lazy dog, again and again.\r\n"
    return head + line * max(1, (size - len(head)) // len(line) + 1)


@asynccontextmanager
async def connected(source: Source) -> AsyncIterator[Session]:
    """A session of ``source``, closed at the end."""
    session = await source.connect()
    try:
        yield session
    finally:
        await session.close()


async def listing(
    session: Session, folder: Folder, since: Position | None = None, start: Start = ALL
) -> tuple[list[MessageRef], Position | None]:
    """All refs of a listing, none twice, and the position of its last page.

    A session may take ``open`` for the moment to look anew, as the engine does before every listing.
    """
    pages = [page async for page in session.pending(folder, since, start)]
    assert pages, "a listing has at least one page"
    refs = [ref for page in pages for ref in page.refs]
    assert max(Counter(ref.uid for ref in refs).values(), default=1) == 1, "a message is listed once"
    assert all(ref.folder == folder for ref in refs)
    return refs, pages[-1].position


def claim(ref: MessageRef) -> Claim:
    """As a ledger would make it."""
    return Claim(ref, mint_mid(ref.folder.mailbox, ref.folder.name, ref.folder.epoch, ref.uid))


def settlement(ref: MessageRef, disposition: Disposition) -> Settlement:
    """As a ledger would make it."""
    return SealedSettlement(ref, claim(ref).mid, "delivered", disposition)


async def fetched(session: Session, refs: Sequence[MessageRef], limit: int = WHOLE) -> dict[str, bytes | None]:
    """uid -> octets, None for Gone; every ref answered once."""
    answers: dict[str, bytes | None] = {}
    async for answer in session.fetch([claim(ref) for ref in refs], limit):
        uid = answer.claim.ref.uid
        assert uid not in answers, "a claim is answered once"
        if isinstance(answer, Gone):
            answers[uid] = None
        else:
            answers[uid] = bytes(answer.octets.view())
            answer.octets.close()
    assert set(answers) == {ref.uid for ref in refs}, "every claim is answered"
    return answers


async def only(session: Session, folder: Folder, limit: int = WHOLE) -> RawMessage:
    """The one message of a folder; whoever asks closes its octets."""
    (ref,), _ = await listing(session, folder)
    (answer,) = [answer async for answer in session.fetch([claim(ref)], limit)]
    assert isinstance(answer, RawMessage)
    return answer


class SourceGround:
    """What the promises of a source stand on."""

    @pytest.fixture
    async def mailbox(self) -> AsyncIterator[MailboxUnderTest]:
        """The mailbox, empty. Every subclass has its own."""
        raise NotImplementedError
        yield


def second_of(ref: MessageRef) -> datetime | None:
    return None if ref.received is None else ref.received.replace(microsecond=0)


async def rest_of(answers: AsyncIterator[RawMessage | Gone]) -> None:
    async for answer in answers:
        if isinstance(answer, RawMessage):
            answer.octets.close()


def ways_of(mailbox: MailboxUnderTest) -> list[Disposition]:
    return [
        Disposition(seen=True),
        Disposition(flags=(mailbox.flag,)),
        Disposition(seen=True, move=mailbox.target),
        Disposition(delete=True),
    ]


def is_possible(mailbox: MailboxUnderTest, way: Disposition) -> bool:
    needed: dict[Step, bool] = {
        "seen": way.seen, "flag": bool(way.flags), "move": way.move is not None, "delete": way.delete
    }  # fmt: skip
    return all(step in mailbox.steps for step, wanted in needed.items() if wanted)


def some_of(mailbox: MailboxUnderTest) -> Disposition:
    return next(way for way in ways_of(mailbox) if is_possible(mailbox, way))


def done_by(mailbox: MailboxUnderTest) -> str:
    """What is said of a disposition that was carried out."""
    return "pending" if mailbox.disposes_at_close else "applied"


async def close_quietly(session: Session) -> None:
    try:
        await session.close()
    except MailpollerError:
        # Where dispositions count only at the end, a lost session says that they did not.
        pass
