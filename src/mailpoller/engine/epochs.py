"""What a folder's first run, or a new epoch, wants of its mail, and when an operator has to decide."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import structlog

from mailpoller.core.message import Folder, MessageRef
from mailpoller.core.ports import FolderState, Session, Start
from mailpoller.engine.alarm import Kind
from mailpoller.engine.attended import Attended
from mailpoller.engine.batcher import Wanted
from mailpoller.engine.pass_result import PassResult

log = structlog.get_logger(__name__)

CLOCK_MARGIN = timedelta(hours=1)
"""In a new epoch, mail that the server received so long before our first run still counts as later: its clock is not
ours and counts whole seconds. What was settled before is known by its fingerprint; what is skipped would be lost."""


class Epochs:
    """The beginnings of one mailbox's folders. ``progressed`` is called for each page that has to be listed for
    them."""

    def __init__(self, attended: Attended, progressed: Callable[[], None]) -> None:
        self.held: set[Folder] = set()
        """Folders that wait for an operator."""
        self._attended = attended
        self._mailbox = attended.mailbox
        self._config = attended.config
        self._records = attended.records
        self._alarm = attended.alarm
        self._progressed = progressed
        self._begun: set[Folder] = set()
        """Folders whose first run or new epoch was looked at and said. Their first position may be long in coming:
        nothing is listed while every queue is down."""

    def begin(self, state: FolderState) -> None:
        """Say that the first run of a folder begins, if it does."""
        if state.first_run and state.position is None and state.folder not in self._begun:
            self._begun.add(state.folder)
            log.info("folder.started", mailbox=self._mailbox, folder=state.folder.name, start=self._config.start)

    def begin_anew(self, folder: Folder) -> None:
        """A new epoch of the folder was begun by ourselves."""
        self._begun.discard(folder)

    async def must_hold(self, session: Session, state: FolderState) -> bool:
        """True while an operator must decide about a new epoch with much unknown mail."""
        folder = state.folder
        undecided = suppress(state) and state.position is None and state.accepted is None
        if not undecided:
            if folder in self.held:
                self.held.discard(folder)
                await self._alarm.ended(Kind.MAILBOX_HELD, self._mailbox)
            return False
        if folder in self.held:
            return True
        if folder in self._begun:
            return False
        refs: list[MessageRef] = []
        partial = False
        wanted = await self.wanted(state)
        async for page in session.pending(folder, None, self.start(state)):
            self._progressed()
            partial = partial or page.partial
            refs += [ref for ref in page.refs if wanted is None or wanted(ref)]
        unknown = await self._records.folders.unknown(folder, refs)
        log.warning(
            "epoch.changed",
            mailbox=self._mailbox,
            folder=folder.name,
            epoch=folder.epoch,
            listed=len(refs),
            unknown=unknown,
        )
        if unknown <= self._config.hold_above:
            if not partial:  # else the next listing may show more
                self._begun.add(folder)
            return False
        reason = (
            f"{unknown} of {len(refs)} messages in {folder.name} are unknown"
            " after its numbering (UIDVALIDITY, host or user) changed"
        )
        if not await self._records.folders.hold(folder, reason):
            return False  # an operator was faster
        self.held.add(folder)
        log.error("mailbox.held", mailbox=self._mailbox, folder=folder.name, unknown=unknown)
        advice = f"{reason}; decide with: mailpoller accept {self._mailbox} --baseline | --replay"
        await self._alarm.raised(Kind.MAILBOX_HELD, self._mailbox, advice, group=self._attended.group)
        return True

    def start(self, state: FolderState) -> Start:
        """What a full listing of this folder shows: the mailbox's ``start`` on the first run, all that came later
        after that."""
        if state.complete:
            return Start("all")
        if suppress(state):
            if state.accepted == "baseline":
                return Start("all", dated=True) if state.left_before else Start("now")
            if self._leaves_out_old(state) and state.left_before:
                return Start("all", dated=True)
            if self._leaves_out_old(state):
                return Start("since", state.baseline_at - CLOCK_MARGIN, dated=True)
        instant = self._config.starts_at()
        if instant is not None:
            return Start("since", instant, dated=suppress(state))
        return Start(self._config.start, dated=suppress(state))  # type: ignore[arg-type]

    async def wanted(self, state: FolderState) -> Wanted:
        """In a new epoch in which old mail is left out: what is older, unless it may be mail that an earlier epoch
        did not settle. In one that an operator baselined: nothing but that."""
        baselined = state.accepted == "baseline"
        if not (suppress(state) and (baselined or self._leaves_out_old(state)) and state.left_before):
            return None
        left = await self._records.folders.left(state.folder)
        if baselined:
            return functools.partial(_is_left, left)
        sizes = {size for size, received in left if received is None}
        dated = {(size, received) for size, received in left if received is not None}
        earliest = state.baseline_at - CLOCK_MARGIN

        def wanted(ref: MessageRef) -> bool:
            if ref.received is None or ref.received >= earliest or ref.size is None or None in sizes:
                return True
            return ref.size in sizes or (ref.size, ref.received.replace(microsecond=0)) in dated

        return wanted

    def _leaves_out_old(self, state: FolderState) -> bool:
        """In a new epoch mail that is older than the first run was settled, or was not wanted.
        Not so where the server was put back: mail that was removed before we came may be there again, and what we
        know keeps its name, its size and its date."""
        if state.set_back and self._config.start not in ("now", "unseen"):
            return False
        return state.accepted != "baseline" and (state.settled_before or self._config.start == "now")

    async def is_complete(self, result: PassResult) -> bool:
        """True if a first listing that was worked through counts as complete: if all that it showed is settled.

        What waits may be mail from before the first run, which the listing of a next epoch leaves out once this one
        is complete; or settled in an earlier epoch, which is noticed only until then.
        But with ``start: unseen`` or ``now`` that next listing would leave out more while this one is not complete:
        what came since the first run, and somebody has read meanwhile.
        """
        if self._config.start in ("unseen", "now"):
            return not result.unfetched
        counts = await self._records.mailboxes.counts(self._mailbox)
        return not counts["claimed"] and not counts["deferred"]


def suppress(state: FolderState) -> bool:
    """True in the first full listing after an epoch change."""
    return state.epoch_changed and not state.complete


def _is_left(left: Collection[tuple[int | None, datetime | None]], ref: MessageRef) -> bool:
    """Whether the message may be one of those that an earlier epoch did not settle, of which size and date are
    given."""
    came = None if ref.received is None else ref.received.replace(microsecond=0)
    return any(
        ref.size is None
        or size is None
        or (ref.size == size and (came is None or received is None or came == received))
        for size, received in left
    )
