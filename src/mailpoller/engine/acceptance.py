"""What is handed in to be sent: checked, made a mail of, and on the disk before anybody is told so."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, NoReturn, Protocol

import structlog

from mailpoller.core.errors import (
    ConfigError,
    EntryForbidden,
    EntryKeyUsed,
    EntryPutOff,
    EntryRefused,
    EntryTooLarge,
    OutboxFull,
    OutboxShareFull,
    TransientError,
)
from mailpoller.core.ports import Clock, Outbox, OutboxMail, OutboxRecipient, Stories, Story, Threads
from mailpoller.core.record import record
from mailpoller.engine.entry import Entry, read_entry, read_mail
from mailpoller.engine.originals import Originals
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.refusing import Refusing
from mailpoller.engine.senders import Identity, Intake, Senders
from mailpoller.mail.compose import ascii_address
from mailpoller.mail.enclosed import enclosed
from mailpoller.mail.letter import Letter, addresses, line
from mailpoller.mail.letter_form import letter_octets
from mailpoller.mail.letter_thread import message_id_of, once_answered
from mailpoller.storage.octet_files import OctetFiles
from mailpoller.storage.thread import completed

log = structlog.get_logger(__name__)

Mint = Callable[[str], str]
"""The token of a conversation; nothing if no key is configured. Raises ValueError for an id that none is made of, and
:class:`~mailpoller.core.errors.ConfigError` if the key cannot be read."""
_FULL_TOLD_EVERY_S = 600.0
Returns = Callable[[str, str], str]
"""An address and a mail's id -> the envelope sender by which a bounce of it is known. Raises as :data:`Mint` does."""
_THREAD_ABOVE = 1 << 14
"""Octets of an entry above which it is worked on in a thread."""


@record
class OutboxBounds:
    """See the block ``outbox`` of the configuration."""

    max_size: int = 1_000_000_000
    max_recipients: int = 100
    give_up: timedelta = timedelta(days=5)


class OutboxLedger(Outbox, Stories, Threads, Protocol):
    """What acceptance asks of the ledger."""


class Acceptance:
    """Takes entries. What it has accepted survives a power cut: the octets are synced, then the ledger has committed.

    ``senders``, ``mint`` and ``returns`` may be replaced at any time. ``accepted`` is called with the identity of every
    mail.
    """

    def __init__(
        self,
        ledger: OutboxLedger,
        files: OctetFiles,
        senders: Senders,
        clock: Clock,
        bounds: OutboxBounds,
        room: OutboxRoom,
        accepted: Callable[[str], None],
        mint: Mint = lambda _: "",
        originals: Originals | None = None,
        returns: Returns = lambda address, _: address,
    ) -> None:
        self.senders = senders
        self.mint = mint
        self.returns = returns
        self._ledger = ledger
        self._files = files
        self._clock = clock
        self._bounds = bounds
        self._room = room
        self._accepted = accepted
        self._originals = originals or Originals(ledger, None)
        self._refusing = Refusing(ledger, clock)
        self._doubtful: dict[str, bytes] = {}
        """Mails of which it is not known whether the ledger has recorded them: id -> file."""
        self._full_told: dict[str, float] = {}
        """When it was last said (monotonic) that an identity had no room for a mail."""
        self._under_way: set[str] = set()
        """Those among them that are being accepted."""
        self._finding: asyncio.Task[None] | None = None

    async def hand_in(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out a request of the control socket: its ``octets`` are an entry in JSON or, if ``form`` is ``mail``, a
        whole mail; ``choices`` overrule what an entry says; ``peer`` is who asks, as the kernel knows him.

        Raises :class:`EntryRefused` with the reason, and :class:`TransientError` if it may be accepted later.
        """
        intake = self.senders.intake(str(request.get("intake") or ""))
        _admit(intake, str(request["peer"]))
        octets, form = bytes(request["octets"]), str(request.get("form") or "entry")
        choices = {key: str(value) for key, value in dict(request.get("choices") or {}).items() if value}
        read = read_mail if form == "mail" else read_entry
        async with self._refusing.telling(intake, octets, choices.get("key", "")):
            large = len(octets) >= _THREAD_ABOVE
            entry = await asyncio.to_thread(read, octets, choices) if large else read(octets, choices)
            mail, repeated = await self.accept(intake, entry)
        return {"id": mail.id, "message_id": mail.message_id, "recipients": len(mail.recipients), "repeated": repeated}

    async def take(
        self, name: str, octets: bytes, key: str, *, said: bool = False, number: int | None = None
    ) -> tuple[OutboxMail, bool]:
        """As :meth:`accept`, for an entry in JSON that an intake found; ``key`` is its own if it says none. ``said``:
        whoever handed it in said that key beside it, so it cannot say another one. ``number``: what the intake calls
        it."""
        intake = self._known(name)
        async with self._refusing.telling(intake, octets, key, number):
            large = len(octets) >= _THREAD_ABOVE
            entry = await asyncio.to_thread(read_entry, octets, {}) if large else read_entry(octets, {})
            if said and key and entry.choices.get("key") not in ("", key):
                raise EntryRefused("the entry has another key than the one that was said beside it")
            if not entry.choices.get("key"):
                entry = replace(entry, choices={**entry.choices, "key": key})
            return await self.accept(intake, entry)

    async def refuse(self, name: str, key: str, number: int, reason: str) -> NoReturn:
        """Raise :class:`EntryRefused` for an entry that cannot even be read."""
        async with self._refusing.telling(self._known(name), None, key, number):
            raise EntryRefused(reason)

    def _known(self, name: str) -> Intake:
        if (intake := self.senders.intakes.get(name)) is None:
            raise TransientError("this intake is not configured any more")
        return intake

    async def accept(self, intake: Intake, entry: Entry) -> tuple[OutboxMail, bool]:
        """The mail, and whether it had been accepted before under the same key. Raises as :meth:`hand_in`."""
        choices = entry.choices
        key = line(choices.get("key"), "key", 200)
        if key and (earlier := await self._ledger.outbox_known(intake.name, key)) is not None:
            return _same(earlier, entry), True
        story = await self._answered(choices["reply_to"]) if choices.get("reply_to") else None
        mailbox = choices.get("mailbox") or (story.mailbox if story is not None else "")
        delivered_to = self._came_to(story, mailbox) if story is not None else ""
        identity = self.senders.chosen(
            intake,
            delivered_to=delivered_to,
            identity=choices.get("identity", ""),
            department=choices.get("department", ""),
            mailbox=mailbox,
        )
        letter = _addressed(entry.letter, story)
        if not letter.recipients:
            raise EntryRefused("there is no recipient")
        if len(letter.recipients) > self._bounds.max_recipients:
            most = self._bounds.max_recipients
            raise EntryRefused(f"{len(letter.recipients)} recipients are more than outbox.max_recipients, {most}")
        departments = (choices["department"],) if choices.get("department") else intake.departments
        letter = await self._originals.attached(letter, story, self.senders, departments, identity.max_size)
        if entry.given is None:
            usual = identity.sender.quote
            letter = await self._originals.quoted(letter, story, self.senders, departments, usual)
        now = self._clock.now()
        number = uuid.uuid4().hex
        token = await self._token(choices.get("conversation", ""), story)
        message_id = message_id_of(number, _domain(identity), token)
        if letter.in_reply_to or letter.references:
            letter = replace(letter, subject=once_answered(letter.subject))

        charset = self.senders.charset(identity.name, mailbox, delivered_to)

        def make() -> tuple[bytes, bytes]:
            octets = (
                letter_octets(letter, identity.sender, message_id=message_id, at=now, wish=charset)
                if entry.given is None
                else entry.given.octets(identity.sender, message_id=message_id, at=now, letter=letter)
            )
            if (entry.given is not None or letter.attachments) and (attachments := enclosed(octets)):
                department = choices.get("department", "")
                if said := self.senders.objection(intake, identity, department, mailbox, attachments):
                    raise EntryRefused(said)
            self._take_room(number, identity, len(octets))
            self._doubtful[number] = sha256(octets).digest()
            return octets, self._files.keep(octets)

        async with self._doubting(number):
            octets, digest = await completed(asyncio.to_thread(make))
            mail = OutboxMail(
                number,
                intake.name,
                key,
                entry.content,
                identity.name,
                mailbox,
                story.mid if story is not None else "",
                message_id,
                self._envelope_sender(identity, number),
                len(octets),
                digest,
                now,
                now + self._bounds.give_up,
                now,
                recipients=tuple(map(OutboxRecipient, letter.recipients)),
            )
            kept = await self._ledger.outbox_accept(mail)
        await self._resolve_doubts()
        if kept.id != mail.id:  # somebody came first with the same key
            self._room.give_back(number)
            await asyncio.to_thread(self._files.drop, [digest])
            return _same(kept, entry), True
        self._room.recorded(number)
        log.info(
            "outbox.accepted",
            id=mail.id,
            intake=intake.name,
            identity=identity.name,
            mailbox=mailbox,
            mid=mail.mid,
            recipients=len(mail.recipients),
            size_bytes=mail.size,
        )
        self._accepted(identity.name)
        return mail, False

    @asynccontextmanager
    async def _doubting(self, number: str) -> AsyncIterator[None]:
        """While the block lasts nobody else touches the mail's file. Whoever hands in may be cancelled, or the ledger
        may fail: what was written or recorded all the same is found out beside, at once or when it answers again."""
        self._under_way.add(number)
        try:
            yield
        except BaseException:
            self._under_way.discard(number)
            if number in self._doubtful:
                self._finding = asyncio.create_task(self._find_out(), name="doubtful entries")
            raise
        self._under_way.discard(number)
        self._doubtful.pop(number, None)

    async def _find_out(self) -> None:
        with suppress(TransientError):
            await self._resolve_doubts()

    async def _resolve_doubts(self) -> None:
        """Remove the files of mails that were not recorded after all."""
        for id, digest in list(self._doubtful.items()):
            if id in self._under_way:
                continue
            recorded = await self._ledger.outbox_mail(id)
            self._doubtful.pop(id, None)
            if recorded is None:
                self._room.give_back(id)
                await asyncio.to_thread(self._files.drop, [digest])
            else:
                self._room.recorded(id)
                self._accepted(recorded.identity)

    def _take_room(self, number: str, identity: Identity, size: int) -> None:
        if size > identity.max_size:
            raise EntryTooLarge(f"{size} octets are more than the outgoing takes (max_size), {identity.max_size}")
        if size > self._bounds.max_size:  # there will never be room, and what comes after it would wait for that
            raise EntryTooLarge(
                f"{size} octets are more than the outbox holds (outbox.max_size), {self._bounds.max_size}"
            )
        shared = self.senders.shares_room(identity.name)
        if reason := self._room.take(number, identity.name, size, self._bounds.max_size, shared=shared):
            now = self._clock.monotonic()
            if now - self._full_told.get(identity.name, -_FULL_TOLD_EVERY_S) >= _FULL_TOLD_EVERY_S:
                self._full_told[identity.name] = now
                log.warning("outbox.full", identity=identity.name, reason=reason)
            # What is to be sent by another one may be taken: the intake goes on.
            raise OutboxShareFull(reason) if shared else OutboxFull(reason)

    async def _token(self, conversation: str, story: Story | None) -> str:
        """What brings an answer back to the conversation: the one that was named, else that of the message that is
        answered. Without a key there is none, and the thread alone tells."""
        try:
            if conversation:
                if token := self.mint(conversation):
                    return token
                raise EntryRefused("no key is configured that a conversation could be signed with (conversations.keys)")
            if story is None or not story.message_id:
                return ""
            found = (await self._ledger.conversations(story.mailbox, [story.message_id], None)).get(
                story.message_id, ""
            )
            return self.mint(found) if found else ""
        except ValueError as error:
            if conversation:
                raise EntryRefused(f"conversation: {error}") from None
            return ""
        except ConfigError as error:
            if conversation:
                raise EntryPutOff(f"the conversation cannot be signed now: {error}") from None
            return ""

    def _envelope_sender(self, identity: Identity, number: str) -> str:
        """By which a bounce is known; without a key that can be read now it comes back all the same."""
        own = ascii_address(identity.sender.address)
        if not identity.verp:
            return own
        try:
            return self.returns(ascii_address(identity.verp), number)
        except (ValueError, ConfigError) as error:
            log.warning("outbox.no_return_address", identity=identity.name, reason=str(error))
            return own

    async def _answered(self, mid: str) -> Story:
        mid = mid.strip().lower()
        found = [one for one in await self._ledger.trace(mid, limit=5) if one.mid == mid]
        if not found:
            raise EntryRefused("the ledger knows no message of that mid, so it cannot be answered")
        if found[0].state != "settled" and not (found[0].sender or found[0].message_id):
            # A queue has it a moment before the ledger knows whose it is, and a program may be faster than that.
            raise EntryPutOff("this message is not settled yet; hand the answer in again in a moment")
        return found[0]

    def _came_to(self, story: Story, mailbox: str) -> str:
        """The address of this mailbox that the message came to, as far as its answers depend on that."""
        answering = self.senders.mailboxes.get(mailbox)
        if answering is None or not answering.by_address or self.senders.mailboxes.get(story.mailbox) is not answering:
            return ""
        if story.state != "settled" and not story.delivered_to:
            # Told with its outcome: until then nobody knows in whose name it is to be answered.
            raise EntryPutOff("this message is not settled yet; hand the answer in again in a moment")
        return story.delivered_to


def _admit(intake: Intake, peer: str) -> None:
    """Raise :class:`EntryRefused` unless this user may use the intake."""
    if intake.users and peer != "root" and peer not in intake.users:
        raise EntryForbidden(f"the user {peer or 'who asks'} may not use the intake {intake.name}")


def _same(earlier: OutboxMail, entry: Entry) -> OutboxMail:
    if earlier.content != entry.content:
        raise EntryKeyUsed("this key was used already, for something else")
    return earlier


def _addressed(letter: Letter, story: Story | None) -> Letter:
    """The letter with the thread of the message that it answers, and to its sender if it names nobody."""
    if story is None:
        return letter
    if not letter.recipients and story.sender:
        letter = replace(letter, to=addresses(story.sender, "the sender of that message"))
    if story.message_id and not letter.in_reply_to:
        answered = story.message_id if story.message_id.startswith("<") else f"<{story.message_id}>"
        letter = replace(letter, in_reply_to=line(answered, "the Message-ID of that message", 990))
    return letter


def _domain(identity: Identity) -> str:
    return ascii_address(identity.sender.address).rpartition("@")[2] or os.uname().nodename
