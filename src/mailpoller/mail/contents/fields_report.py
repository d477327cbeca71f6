"""Reports that are made of fields: feedback reports (RFC 5965 section 3) and disposition notifications (RFC 8098
section 3)."""

from __future__ import annotations

from mailpoller.core.contents import Report, ReportKind
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.date import read_date
from mailpoller.mail.header import read_header
from mailpoller.mail.understand.delivery_status import untyped
from mailpoller.mail.words import readable

FIELDS_KEPT = 100
"""Fields of a report that are told."""

_CONSIDERED = 1 << 16
_LONGEST = 1000
_NEEDED = {"arf": "feedback-type", "mdn": "disposition"}


def read_fields_report(kind: ReportKind, octets: bytes) -> Report:
    """The report. Raises :class:`~mailpoller.mail.contents.unpack.Closed` without the field that each has."""
    # Some begin with an empty line.
    held = octets[:_CONSIDERED].lstrip(b"\r\n")
    found = read_header(held, 0, len(held), _CONSIDERED, FIELDS_KEPT).fields
    fields = tuple((name.lower()[:100], readable(value)[:_LONGEST]) for name, value in found[:FIELDS_KEPT])
    first = dict(reversed(fields))
    if _NEEDED[kind] not in first:
        raise Closed("malformed")
    arrival = first.get("arrival-date") or first.get("received-date") or ""
    arrived = read_date(arrival)[0] if arrival else None
    who = first.get("reporting-mta") or first.get("reporting-ua") or first.get("user-agent") or ""
    return Report(
        kind,
        organization=untyped(who),
        id=first.get("original-envelope-id") or first.get("original-message-id") or "",
        domain=first.get("reported-domain", "").lower(),
        begin=arrived,
        end=arrived,
        fields=fields,
    )
