"""Whether names still stand for what they stood for: asked at the start of every session, and whenever a look raises
the question."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from mailpoller.core.delivery import Question
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Message, MessageRef, RawMessage, Survey
from mailpoller.core.ports import Census, Clock, FolderState, Session, Sight
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.records import Records
from mailpoller.mail.date import parse_date
from mailpoller.mail.parser import parse

log = structlog.get_logger(__name__)

HEAD = 64_000
"""Octets of a message that are fetched to see whose it is."""
HEADS_AT_ONCE = 20
LEFT_OUT_MARGIN = timedelta(hours=1)
"""A server's clock is not ours: what came so long before the first look may still be later mail."""
_FAR = 1 << 40
RECOGNISED_AT_ONCE = 2000
"""Names that the ledger is asked about at once."""
LOOKED_FOR = 500
"""Messages that are looked for at once."""
APART = timedelta(minutes=1)
"""Two looks that conclude something are at least so far apart, and a poll."""
ASKED_AGAIN = timedelta(days=1)
"""What ended as gone is asked for so often, and at every new session."""
ASKED_ON = timedelta(minutes=10)
"""Where that is too much to be asked for at once, more of it is asked for so long after the last."""
BEHIND_FOR = timedelta(days=1)
"""No replica lags for so long."""
ASKED_AGAIN_ALONE = timedelta(hours=1)
"""A header that a session was lost with is asked for so often."""


class Numbering:
    """Compares what one mailbox shows with what the ledger knows."""

    def __init__(self, mailbox: str, config: SourceConfig, *, records: Records, clock: Clock) -> None:
        self._mailbox = mailbox
        self._apart = max(APART, config.poll_interval)
        self._records = records
        self._clock = clock
        self._asked: dict[str, tuple[Session, datetime]] = {}
        """Folder -> in which session what is gone was asked for last, and when it is asked for again."""
        self._turn = secrets.randbelow(_FAR)
        """Whose turn it is of what is gone; a process that polls but once does not begin where the last one did."""
        self.doubted: set[str] = set()
        """Folders that show names which we should know and do not, and want a further look."""
        self._unanswered: dict[Folder, tuple[bool, list[Question]]] = {}
        """What surveys (of a whole mailbox, or not) asked and no header answered. A source may not show it once
        more."""
        self._again_at: dict[str, datetime] = {}
        """mid -> when a header is asked for again that may have taken the session with it; alone from then on."""

    def unanswered(self, folder: Folder | None = None) -> Sequence[Question]:
        """Questions about names behind a position that are not answered yet: of one folder, or of all."""
        return [
            question for where, (_, several) in self._unanswered.items() if folder in (None, where)
            for question in several
        ]  # fmt: skip

    # --- at every poll -----------------------------------------------------------------------------------------
    async def verify(self, session: Session, state: FolderState) -> tuple[FolderState, str]:
        """The state with the position that is to be gone on from; and why the folder's numbering is not the one that
        we know, in words, empty if nothing proves that."""
        folder = state.folder
        await self._ask_for_the_lost(session, folder)
        survey = await session.survey(folder, state.position)
        if survey.position is not None and survey.position != state.position:
            await self._records.folders.advance(folder, survey.position)
            state = replace(state, position=survey.position)
        return state, await self._contradiction(session, survey, state)

    async def _contradiction(self, session: Session, survey: Survey, state: FolderState) -> str:
        folder = state.folder
        if survey.whole:
            names = survey.shows()
            census = await self._records.folders.census(folder, survey.familiar, names)
            if state.complete and (reason := _replaced(census)):
                return reason
            # Not before: a process that is killed in between would see nothing vanish.
            if census.changed:
                await self._records.folders.note_absent(folder, names)
        # A name that is given anew is another message's; where names are numbers that only grow, it tells of all of
        # them.
        whole, others = await self._others(session, folder, survey)
        if others and whole:
            await self._records.bearers.identified([], others)
        elif others:
            self._unanswered.pop(folder, None)
            return f"{len(others)} of the newest known numbers stand for other messages"
        return await self._strangers(survey, folder, state)

    async def _strangers(self, survey: Survey, folder: Folder, state: FolderState) -> str:
        """Names that we should know and do not count at two looks, because a replica may lag.

        Others that we do not know may be what ``start`` left out; or new mail, under numbers that were never listed
        before the server was put back. A replica catches up: where the server stands behind for a day, they count.
        """
        patience = self._apart
        unknown = await self._sights(survey.strange, "unknown")
        if not unknown and survey.behind:
            patience = BEHIND_FOR
            unknown = await self._sights(survey.familiar, "unknown")
        self.doubted.discard(folder.name)
        if not unknown:
            if state.strange_at is not None and not survey.behind:
                await self._records.folders.strange(folder, False)
            return ""
        await self._records.folders.strange(folder, True)
        if state.strange_at is None:
            log.warning("epoch.doubted", mailbox=self._mailbox, folder=folder.name, unknown=len(unknown))
        if state.strange_at is None or self._clock.now() - state.strange_at < patience:
            self.doubted.add(folder.name)
            return ""
        return f"{len(unknown)} messages stand where none was that we do not know"

    async def _others(self, session: Session, folder: Folder, survey: Survey) -> tuple[bool, list[MessageRef]]:
        """The names that are known ones of other messages, of those that the survey shows and those that are asked
        about still; and whether that was in a whole mailbox."""
        whole, earlier = self._unanswered.get(folder, (survey.whole, []))
        whole = survey.whole or (whole and not survey.familiar)
        still_there = await self._still_there(session, survey, earlier)
        sights = [*await self._sights(survey.familiar, "question"), *await self._sights(still_there, "question")]
        questions = [_question(sight) for sight in sights]
        self._unanswered = {one: kept for one, kept in self._unanswered.items() if one.name != folder.name}
        if not questions:
            return whole, []
        # Kept before they are asked: the session may be lost with it.
        self._unanswered[folder] = whole, questions
        same, other, unanswered = await self._ask(session, questions)
        self._unanswered[folder] = whole, unanswered
        if unanswered and {one.mid for one in unanswered} != {one.mid for one in earlier}:
            log.warning("message.questioned", mailbox=self._mailbox, folder=folder.name, messages=len(unanswered))
        if not unanswered:
            del self._unanswered[folder]
        if same:
            await self._records.bearers.identified(same, [])
        return whole, other

    async def _sights(self, refs: Sequence[MessageRef], state: str) -> list[Sight]:
        """What the ledger sees in those of the names of which it says this; a maildrop may show a million."""
        found: list[Sight] = []
        for begin in range(0, len(refs), RECOGNISED_AT_ONCE):
            seen = await self._records.bearers.recognise(refs[begin : begin + RECOGNISED_AT_ONCE])
            found += [sight for sight in seen if sight.state == state]
        return found

    async def _still_there(
        self, session: Session, survey: Survey, questions: Sequence[Question]
    ) -> Sequence[MessageRef]:
        """What the mailbox says now of names that are asked about, but for those that the survey shows."""
        shown = survey.shows() if questions else ()
        refs = [question.ref for question in questions if question.ref.uid not in shown]
        seen = await session.look(refs) if refs else []
        # A look that tells neither size nor date answers nothing.
        return [
            ref if found.size is None and found.received is None else found
            for ref, found in zip(refs, seen, strict=True) if found is not None
        ]  # fmt: skip

    async def _ask(
        self, session: Session, questions: Sequence[Question]
    ) -> tuple[list[MessageRef], list[MessageRef], list[Question]]:
        """As :func:`answer`. Some servers hang up whenever they are asked for one particular message: after that
        those that had been asked for are asked for alone, one at each poll, so that the mailbox goes on all the
        same."""
        now = self._clock.now()
        asked = [one for one in questions if one.mid not in self._again_at]
        if not asked:
            waits = {one.mid: self._again_at[one.mid] - now for one in questions}
            asked = [one for one in questions if not timedelta(0) < waits[one.mid] <= ASKED_AGAIN_ALONE][:1]
        try:
            same, other, unanswered = await answer(session, asked)
        except SessionLost:
            later = now if len(asked) > 1 else now + ASKED_AGAIN_ALONE
            self._again_at.update((one.mid, later) for one in asked)
            raise
        for one in asked:
            self._again_at.pop(one.mid, None)
        taken = {one.mid for one in asked}
        return same, other, unanswered + [one for one in questions if one.mid not in taken]

    async def _ask_for_the_lost(self, session: Session, folder: Folder) -> None:
        """What ended as gone may be back: then it is claimed anew."""
        now = self._clock.now()
        asked_in, again_at = self._asked.get(folder.name, (None, now))
        if asked_in is session and timedelta(0) < again_at - now <= ASKED_AGAIN:
            return
        latest = await self._records.backlog.lost(folder, limit=LOOKED_FOR)
        there = {ref.uid for ref in latest}
        many = len(latest) == LOOKED_FOR
        # However many there are, each has its turn.
        others = await self._records.backlog.lost(folder, limit=LOOKED_FOR, turn=self._turn) if many else ()
        self._turn += LOOKED_FOR
        lost = [*latest, *(ref for ref in others if ref.uid not in there)]
        found: list[MessageRef] = []
        for begin in range(0, len(lost), LOOKED_FOR):
            seen = await session.look(lost[begin : begin + LOOKED_FOR])
            found += [ref for ref in seen if ref is not None]
        if found and (revived := await self._records.backlog.revive(found)):
            log.warning("folder.reappeared", mailbox=self._mailbox, folder=folder.name, messages=revived)
        self._asked[folder.name] = session, now + (ASKED_ON if many else ASKED_AGAIN)


def _question(sight: Sight) -> Question:
    return Question(sight.ref, sight.mid, sight.identity or b"", sight.left_out_at, sight.message_id)


def _replaced(census: Census) -> str:
    """Why a whole listing is another numbering: what was left there is gone, and as many, or such of the same sizes,
    stand in its place."""
    vanished, strangers = census.vanished.total(), census.strangers.total()
    if not vanished or not strangers:
        return ""
    alike = sum(many for size, many in (census.vanished & census.strangers).items() if size is not None)
    many = vanished >= 2 and 2 * vanished > census.left and 2 * strangers >= vanished
    if many or (alike and 2 * alike >= vanished):
        return (
            f"{vanished} of {census.left} messages that were left there vanished, and {strangers} unknown ones "
            f"stand in their place"
        )
    return ""


async def answer(
    session: Session, questions: Sequence[Question]
) -> tuple[list[MessageRef], list[MessageRef], list[Question]]:
    """Look at the headers: names that bear what they bore, names that bear another message, and questions that could
    not be answered.

    Raises :class:`SessionLost`.
    """
    same: list[MessageRef] = []
    other: list[MessageRef] = []
    left = {question.mid: question for question in questions}
    for begin in range(0, len(questions), HEADS_AT_ONCE):
        several = questions[begin : begin + HEADS_AT_ONCE]
        try:
            async with aclosing(session.fetch([Claim(one.ref, one.mid) for one in several], HEAD)) as heads:  # type: ignore[type-var]
                async for head in heads:
                    if not isinstance(head, RawMessage):
                        continue
                    message = None if head.doubt else parse(head)
                    head.octets.close()
                    if message is not None:
                        question = left.pop(head.claim.mid)
                        (same if _bears(message, question) else other).append(question.ref)
        except SessionLost:
            raise
        except TransientError as error:
            log.debug("question.unanswered", reason=str(error))
    return same, other, list(left.values())


def _bears(message: Message, question: Question) -> bool:
    """Whether this is the message that the question's name bore. Of one that was left out unread no more is known
    than when that was."""
    if question.message_id:
        return message.message_id == question.message_id
    if question.left_out_at is None:
        return (message.identity or b"") == question.identity
    came = _came(message)
    return came is not None and came < question.left_out_at - LEFT_OUT_MARGIN


def _came(message: Message) -> datetime | None:
    """When the server took the message, as its topmost Received field says; None if that is not told. Date is the
    sender's, and may be any."""
    for name, value in message.headers:
        if name.lower() == "received":
            return parse_date(value.rpartition(";")[2].strip())
    return None
