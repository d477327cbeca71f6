"""The seal of the port ``Ledger``: what makes a settlement. For ledgers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailpoller.core.delivery import Disposition, OutcomeKind, Settlement
from mailpoller.core.message import MessageRef
from mailpoller.core.record import record


@record
class SealedSettlement(Settlement):  # type: ignore[misc]  # final: nobody else makes a kind of settlement
    """A settlement, made by who has committed the outcome: what the server is told from now on cannot lose the mail."""

    if TYPE_CHECKING:

        def __init__(self, ref: MessageRef, mid: str, kind: OutcomeKind, disposition: Disposition) -> None: ...
