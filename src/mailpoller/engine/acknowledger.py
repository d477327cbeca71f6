"""Sends what senders are owed: decides once more, makes the mail, and puts it into the outbox."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import field
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from mailpoller.core.acknowledge_config import AcknowledgeConfig
from mailpoller.core.acknowledgement import ACKNOWLEDGEMENT, Acknowledgement
from mailpoller.core.errors import ConfigError, EntryRefused, LedgerUnavailable, TransientError, machine_trouble
from mailpoller.core.ports import Acknowledgements, Clock, Outbox, OutboxMail, OutboxRecipient
from mailpoller.core.record import record
from mailpoller.engine.acceptance import Mint
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.senders import Answering, Identity, Senders
from mailpoller.mail.acknowledgement import acknowledgement_octets, without_detail
from mailpoller.mail.compose import ascii_address
from mailpoller.mail.letter_thread import message_id_of
from mailpoller.storage.octet_files import OctetFiles

log = structlog.get_logger(__name__)

ALL = "all mailboxes"
"""The subject of the alarm."""
KEPT = timedelta(days=181)
"""How long it is known who had one: longer than the longest ``every``."""

_LOOK_AGAIN_S = 5.0
_AT_ONCE = 50
_HOUR = timedelta(hours=1)


@record
class Acknowledged:
    """As the configuration has it: ``mailboxes``: those that acknowledge. ``own``: every address of ours, in small
    letters, which are never told anything. ``max_per_hour``: of all mailboxes together."""

    mailboxes: Mapping[str, AcknowledgeConfig] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    max_per_hour: int = 100


class AcknowledgingLedger(Acknowledgements, Outbox, Protocol):
    """What the acknowledger asks of the ledger."""


class _NoRoom(TransientError):
    """By the identity of this mailbox too much waits already."""


class Acknowledger:
    """A task that turns what is owed into mail of the outbox, in one commit for each, so that a crash repeats none.

    What needs no session is decided here: who had one lately, how many there were, whether it is too late by now.
    ``senders``, ``heeded`` and ``mint`` may be replaced at any time. ``accepted`` is called with the identity of every
    mail.
    """

    def __init__(
        self,
        ledger: AcknowledgingLedger,
        files: OctetFiles,
        senders: Senders,
        heeded: Acknowledged,
        alarm: Alarm,
        clock: Clock,
        room: OutboxRoom,
        accepted: Callable[[str], None],
        *,
        max_size: int = 1_000_000_000,
        mint: Mint = lambda _: "",
    ) -> None:
        self.senders = senders
        self.heeded = heeded
        self.mint = mint
        self._ledger = ledger
        self._files = files
        self._alarm = alarm
        self._clock = clock
        self._room = room
        self._accepted = accepted
        self._max_size = max_size
        self._since: Mapping[str, datetime] = {}
        self._noted: Acknowledged | None = None
        self._forgets_at = 0.0
        """Monotonic; when it is next looked whose turn is long over."""
        self._doubtful: dict[str, bytes] = {}
        """Mails of which the ledger could not say whether it has recorded them: id -> file."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Where nobody acknowledges and nothing is owed, the ledger is asked once."""
        while not stop.is_set():
            try:
                await self.step()
            except LedgerUnavailable as error:
                log.warning("acknowledgement.unrecorded", reason=str(error))
            except TransientError as error:
                log.warning("acknowledgement.put_off", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await stop.wait()

    async def step(self) -> None:
        """Decide all that is owed now. Raises :class:`LedgerUnavailable`, and :class:`TransientError` for the machine's
        trouble, and if there was no room for some; the rest is owed still, and what goes by another identity is
        decided."""
        if self._noted is not self.heeded:
            heeded = self.heeded
            self._since = await self._ledger.acknowledging(heeded.mailboxes.keys())
            self._noted = heeded
        elif not self.heeded.mailboxes:
            return
        if self._clock.monotonic() >= self._forgets_at:
            while await self._ledger.acknowledgements_forget(self._clock.now() - KEPT):
                pass
            self._forgets_at = self._clock.monotonic() + _HOUR.total_seconds()
        await self._resolve_doubts()
        if await self._alarm.stands(Kind.ACKNOWLEDGEMENTS_STOPPED, ALL):
            await self._stopped()
        full: dict[str, str] = {}
        while owed := await self._ledger.acknowledgements(limit=_AT_ONCE, but=full):
            for one in owed:
                if one.mailbox in full:
                    continue
                try:
                    await self._decide(one)
                except _NoRoom as error:
                    full[one.mailbox] = str(error)
        if full:
            raise TransientError(f"{', '.join(sorted(full))}: {next(iter(full.values()))}")

    async def _decide(self, owed: Acknowledgement) -> None:
        try:
            reason = await self._objection(owed)
            mail = None if reason else await self._made(owed)
        except (LedgerUnavailable, TransientError):
            raise
        except EntryRefused as error:
            mail, reason = None, str(error)
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                raise TransientError(trouble) from error
            log.exception("acknowledgement.crashed", mid=owed.mid)
            mail, reason = None, "a bug"
        if mail is None:
            await self._ledger.acknowledge(owed.mid, None)
            log.info("acknowledgement.left", mid=owed.mid, mailbox=owed.mailbox, reason=reason)
            return
        try:
            recorded = await self._ledger.acknowledge(owed.mid, mail)
        except LedgerUnavailable:
            self._doubtful[mail.id] = mail.digest
            raise
        if not recorded:  # erased meanwhile
            self._room.give_back(mail.id)
            await asyncio.to_thread(self._files.drop, [mail.digest])
            return
        self._room.recorded(mail.id)
        log.info("acknowledgement.accepted", id=mail.id, identity=mail.identity, mailbox=owed.mailbox, mid=owed.mid)
        self._accepted(mail.identity)

    async def _objection(self, owed: Acknowledgement) -> str:
        """Why this is not sent, as a constant word; "" if it is to be."""
        config, now = self.heeded.mailboxes.get(owed.mailbox), self._clock.now()
        since = self._since.get(owed.mailbox)
        if config is None or config.words(owed.rule) is None or since is None:
            return "switched-off"
        if owed.received < since:
            return "before-it-was-switched-on"
        if now >= owed.received + config.max_age:
            return "too-old"
        address = owed.address.casefold()
        if address in self.heeded.own or without_detail(address) in self.heeded.own:
            return "own-address"
        found = self._by(owed)
        if found is None:
            return "no-outgoing"
        if found[1].held:
            return "held"
        if not found[1].null_sender and config.sender is None:
            return "no-null-sender"
        if await self._ledger.acknowledged(owed.mailbox, owed.address, now - config.every):
            return "told-already"
        return "too-many" if await self._stopped() else ""

    async def _stopped(self) -> bool:
        """True if there were too many. Then there are none, until half as many were within the last hour."""
        count = await self._ledger.acknowledged_count(self._clock.now() - _HOUR)
        most = self.heeded.max_per_hour
        stands = await self._alarm.stands(Kind.ACKNOWLEDGEMENTS_STOPPED, ALL)
        if count >= most or (stands and count > most // 2):
            detail = f"{count} within an hour; outbox.max_acknowledgements_per_hour is {most}"
            await self._alarm.raised(Kind.ACKNOWLEDGEMENTS_STOPPED, ALL, detail)
            return True
        if stands:
            await self._alarm.ended(Kind.ACKNOWLEDGEMENTS_STOPPED, ALL)
        return False

    def _by(self, owed: Acknowledgement) -> tuple[Answering, Identity] | None:
        answering = self.senders.mailboxes.get(owed.mailbox)
        identity = self.senders.identities.get(answering.identity) if answering is not None else None
        return None if answering is None or identity is None else (answering, identity)

    async def _made(self, owed: Acknowledgement) -> OutboxMail:
        """The mail, its file synced. Raises :class:`_NoRoom` if there is none for it."""
        config, found, now = self.heeded.mailboxes[owed.mailbox], self._by(owed), self._clock.now()
        words = config.words(owed.rule)
        assert found is not None and words is not None
        answering, identity = found
        number = uuid.uuid4().hex
        domain = ascii_address(identity.sender.address).rpartition("@")[2]
        own_id = message_id_of(number, domain, self._token(owed.conversation))
        address, octets = await asyncio.to_thread(
            acknowledgement_octets,
            owed,
            words.in_language(owed.language),
            identity.sender,
            own_id=own_id,
            at=now,
            wish=answering.charset,
        )
        shared = self.senders.shares_room(identity.name)
        if reason := self._room.take(number, identity.name, len(octets), self._max_size, shared=shared):
            raise _NoRoom(reason)
        try:
            digest = await asyncio.to_thread(self._files.keep, octets)
        except BaseException:
            self._room.give_back(number)
            raise
        return OutboxMail(
            number,
            ACKNOWLEDGEMENT,
            owed.mid,
            digest,
            identity.name,
            owed.mailbox,
            owed.mid,
            own_id,
            ascii_address(config.sender or ""),
            len(octets),
            digest,
            now,
            owed.received + config.max_age,
            now,
            recipients=(OutboxRecipient(address),),
        )

    def _token(self, conversation: str) -> str:
        """So that what the sender answers is known to belong there; without a key the thread alone tells."""
        try:
            return self.mint(conversation) if conversation else ""
        except (ValueError, ConfigError):
            return ""

    async def _resolve_doubts(self) -> None:
        """Remove the files of mails that were not recorded after all."""
        for id, digest in list(self._doubtful.items()):
            recorded = await self._ledger.outbox_mail(id)
            self._doubtful.pop(id, None)
            if recorded is None:
                self._room.give_back(id)
                await asyncio.to_thread(self._files.drop, [digest])
            else:
                self._room.recorded(id)
                self._accepted(recorded.identity)
