"""The acknowledgement: a mail by which a sender is told, automatically, that his has come (RFC 3834)."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime

from mailpoller.core.record import record

ACKNOWLEDGEMENT = "(acknowledgement)"
"""Stands in the outbox for the intake; no intake can be called so."""


@record
class Acknowledgement:
    """What one message owes its sender, as the ledger keeps it from the commit of the delivery on.

    ``address``: its Return-Path. ``received``: when the server received it. The rest is for the words: ``rule`` is the
    one whose words they are, "" for the mailbox's own; ``subject``, ``name`` and ``to`` (the address of ours that it
    was written to) are the stranger's, on one line; ``message_id`` and ``references`` are for the thread,
    ``conversation`` for its token, ``language`` is what the mail says of itself, in small letters.
    """

    mid: str
    mailbox: str
    address: str
    received: datetime
    rule: str = ""
    subject: str = ""
    name: str = ""
    to: str = ""
    message_id: str = ""
    references: tuple[str, ...] = field(default=())
    language: str = ""
    conversation: str = ""
