"""The brake: a sender who writes to one mailbox far more often than anybody does is a loop, or a flood."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from mailpoller.core.message import Message
from mailpoller.core.policy import is_from
from mailpoller.storage.listed import sender_list

_REMEMBERED = 1_000_000
"""Moments of receipt that are kept of one mailbox, at most."""
_JUDGED = 10_000
"""Messages whose answer is kept, so that one that is tried again gets the same."""


class Brake:
    """Tells whether a message is one too many: its sender had more than ``mails`` received within ``window`` before it.

    Counted is by the moments at which the server received the mails, never by now, so that a backlog is no flood; of
    a mail of which the server does not say it nothing is counted. What is too many counts, too: a sender is let
    through again when he writes less often. A sender is the first address in From, which anybody can write. What an
    operator wants once more is never one too many. What was counted is forgotten when the process ends, and the
    senders that were silent longest are when there are too many. ``spared``: who is never one too many, each an
    address or a domain with all below it; ``files`` list more of them. Raises
    :class:`~mailpoller.core.errors.ConfigError` if one cannot be read.
    """

    def __init__(
        self, mails: int, window: timedelta, *, spared: frozenset[str] = frozenset(), files: Sequence[Path] = ()
    ) -> None:
        self._mails = mails
        self._window = window.total_seconds()
        self._spared = spared
        self._lists = [sender_list(path).required() for path in files]
        self._most_senders = max(100, _REMEMBERED // mails)
        self._senders: OrderedDict[str, deque[float]] = OrderedDict()
        self._judged: OrderedDict[str, bool] = OrderedDict()

    def stops(self, message: Message) -> bool:
        """True if it is one too many. Never raises."""
        received = message.raw.received
        claim = message.raw.claim
        if received is None or not message.from_ or claim.generation:
            return False
        mid = claim.mid
        if (known := self._judged.get(mid)) is not None:
            return known
        answer = self._counted(message.from_[0].address[:320].casefold(), received.timestamp())
        answer = answer and not self._is_spared(message)
        self._judged[mid] = answer
        if len(self._judged) > _JUDGED:
            self._judged.popitem(last=False)
        return answer

    def _is_spared(self, message: Message) -> bool:
        return is_from(message, self._spared) or any(is_from(message, one.now()) for one in self._lists)

    def _counted(self, sender: str, at: float) -> bool:
        times = self._senders.get(sender)
        if times is None:
            times = self._senders[sender] = deque(maxlen=self._mails)
            if len(self._senders) > self._most_senders:
                self._senders.popitem(last=False)
        else:
            self._senders.move_to_end(sender)
        too_many = len(times) == self._mails and all(abs(at - other) < self._window for other in times)
        times.append(at)
        return too_many
