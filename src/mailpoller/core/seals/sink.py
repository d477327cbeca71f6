"""The seal of the port ``Sink``: what makes a receipt. For sinks alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailpoller.core.delivery import Receipt
from mailpoller.core.record import record


@record
class SealedReceipt(Receipt):  # type: ignore[misc]  # final: nobody else makes a kind of receipt
    """A receipt, made by who holds the delivery: it is a promise that this survives a power cut."""

    if TYPE_CHECKING:

        def __init__(self, delivery_id: str, reference: str = "", repeated: bool = False) -> None: ...
