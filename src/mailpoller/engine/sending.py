"""One mail of the outbox, brought to an outgoing: what was said of each recipient is committed, then told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import structlog

from mailpoller.core.acknowledgement import ACKNOWLEDGEMENT
from mailpoller.core.errors import (
    ConfigError,
    CredentialsRefused,
    LedgerUnavailable,
    MachineTrouble,
    MailpollerError,
    MessageRejected,
    TransientError,
    machine_trouble,
)
from mailpoller.core.ports import (
    Clock,
    Draft,
    Drafting,
    Mail,
    Outbox,
    OutboxMail,
    Outgoing,
    Posting,
    RecipientState,
    Said,
)
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.outbox_room import OutboxRoom
from mailpoller.engine.senders import Identity
from mailpoller.mail.addressed import diverted
from mailpoller.storage.octet_files import OctetFiles

log = structlog.get_logger(__name__)

FIRST_WAIT = timedelta(minutes=1)
"""Before a mail that was put off is tried again; doubled each time,"""
LONGEST_WAIT = timedelta(hours=2)
"""but never longer than this."""
_LEDGER_AGAIN_S = 2.0


@dataclass(slots=True)
class Round:
    """One identity at work: ``held`` and ``down`` say why it does not send, or nothing."""

    identity: str
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """There may be something to send."""
    insist: asyncio.Event = field(default_factory=asyncio.Event)
    """There is a reason to try now, also after a failure."""
    held: str = ""
    down: str = ""
    down_since: datetime | None = None
    next_at: float = 0.0
    """Monotonic; before it no further mail is begun, for the sake of the rate."""
    at_work: bool = False
    """Mails may be on their way."""
    passed: int = 0
    """Mails that the outgoing took or refused."""
    suspects: dict[str, int] = field(default_factory=dict)
    """Mails at which the outgoing had trouble, and how many had passed by then."""


class Sending:
    """Sends single mails, for the :class:`~mailpoller.engine.postman.Postman`. ``tells``: whether an intake wants to
    know what became of its mail."""

    def __init__(
        self,
        ledger: Outbox,
        files: OctetFiles,
        alarm: Alarm,
        clock: Clock,
        room: OutboxRoom,
        tells: Callable[[str], bool],
        prudent: Clock,
    ) -> None:
        self._ledger = ledger
        self._files = files
        self._alarm = alarm
        self._clock = clock
        self._room = room
        self._tells = tells
        self._prudent = prudent

    async def send(
        self, one: Round, identity: Identity, outgoing: Outgoing | None, mail: OutboxMail
    ) -> MailpollerError | None:
        """One mail to all who are still to get it. What it returns is the outgoing's trouble, and no word about the
        mail is recorded then.

        Trouble at the same mail again, when others have passed since, is that mail's: it is put off alone. Relays say
        of a recipient that he does not take our sender, in words by which they mean all of our mail elsewhere."""
        began = monotonic()
        to = mail.open
        if mail.intake == ACKNOWLEDGEMENT and self._clock.now() >= mail.gives_up_at:
            return await self.concluded(mail, dict.fromkeys(to, Said("refused", "too late: the mail came long ago")))
        try:
            octets = await asyncio.to_thread(self._files.read, mail.digest)
        except TransientError as error:
            patient = isinstance(error, MachineTrouble)
            await self.concluded(mail, dict.fromkeys(to, Said("deferred", str(error))), patient=patient)
            return None
        envelope = to
        if identity.divert_to:
            envelope, octets = (identity.divert_to,), diverted(octets, identity.divert_to)
        try:
            if outgoing is None:  # it has left since
                return TransientError(f"the outgoing {identity.name} is not there")
            said = await self._post(outgoing, Mail(mail.sender, envelope, octets, mail.id if mail.sender else ""), mail)
        except (TransientError, CredentialsRefused, ConfigError) as error:
            if one.passed <= one.suspects.get(mail.id, one.passed):
                one.suspects.setdefault(mail.id, one.passed)
                return error
            said = dict.fromkeys(envelope, Said("deferred", str(error)))
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                return TransientError(trouble)
            log.exception("outbox.crashed", id=mail.id, identity=identity.name)
            said = dict.fromkeys(envelope, Said("deferred", f"this is a bug: {type(error).__name__}"))
        one.suspects.pop(mail.id, None)
        one.passed += any(answer.state != "deferred" for answer in said.values())
        if identity.divert_to:
            said = dict.fromkeys(to, next(iter(said.values())))
        return await self.concluded(mail, said, elapsed_s=round(monotonic() - began, 3))

    async def _post(self, outgoing: Outgoing, mail: Mail, kept: OutboxMail) -> Mapping[str, Said]:
        async def keep(draft: Draft | None) -> None:
            await self._ledger.outbox_note_draft(kept.id, draft)

        if isinstance(outgoing, Drafting) and outgoing.drafts:
            return await outgoing.post_draft(mail, kept.draft, keep)
        if isinstance(outgoing, Posting):
            return await outgoing.post(mail)
        try:
            answer = await outgoing.send(mail)
        except MessageRejected as error:
            return dict.fromkeys(mail.recipients, Said("refused", str(error)))
        return dict.fromkeys(mail.recipients, Said("accepted", str(answer)))

    async def concluded(
        self, mail: OutboxMail, said: Mapping[str, Said], *, patient: bool = False, **more: Any
    ) -> MailpollerError | None:
        """Commit what was said, and tell it. Returns trouble only if the ledger cannot be told and we stop.
        ``patient``: it is put off for this machine's sake, however long it has waited."""
        now = self._clock.now()
        given_up = self._prudent.now() >= mail.gives_up_at and not patient
        states: dict[str, tuple[RecipientState, str]] = {}
        for address, one in said.items():
            state: RecipientState = one.state
            words = one.words
            if state == "deferred" and given_up:
                state, words = "refused", f"given up after {_days(now - mail.accepted_at)}: {words}"
            states[address] = state, words
        left = [one for one in mail.open if states.get(one, ("waiting", ""))[0] in ("waiting", "deferred")]
        due_at = now + waiting_time(mail.attempts) if left else None
        while True:
            try:
                await self._ledger.outbox_answered(mail.id, states, due_at, tell=self._tells(mail.intake))
                break
            except LedgerUnavailable as error:
                # Not until it is recorded may another mail go out here: it would be one more that a crash repeats.
                log.warning("outbox.unrecorded", id=mail.id, reason=str(error))
                await self._clock.sleep(_LEDGER_AGAIN_S)
        self._tell(mail, states, **more)
        if due_at is None:
            await self.finished(mail)
        return None

    def _tell(self, mail: OutboxMail, states: Mapping[str, tuple[RecipientState, str]], **more: Any) -> None:
        about = {"id": mail.id, "identity": mail.identity, "mailbox": mail.mailbox, "mid": mail.mid, **more}
        attempt = mail.attempts + 1
        words = {state: [said for found, said in states.values() if found == state] for state, _ in states.values()}
        if taken := words.get("accepted"):
            log.info("outbox.sent", **about, recipients=len(taken), attempt=attempt, answer=taken[0])
        if later := words.get("deferred"):
            log.warning("outbox.deferred", **about, recipients=len(later), attempt=attempt, answer=later[0])
            self._note(mail, "outbox.deferred", later)
        if never := words.get("refused"):
            log.warning("outbox.refused", **about, recipients=len(never), attempt=attempt, answer=never[0])
            self._note(mail, "outbox.refused", never)

    def _note(self, mail: OutboxMail, event: str, words: Sequence[str]) -> None:
        """For ``mailpoller errors``: of the outgoing, and of the mailbox that it answered for."""
        count = f"{len(words)} of {len(mail.recipients)} recipients: " if len(mail.recipients) > 1 else ""
        self._alarm.fault(mail.identity, event, f"sent, {mail.id[:12]}: {count}{words[0]}", mail.mid)
        if mail.mailbox and mail.mailbox != mail.identity:
            self._alarm.fault(mail.mailbox, event, f"sent, {mail.id[:12]}: {count}{words[0]}", mail.mid)

    async def finished(self, mail: OutboxMail) -> None:
        """Nobody gets it any more: its octets may go."""
        self._room.sent(mail.identity, mail.size)
        await asyncio.to_thread(self._files.drop, [mail.digest])


def waiting_time(attempts: int) -> timedelta:
    """How long a mail waits after its next attempt, if it had so many before."""
    return min(LONGEST_WAIT, FIRST_WAIT * float(2 ** min(attempts, 10)))


def _days(passed: timedelta) -> str:
    hours = passed / timedelta(hours=1)
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
