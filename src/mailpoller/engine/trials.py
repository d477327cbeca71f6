"""Whose trouble it is when a queue does not take mail: the queue's, or that of one message in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailpoller.core.delivery import Delivery, Receipt, Refusal

IN_A_ROW = 10
"""Different messages that are refused with none taken between: it is not the messages."""
_REMEMBERED = 50_000
"""Messages whose failure is remembered; the oldest is forgotten, and is the queue's trouble once more."""


class Trials:
    """What one queue took and what it did not. Bounded, and forgotten with the process.

    A call that fails says nothing of which message it is; that others were taken since the same one failed does.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._failed_at: dict[str, int] = {}
        self._row: dict[str, None] = {}

    def __contains__(self, delivery_id: str) -> bool:
        """True if a call failed that it was part of, and it was not taken since: it is brought alone."""
        return delivery_id in self._failed_at

    @property
    def in_vain(self) -> bool:
        """True if so many different messages were refused in a row that it is the queue's trouble, until one is
        taken."""
        return len(self._row) >= IN_A_ROW

    def failed(self, batch: Sequence[Delivery]) -> None:
        """A call with these failed, and their queue passes its check."""
        for one in batch:
            self._failed_at.pop(one.delivery_id, None)
            self._failed_at[one.delivery_id] = self._taken
        while len(self._failed_at) > _REMEMBERED:
            del self._failed_at[next(iter(self._failed_at))]

    def alone_again(self, batch: Sequence[Delivery]) -> bool:
        """True if these are one message, which failed before, and others were taken since. It stays so until it is
        taken, also while no other mail comes."""
        before = self._failed_at.get(batch[0].delivery_id)
        return len(batch) == 1 and before is not None and self._taken > before

    def answered(self, answers: Iterable[Receipt | Refusal]) -> None:
        """These are the queue's answers, in the order in which they were given."""
        for answer in answers:
            if isinstance(answer, Receipt):
                self._failed_at.pop(answer.delivery_id, None)
                if not answer.repeated:  # which a sink may know by itself
                    self._taken += 1
                    self._row.clear()
            elif answer.blame == "message" and not answer.unasked:
                if answer.permanent:
                    self._failed_at.pop(answer.delivery_id, None)
                if not self.in_vain:
                    self._row[answer.delivery_id] = None

    @staticmethod
    def acquitted(answer: Receipt | Refusal) -> Receipt | Refusal:
        """The answer, as it is to be read when refusals are the queue's trouble: it counts against no message."""
        if isinstance(answer, Receipt) or answer.unasked:
            return answer
        return Refusal(answer.delivery_id, answer.reason, blame="queue")
