"""Dates of header fields (RFC 5322 section 3.3), with the obsolete zones and the liberties that senders take."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_DATE = re.compile(
    r"\s*(?:[A-Za-z]{2,9}\.?\s*,?\s*)?(\d{1,2})[\s-]+([A-Za-z]{3})[A-Za-z]{0,6}\.?,?[\s-]+(\d{2,4})"
    r"(?:[\s,]+(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2}))?(?:\.\d{1,9})?)?\s*(?:([+-])(\d{2}):?(\d{2})|([A-Za-z]{1,5}))?"
)
_USUAL = re.compile(r"(?:[A-Z][a-z]{2}, )?(\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d:\d\d:\d\d) ([+-]\d{4})")
_COMMENT = re.compile(r"\([^()]*+\)")
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_OBSOLETE_ZONES = {
    "EST": -5,
    "EDT": -4,
    "CST": -6,
    "CDT": -5,
    "MST": -7,
    "MDT": -6,
    "PST": -8,
    "PDT": -7,
    "CET": 1,
    "CEST": 2,
}
_CONSIDERED = 200


def parse_date(value: str) -> datetime | None:
    """The instant, aware and in UTC; None if ``value`` is not a date or lies outside of the calendar. Never raises.

    Zones that are not known count as UTC (RFC 5322 section 4.3: their meaning is unknown), years of two digits as it
    says there.
    """
    value = value[:_CONSIDERED]
    if (usual := _USUAL.match(value)) is not None and (read := _read_usual(*usual.groups())) is not None:
        return read
    if "(" in value:
        value = _COMMENT.sub("", value)
    found = _DATE.match(value)
    if found is None:
        return None
    day, name, year_text, hour, minute, second, sign, zone_hours, zone_minutes, zone = found.groups()
    month = _MONTHS.get(name.lower())
    if month is None:
        return None
    year = int(year_text)
    if len(year_text) == 2:
        year += 2000 if year < 50 else 1900
    elif len(year_text) == 3:
        year += 1900
    try:
        # A leap second is told as the second before it: datetime has none.
        local = datetime(year, month, int(day), int(hour or 0), int(minute or 0), min(int(second or 0), 59), tzinfo=UTC)
        if sign:
            minutes = int(zone_hours) * 60 + int(zone_minutes)
            if minutes == 0:
                return local
            return local - timedelta(minutes=minutes) if sign == "+" else local + timedelta(minutes=minutes)
        return local - timedelta(hours=_OBSOLETE_ZONES.get(zone.upper(), 0)) if zone else local
    except (ValueError, OverflowError):
        return None


def _read_usual(day: str, name: str, year: str, time: str, zone: str) -> datetime | None:
    """What nearly all senders write, at a third of the price; None if it has to be looked at more closely."""
    month = _MONTHS.get(name.lower())
    if month is None:
        return None
    try:
        found = datetime.fromisoformat(f"{year}-{month:02}-{day}T{time}{zone}")
        return found if found.tzinfo is UTC else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
