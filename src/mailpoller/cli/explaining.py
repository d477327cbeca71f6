"""One mailbox's judging, fed from octets at hand: what ``explain`` and ``test`` show is what the service would do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from mailpoller.assembly.plans import arrival_of, pipeline_of
from mailpoller.config import Config
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.spool import Octets
from mailpoller.core.verdict import Deliver, Discard, Quarantine
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.date import parse_date
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.header import read_header
from mailpoller.mail.parser import parse

_CONSIDERED = 1 << 20
_SAID = ("spf", "dkim", "dmarc", "arc", "by")


def received_at(octets: bytes) -> datetime | None:
    """When the last server had the message, as its field Received says (RFC 5321 section 4.4), aware; None without."""
    header = read_header(octets, 0, min(len(octets), _CONSIDERED), top=True)
    noted = next((value for name, value in header.fields if name.lower() == "received"), "")
    return parse_date(noted.rpartition(";")[2].strip()) if ";" in noted else None


class Explainer:
    """The pipeline of ``mailbox``, and the renderer of its events. ``events``: the event is part of the story.

    Raises :class:`~mailpoller.core.errors.ConfigError` if a rule cannot be built.
    """

    def __init__(self, config: Config, mailbox: str, *, events: bool) -> None:
        self._mailbox = mailbox
        self._events = events
        self._limit = config.mailboxes[mailbox].max_message_size
        self._standing = config.mailboxes[mailbox].standing()
        self._pipeline = pipeline_of(config, mailbox)
        self._arrival = arrival_of(config.mailboxes[mailbox])

    def explain(
        self, octets: bytes, received: datetime | None = None, *, announced: int | None = None
    ) -> dict[str, Any]:
        """The judgement as plain data. ``received``: when the server had the message, if that is known; ``announced``:
        how large it is, if these are not all of its octets."""
        whole = max(announced or 0, len(octets))
        kept = octets[: self._limit]
        claim = Claim(MessageRef(Folder(self._mailbox, "explain", "explain"), "0", whole), "explain")
        raw = RawMessage(
            claim,
            Octets.of(kept),
            truncated=len(kept) < whole,
            announced=whole,
            received=received.astimezone(UTC) if received is not None else None,
        )
        message = parse(raw)
        if (self._events or self._pipeline.needs_body) and message.closed:
            message.take_contents(read_contents(message, message.closed))
        judgement = self._pipeline.judge(message)
        verdict = judgement.verdict
        story: dict[str, Any] = {"mailbox": self._mailbox, "verdict": type(verdict).__name__.lower()}
        if isinstance(verdict, Deliver):
            story |= {
                "queues": verdict.queues,
                "topic": verdict.attributes.topic,
                "priority": verdict.attributes.priority,
                "tags": verdict.attributes.tags,
                "held": verdict.held,
            }
        else:
            story["reason"] = verdict.reason
        if isinstance(verdict, Quarantine):
            story["detail"] = verdict.detail
        story["rules"] = [
            {"rule": rule, "matched": match is not None, "why": match.why if match else ""}
            for rule, match in judgement.asked
        ]
        found = message.classification
        story["class"] = found.kind
        story["subclass"] = found.subclass
        story["evidence"] = found.evidence
        story["delivered_to"] = message.delivered_to
        found_by = message.authentication
        story["authentication"] = None if found_by is None else {key: getattr(found_by, key) for key in _SAID}
        story["authentication_untrusted"] = self._arrival.untrusted(message)
        story["fields"] = dict(message.fields)
        story["auto"] = message.auto
        story["defects"] = message.defects
        if self._events:
            # What is discarded is rendered too, as if it went to a queue without a name.
            rendered = verdict if not isinstance(verdict, Discard) else Deliver(("",), rules=verdict.rules)
            queue = rendered.queues[0] if isinstance(rendered, Deliver) else "quarantine"
            renderer = EventRenderer(
                message,
                verdict=rendered,
                source=f"mailpoller/{self._mailbox}",
                now=datetime.now(UTC),
                standing=self._standing,
            )
            story["event"] = json.loads(renderer.render(queue=queue, delivery_id="explain").structured())
        return story
