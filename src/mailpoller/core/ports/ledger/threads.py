"""Which conversation an earlier message belongs to, by its Message-ID."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol


class Threads(Protocol):
    """What was settled, as far as later messages answer it."""

    async def conversations(
        self, mailbox: str, message_ids: Collection[str], mailboxes: Collection[str] | None
    ) -> Mapping[str, str]:
        """Message-ID -> the conversation of the message that has it: the one that was recorded with its outcome, else
        the mid with which one begins. Of those that are known in these mailboxes, or in any (None). Of several with
        one Message-ID, as a mail has that was sent to two mailboxes, one of ``mailbox`` itself counts before others,
        then the one that was settled last. Reads only, beside whatever is written.

        ``message_ids``: those that matter most first. What a question costs does not grow with the ledger for ever: of
        many the last are then looked for among what was settled lately alone."""
