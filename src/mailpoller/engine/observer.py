"""Who wants to know how one mailbox's messages fare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailpoller.core.delivery import Disposed, Outcome, Question
from mailpoller.core.message import Claim, Folder


class Observer(Protocol):
    """Told of one mailbox's messages. Called from the batch runner's tasks; never blocks, never raises."""

    def progressed(self) -> None:
        """A step got somewhere."""

    def listed(self, count: int) -> None:
        """A listing begins that shows so many messages."""

    def unfetched(self, folder: Folder, count: int) -> None:
        """At the end of a pass so many messages of the folder are unknown to the ledger still, as their queues are
        down."""

    def settled(self, outcome: Outcome) -> None:
        """An outcome was committed."""

    def skipped(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes of what ``start`` leaves out were committed."""

    def deferred(self, claims: Sequence[Claim], reason: str) -> None:
        """That these are put off was committed."""

    def disposed(self, failed: Sequence[Disposed], applied: Sequence[Disposed]) -> None:
        """What the server said to a batch of dispositions."""

    def absence(self, detail: str) -> None:
        """Many messages that wait are not there, in words; empty when they are."""

    def replaced(self, count: int) -> None:
        """Names of so many messages are other messages' now."""

    def questioned(self, folder: Folder, questions: Sequence[Question]) -> None:
        """The names of a folder whose bearers a pass could not tell, all of them."""

    def fault(self, event: str, detail: str, mid: str) -> None:
        """Something about one message went wrong that an operator should find again."""
