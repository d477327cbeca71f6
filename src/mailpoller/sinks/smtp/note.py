"""What a note says of the message that it brings: why it comes, what to do, where it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mailpoller.core.delivery import Delivery
from mailpoller.core.policy import POLICIES
from mailpoller.mail.compose import Form

REASONS: Mapping[str, tuple[str, str]] = {
    "poison": (
        "mailpoller was killed each time it worked on this message, so it was put aside without being parsed.",
        "Open the attachment with care. If it is harmless, please report it: a message must never kill the service.",
    ),
    "unprocessable": (
        "mailpoller failed to process this message, though others went through.",
        "The log has the traceback under the mid below. Please report it.",
    ),
    "refused": (
        "A queue refused this message for good.",
        "Mend the queue or the message, then bring it back with: mailpoller redeliver MID",
    ),
    "refused-by-queue": (
        "A queue that takes other mail failed at this message each time, for two days.",
        "Look at what consumes the queue, then bring it back with: mailpoller redeliver MID",
    ),
    "auto-reply": (
        "This is an automatic answer (an out-of-office notice, or the like), and the mailbox keeps that from its "
        "queue.",
        "Nothing, if that is what you want. Otherwise set auto_replies: deliver for the mailbox.",
    ),
    "challenge": (
        "This asks the sender of a mail to prove to be a person, and the mailbox keeps that from its queue.",
        "Nothing, if that is what you want. Otherwise set auto_replies: deliver for the mailbox.",
    ),
    "bounce": (
        "This tells what became of a mail that was sent (it bounced, or is late), and the mailbox keeps that from its "
        "queue.",
        "Nothing, if that is what you want. Otherwise set bounces: deliver for the mailbox.",
    ),
    **{
        kind: (
            f"This is mail of the class {kind}, and the mailbox keeps that from its queue.",
            f"Nothing, if that is what you want. Otherwise set {key}: deliver for the mailbox.",
        )
        for kind, key in POLICIES.items()
        if kind not in ("auto-reply", "challenge", "bounce")
    },
    "oversize": (
        "This message is larger than the mailbox accepts; what was downloaded of it is attached.",
        "Raise max_message_size for the mailbox, then bring it back with: mailpoller redeliver MID",
    ),
    "no-queue": (
        "No rule names a queue for this message, and the mailbox has no default_queue.",
        "Give the mailbox a default_queue, or a rule; then bring it back with: mailpoller redeliver MID",
    ),
    "rule-failed": (
        "A rule failed on this message, so nobody knows where it belongs.",
        "The log has the traceback under the mid below. Then bring it back with: mailpoller redeliver MID",
    ),
    "test-message": ("The subject bears the quarantine's test marker.", "Nothing: the quarantine works."),
}
OTHERWISE = (
    "A rule of this mailbox sends such messages to quarantine.",
    "If it should have gone to a queue, change the rule, then bring it back with: mailpoller redeliver MID",
)


def form_words(delivery: Delivery, form: Form) -> str:
    raw = delivery.raw
    if form == "header":
        return (
            f"The message ({raw.octets.size} octets) is larger than the relay takes, so only its header is attached. "
            f"The whole is in quarantine on the host that sent this note: mailpoller quarantine export {delivery.mid}"
        )
    if raw.truncated:
        return (
            f"Only the first {raw.octets.size} octets of the message were downloaded; they are attached, bit for bit."
        )
    return "The message is attached as it came, bit for bit."


def facts_of(data: bytes) -> Mapping[str, Any]:
    """What the data says about the message; empty if it cannot be read, for a note must not fail for want of it."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def trace_of(delivery: Delivery, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    raw, ref = delivery.raw, delivery.raw.claim.ref
    size = f"{raw.octets.size} octets" + (f" of {raw.announced or 'more'} (truncated)" if raw.truncated else "")
    trace = [
        ("mid", delivery.mid),
        ("mailbox", ref.folder.mailbox),
        ("folder", ref.folder.name),
        ("uid", ref.uid),
        ("epoch", ref.folder.epoch),
        ("received", raw.received.isoformat() if raw.received else "unknown"),
        ("size", size),
        ("sha256", raw.octets.digest.hex()),
        ("reason", delivery.attributes.reason or "-"),
        ("topic", delivery.attributes.topic),
        ("tags", ", ".join(delivery.attributes.tags)),
        *((name, _said(facts.get(name))) for name in ("rules", "defects", "from", "subject", "message_id")),
    ]
    return [(name, value) for name, value in trace if value]


def _said(value: object) -> str:
    match value:
        case str():
            return value
        case list():
            return ", ".join(filter(None, map(_said, value)))
        case {"address": str(address)}:
            return address
        case _:
            return ""
