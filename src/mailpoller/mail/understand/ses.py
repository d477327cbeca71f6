"""Notices of Amazon's sending service that come by mail: JSON that tells of a bounce, a delay or a complaint.

Their header is the same whatever they tell, so that the text has to be looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mailpoller.core.classification import Bounce, BouncedRecipient
from mailpoller.mail.understand.delivery_status import LONGEST, RECIPIENTS_KEPT, status_in, untyped
from mailpoller.mail.words import clean

_LISTS = {
    "Bounce": ("bounce", "bouncedRecipients", "failed"),
    "DeliveryDelay": ("deliveryDelay", "delayedRecipients", "delayed"),
    "Delivery": ("delivery", "recipients", "delivered"),
}
"""What a notice tells: under which name, with which list of recipients, and what became of them."""
COMPLAINT = "Complaint"


def read_notice(text: str) -> tuple[str, Bounce, str] | None:
    """``bounce`` or ``report``, what a bounce tells, and the subclass; None if ``text`` is no such notice. Never
    raises; bounded by the length of ``text``."""
    told = _object(text)
    if isinstance(told.get("Message"), str):  # the whole notice of SNS, with that of SES within
        told = _object(told["Message"])
    what = told.get("notificationType") or told.get("eventType")
    if what == COMPLAINT:
        return "report", Bounce(), "arf"
    if not isinstance(what, str) or what not in _LISTS:
        return None
    name, listed, action = _LISTS[what]
    detail, mail = _within(told, name), _within(told, "mail")
    common = _within(mail, "commonHeaders")
    entries = detail.get(listed)
    recipients = tuple(_recipients(entries if isinstance(entries, list) else [], action))
    sent_to = mail.get("destination")
    first = next((one for one in sent_to if isinstance(one, str)), "") if isinstance(sent_to, list) else ""
    bounce = Bounce(
        recipients,
        message_id=_word(common, "messageId", 998) or _bracketed(_word(mail, "messageId", 998)),
        recipient=first[:320] or (recipients[0].final_recipient if recipients else ""),
        subject=_word(common, "subject", 1000),
    )
    if what != "Bounce":
        return "bounce", bounce, "success" if what == "Delivery" else "delayed"
    return "bounce", bounce, "soft" if detail.get("bounceType") == "Transient" else "hard"


def _object(text: str) -> dict[str, Any]:
    """The JSON object with which ``text`` begins; whatever stands behind it is for people. Line ends within its
    strings are those of servers that cut long lines."""
    try:
        found, _ = json.JSONDecoder(strict=False).raw_decode(text.lstrip("\ufeff \t\r\n"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _within(held: dict[str, Any], name: str) -> dict[str, Any]:
    found = held.get(name)
    return found if isinstance(found, dict) else {}


def _word(held: dict[str, Any], name: str, longest: int) -> str:
    found = held.get(name)
    return clean(found[:longest]) if isinstance(found, str) else ""


def _bracketed(identifier: str) -> str:
    return f"<{identifier}@email.amazonses.com>" if identifier else ""


def _recipients(entries: Iterable[Any], action: str) -> Iterable[BouncedRecipient]:
    for entry in list(entries)[:RECIPIENTS_KEPT]:
        one = entry if isinstance(entry, dict) else {"emailAddress": entry}
        words = untyped(_word(one, "diagnosticCode", LONGEST))
        yield BouncedRecipient(
            final_recipient=_word(one, "emailAddress", 320),
            action=action,
            status=_word(one, "status", 20) or status_in(words),
            diagnostic=words,
        )
