"""The fields of the event that a rule may ask by their path below ``data``. A new one is one line of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mailpoller.core.authentication import Authentication
from mailpoller.core.body import Forwarded
from mailpoller.core.classification import Bounce
from mailpoller.core.contents import Calendar, Report
from mailpoller.core.conversation import Conversation
from mailpoller.core.message import Message
from mailpoller.core.record import record
from mailpoller.mail.understand.forward import inline


@record
class Asked:
    """``texts``: what stands there, none if nothing does; true and false are the words ``true`` and ``false``.
    ``needs_body``: to tell it, the body is parsed."""

    texts: Callable[[Message], Iterable[str]]
    needs_body: bool = False


def _one(get: Callable[[Message], str | bool | None]) -> Asked:
    def texts(message: Message) -> Iterable[str]:
        found = get(message)
        return () if found is None or found == "" else (_word(found),)

    return Asked(texts)


def _word(value: str | bool) -> str:
    return value if isinstance(value, str) else "true" if value else "false"


def _conversation(get: Callable[[Conversation], str | bool]) -> Asked:
    return _one(lambda message: get(message.conversation) if message.conversation is not None else None)


def _authentication(get: Callable[[Authentication], str | None]) -> Asked:
    return _one(lambda message: get(message.authentication) if message.authentication is not None else None)


def _bounce(get: Callable[[Bounce], Iterable[str]]) -> Asked:
    def texts(message: Message) -> Iterable[str]:
        found = message.classification.bounce
        return () if found is None else filter(None, get(found))

    return Asked(texts)


def _forwarded(get: Callable[[Forwarded], Iterable[str]]) -> Asked:
    def texts(message: Message) -> Iterable[str]:
        found = message.body.forwarded or inline(message)
        return () if found is None else filter(None, get(found))

    return Asked(texts, needs_body=True)


def _report(get: Callable[[Report], str]) -> Asked:
    return Asked(lambda m: () if m.body.report is None else filter(None, (get(m.body.report),)), needs_body=True)


def _calendar(get: Callable[[Calendar], str]) -> Asked:
    return Asked(lambda m: () if m.body.calendar is None else filter(None, (get(m.body.calendar),)), needs_body=True)


FIELDS: Mapping[str, Asked] = {
    "mailbox": _one(lambda m: m.raw.claim.ref.folder.mailbox),
    "folder": _one(lambda m: m.raw.claim.ref.folder.name),
    "flags": Asked(lambda m: m.raw.flags),
    "truncated": _one(lambda m: m.raw.truncated),
    "delivered_to": _one(lambda m: m.delivered_to),
    "return_path": Asked(lambda m: () if m.return_path is None else (m.return_path,)),
    "message_id": _one(lambda m: m.message_id),
    "in_reply_to": Asked(lambda m: m.in_reply_to),
    "references": Asked(lambda m: m.references),
    "auto": _one(lambda m: m.auto),
    "bcc": Asked(lambda m: [one.address for one in m.bcc]),
    "classification.subclass": _one(lambda m: m.classification.subclass),
    "classification.evidence": Asked(lambda m: m.classification.evidence),
    "bounce.recipients.final_recipient": _bounce(lambda b: [one.final_recipient for one in b.recipients]),
    "bounce.recipients.original_recipient": _bounce(lambda b: [one.original_recipient for one in b.recipients]),
    "bounce.recipients.action": _bounce(lambda b: [one.action for one in b.recipients]),
    "bounce.recipients.status": _bounce(lambda b: [one.status for one in b.recipients]),
    "bounce.recipients.diagnostic": _bounce(lambda b: [one.diagnostic for one in b.recipients]),
    "bounce.recipients.remote_mta": _bounce(lambda b: [one.remote_mta for one in b.recipients]),
    "bounce.original.message_id": _bounce(lambda b: [b.message_id]),
    "bounce.original.recipient": _bounce(lambda b: [b.recipient]),
    "bounce.original.subject": _bounce(lambda b: [b.subject]),
    "conversation.id": _conversation(lambda c: c.id),
    "conversation.found_by": _conversation(lambda c: c.found_by),
    "conversation.verified": _conversation(lambda c: c.verified),
    "conversation.forged": _conversation(lambda c: c.forged),
    "conversation.thread": _conversation(lambda c: c.thread),
    "authentication.spf": _authentication(lambda a: a.spf),
    "authentication.dkim": _authentication(lambda a: a.dkim),
    "authentication.dmarc": _authentication(lambda a: a.dmarc),
    "authentication.arc": _authentication(lambda a: a.arc),
    "authentication.by": _authentication(lambda a: a.by),
    "defects": Asked(lambda m: m.header_defects),
    "reply_text": Asked(lambda m: (m.body.text[slice(*m.said.reply)],), needs_body=True),
    "quoted": Asked(lambda m: (m.body.text[slice(*m.said.quoted)],) if m.said.quoted else (), needs_body=True),
    "signature": Asked(lambda m: (m.body.text[slice(*m.said.signature)],) if m.said.signature else (), needs_body=True),
    "text_from": Asked(lambda m: (m.body.text_from,), needs_body=True),
    "report.kind": _report(lambda r: r.kind),
    "report.id": _report(lambda r: r.id),
    "report.organization": _report(lambda r: r.organization),
    "report.domain": _report(lambda r: r.domain),
    "calendar.method": _calendar(lambda c: c.method),
    "calendar.uid": _calendar(lambda c: c.uid),
    "calendar.organizer": _calendar(lambda c: c.organizer.address if c.organizer is not None else ""),
    "calendar.summary": _calendar(lambda c: c.summary),
    "calendar.start.local": _calendar(lambda c: c.start.local if c.start is not None else ""),
    "calendar.end.local": _calendar(lambda c: c.end.local if c.end is not None else ""),
    "encryption": Asked(lambda m: filter(None, (m.body.encryption,)), needs_body=True),
    "text": Asked(lambda m: (m.body.text,), needs_body=True),
    "html": Asked(lambda m: (m.body.html,), needs_body=True),
    "forwarded.from": _forwarded(lambda f: [one.address for one in f.from_]),
    "forwarded.subject": _forwarded(lambda f: [f.subject]),
    "forwarded.html": _forwarded(lambda f: [f.html]),
    "forwarded.text": _forwarded(lambda f: [f.text]),
    "undone.what": Asked(lambda m: [one.what for one in m.body.undone], needs_body=True),
    "undone.why": Asked(lambda m: [one.why for one in m.body.undone], needs_body=True),
}
