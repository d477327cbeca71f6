"""What is in the parts of a message that take a reader of their own: reports and calendars."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from mailpoller.core.address import Address
from mailpoller.core.record import record

ReportKind = Literal["dmarc", "tls-rpt", "arf", "mdn"]


@record
class Report:
    """What a report tells: a DMARC aggregate (RFC 7489 appendix C), a TLS report (RFC 8460), a feedback report (RFC
    5965) or a disposition notification (RFC 8098); "" and None for what it does not.

    ``organization``: who reports. ``domain``: whose mail it is about. ``begin`` and ``end`` (aware) bound the time.
    ``rows``: what was counted, the first of ``rows_total``. ``fields``: (name in small letters, value) of a report that
    is made of fields.
    """

    kind: ReportKind
    organization: str = ""
    id: str = ""
    domain: str = ""
    begin: datetime | None = None
    end: datetime | None = None
    rows: tuple[Mapping[str, str | int], ...] = ()
    rows_total: int = 0
    fields: tuple[tuple[str, str], ...] = ()


@record
class Moment:
    """When something begins or ends. ``local``: as its clock shows it, ``2026-03-14T09:26:53``, or a day alone.
    ``zone``: as it is named there, ``UTC``, or "" where the time is everybody's own. ``instant``: aware, in UTC; None
    where nobody knows the zone.
    """

    local: str
    zone: str = ""
    instant: datetime | None = None


@record
class Calendar:
    """The first event of a calendar (RFC 5545). ``method``, in small letters, is what it was sent for (RFC 5546):
    ``request``, ``reply``, ``cancel`` …; "" for none."""

    method: str = ""
    uid: str = ""
    organizer: Address | None = None
    start: Moment | None = None
    end: Moment | None = None
    summary: str = ""
    sequence: int = 0
