"""The conformance suite of ledgers: subclass :class:`LedgerSuite` in a test module, give it a factory, run pytest."""

from __future__ import annotations

from mailpoller.testing.ledger.absence import AbsencePromises
from mailpoller.testing.ledger.bearers import BearerPromises
from mailpoller.testing.ledger.claims import ClaimPromises
from mailpoller.testing.ledger.folders import FolderPromises
from mailpoller.testing.ledger.gone import GonePromises
from mailpoller.testing.ledger.ground import ACCOUNT, INBOX, RENUMBERED, SuiteClock, claims, outbox_mail, outcome, refs
from mailpoller.testing.ledger.marks import MarkPromises
from mailpoller.testing.ledger.operators import OperatorPromises
from mailpoller.testing.ledger.outbox import OutboxPromises
from mailpoller.testing.ledger.pruning import PruningPromises
from mailpoller.testing.ledger.settlement import SettlementPromises

__all__ = ["ACCOUNT", "INBOX", "RENUMBERED", "LedgerSuite", "SuiteClock", "claims", "outbox_mail", "outcome", "refs"]


class LedgerSuite(
    FolderPromises,
    ClaimPromises,
    SettlementPromises,
    BearerPromises,
    GonePromises,
    AbsencePromises,
    PruningPromises,
    MarkPromises,
    OperatorPromises,
    OutboxPromises,
):
    """What every ledger must hold. A subclass is named ``Test…`` and implements :meth:`open`.

    Each test has its own directory and clock; whatever is opened is closed by the test. :meth:`open` called
    again after ``close`` with the same directory must find what the first one recorded.
    """
