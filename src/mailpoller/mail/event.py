"""The event: a message as a queue receives it, a CloudEvents 1.0 envelope in JSON (structured mode)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
import pybase64

from mailpoller.core.body import Forwarded, Undone
from mailpoller.core.classification import Bounce, Classification
from mailpoller.core.delivery import Blob, Event, Payload
from mailpoller.core.message import Message
from mailpoller.core.standing import USUAL_STANDING, Standing
from mailpoller.core.verdict import Deliver, Quarantine
from mailpoller.mail.charset import scrub
from mailpoller.mail.understand.forward import inline
from mailpoller.mail.words import clean

RECEIVED = "org.mailpoller.message.received"
"""The CloudEvents ``type`` of a message that a rule, or the mailbox's default, sent to a queue."""
QUARANTINED = "org.mailpoller.message.quarantined"
"""The CloudEvents ``type`` of a message in a quarantine that is a queue."""
DATA_SCHEMA = "urn:mailpoller:schema:event:1"
"""The CloudEvents ``dataschema``, the ``$id`` of ``event.schema.json`` beside this file. Additions keep the number."""

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
_UNSPLIT = (Undone("reply", "too-large"),)
_RAW_KEPT = 1 << 20
_ENDS: dict[Payload, bytes] = {
    "summary": b',"payload":"summary","defects":',
    "parsed": b',"payload":"parsed","defects":',
    "raw": b',"payload":"raw","defects":',
}


class EventRenderer:
    """Renders one message for any number of queues; what is alike for all of them is rendered once.

    ``source`` is the CloudEvents source, ``mailpoller/<mailbox>``. ``now`` (aware) stands in for the event's time if
    the server did not say when it received the message. ``repeat_of`` is the mid of an earlier message with equal
    octets. ``released_by``: who let it out of quarantine unjudged. ``standing``: what is said of its mailbox.
    """

    def __init__(
        self,
        message: Message,
        *,
        verdict: Deliver | Quarantine,
        source: str,
        now: datetime,
        repeat_of: str | None = None,
        standing: Standing = USUAL_STANDING,
        released_by: str = "",
    ) -> None:
        self._message = message
        self._verdict = verdict
        self._source = source
        self._now = now
        self._repeat_of = repeat_of
        self._standing = standing
        self._released_by = released_by
        self._summary: bytes = b""
        self._body: bytes = b""
        self._raw: bytes = b""

    def render(
        self,
        *,
        queue: str,
        delivery_id: str,
        payload: Payload = "parsed",
        octets_inside: bool = False,
        blob: Blob | None = None,
        redelivery: int = 0,
    ) -> Event:
        """The whole event. Never raises on any parsed message.

        ``parsed`` reads ``Message.body`` on first use, which takes time in proportion to the message.
        ``octets_inside`` adds the raw octets as base64; ``blob`` where they lie. ``redelivery`` counts an operator's
        wishes for it once more.
        """
        message = self._message
        raw = message.raw
        verdict = self._verdict
        claim = raw.claim
        folder = claim.ref.folder
        delivered = isinstance(verdict, Deliver)
        envelope: dict[str, Any] = {
            "specversion": "1.0",
            "id": claim.mid,
            "source": self._source,
            "type": RECEIVED if delivered else QUARANTINED,
            "subject": f"{folder.name}/{claim.ref.uid}",
            "time": raw.received or self._now,
            "datacontenttype": "application/json",
            "dataschema": DATA_SCHEMA,
            "deliveryid": delivery_id,
            "queue": queue,
            "priority": verdict.attributes.priority,
        }
        if verdict.attributes.topic:
            envelope["topic"] = verdict.attributes.topic
        if redelivery:
            envelope["redelivery"] = redelivery
        if self._released_by:
            envelope["releasedby"] = self._released_by
        if not envelope["subject"].isprintable():
            envelope["subject"] = clean(envelope["subject"])
        summary = self._summary
        if not summary:
            summary = self._summary = _dumps(self._summarised())[:-1]
        pieces = [summary]
        if payload == "parsed":
            if not self._body:
                self._body = _dumps(_parsed(message))[1:-1]
            pieces += (b",", self._body)
        if octets_inside:
            pieces += (b',"raw":"', self._octets(), b'"')
        if blob is not None:
            named = {"sha256": blob.sha256.hex(), "size": blob.size, "href": blob.href}
            pieces += (b',"raw_blob":', _dumps(named))
        defects = message.defects
        pieces.append(_ENDS[payload] + (b"[]}" if not defects else _dumps(defects) + b"}"))
        return Event(_dumps(envelope), tuple(pieces))

    def _summarised(self) -> dict[str, Any]:
        message = self._message
        raw = message.raw
        verdict = self._verdict
        ref = raw.claim.ref
        said = verdict.attributes
        found = message.classification
        return {
            "mailbox": ref.folder.mailbox,
            "trusted": self._standing.trusted,
            "departments": self._standing.departments,
            "folder": ref.folder.name,
            "epoch": ref.folder.epoch,
            "uid": ref.uid,
            "flags": raw.flags,
            "received": raw.received,
            "size": raw.octets.size,
            "announced_size": raw.announced,
            "sha256": raw.octets.digest.hex(),
            "truncated": raw.truncated,
            "repeat_of": self._repeat_of,
            "topic": said.topic,
            "priority": said.priority,
            "tags": said.tags,
            "fields": message.fields,
            "rules": verdict.rules,
            "quarantine": None if isinstance(verdict, Deliver) else {"reason": said.reason, "detail": said.detail},
            "subject": message.subject,
            "from": message.from_,
            "sender": message.sender,
            "reply_to": message.reply_to,
            "to": message.to,
            "cc": message.cc,
            "bcc": message.bcc,
            "return_path": message.return_path,
            "date": message.date,
            "message_id": message.message_id,
            "in_reply_to": message.in_reply_to,
            "references": message.references,
            "auto": message.auto,
            "looped": message.looped,
            "headers": message.headers,
            "classification": _classified(found),
            "bounce": None if found.bounce is None else _bounced(found.bounce),
            "conversation": message.conversation,
            "delivered_to": message.delivered_to,
            "authentication": message.authentication,
        }

    def _octets(self) -> bytes:
        """The raw octets in base64; of a large message not kept between two queues, for memory's sake."""
        if self._raw:
            return self._raw
        encoded = pybase64.b64encode(self._message.raw.octets.view())
        if len(encoded) <= _RAW_KEPT:
            self._raw = encoded
        return encoded


def _classified(found: Classification) -> dict[str, Any]:
    return {"class": found.kind, "subclass": found.subclass, "evidence": found.evidence}


def _bounced(bounce: Bounce) -> dict[str, Any]:
    return {
        "recipients": bounce.recipients,
        "original": {
            "message_id": bounce.message_id,
            "recipient": bounce.recipient,
            "subject": bounce.subject,
        },
    }


def _parsed(message: Message) -> dict[str, Any]:
    body = message.body
    said = message.said
    forwarded = body.forwarded if body.forwarded is not None else inline(message)
    return {
        "text": body.text,
        "reply_text": said.reply,
        "quoted": said.quoted,
        "signature": said.signature,
        "text_from": body.text_from,
        "text_hidden": body.text_hidden,
        "html": body.html,
        "attachments": body.attachments,
        "forwarded": _forwarded(forwarded) if forwarded is not None else None,
        "encryption": body.encryption or None,
        "report": body.report,
        "calendar": body.calendar,
        "undone": (*body.undone, *_UNSPLIT) if said.cut else body.undone,
    }


def _forwarded(inner: Forwarded) -> dict[str, Any]:
    return {
        "from": inner.from_,
        "date": inner.date,
        "subject": inner.subject,
        "text": inner.text,
        "html": inner.html,
        "attachments": inner.attachments,
        "calendar": inner.calendar,
    }


def _dumps(value: Any) -> bytes:
    """JSON. Parsed text is valid Unicode, but folder names, flags and the like come from elsewhere: if they are not,
    mend them."""
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except orjson.JSONEncodeError:
        return orjson.dumps(_scrubbed(value), option=_OPTIONS)


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None  # a size that no server means
    if isinstance(value, dict):
        return {scrub(key): _scrubbed(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_scrubbed(item) for item in value]
    return value
