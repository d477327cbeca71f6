"""Dates of header fields (RFC 5322 section 3.3), with the obsolete zones and the liberties that senders take."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MALFORMED = "date-malformed"
"""Defect: the Date is none, lies outside of the calendar, or is of a zone that nobody knows for sure."""
ZONE_MISSING = "date-zone-missing"
"""Defect: the Date names no zone; read as UTC, so it may be hours off."""

_USUAL = re.compile(r"(?:[A-Z][a-z]{2}, )?(\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d:\d\d:\d\d) ([+-]\d{4})(?!\d)")
_FULL = re.compile(r"(?<![\d.])(\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d\d:\d\d:\d\d) ([+-]\d{4})(?!\d)")
"""The same anywhere: it leaves nothing to guess, whatever stands before it."""
_CLOCK = r"(\d{1,2})[:.](\d{1,2})(?:[:.](\d{1,2})(?:[.,]\d{1,9})?)?"
_DAY_NAME = r"\s*(?:[^\W\d]{2,10}\.?\s*,?\s*)?"
_DAY_FIRST = re.compile(
    rf"{_DAY_NAME}(\d{{1,2}})(?:[\s./-]+|\.\s*)([^\W\d]{{3,9}})\.?,?[\s./-]+(\d{{2,4}})(?![\d:])(?:,|\s|(?=\Z))\s*(?:{_CLOCK})?(.*)"
)
_MONTH_FIRST = re.compile(
    rf"(?:[A-Za-z]{{2,9}}\.?,?\s+)?([A-Za-z]{{3,9}})\.?\s+(\d{{1,2}}),?\s+(?:(\d{{4}}),?\s+{_CLOCK}(.*)|{_CLOCK}(.*?)\s+(\d{{4}})(.*))"
)
"""``Sat Apr 28 23:09:37 CEST 2012``, as asctime and date(1) write it, and ``April 28, 2012 23:09:37``."""
_YEAR_FIRST = re.compile(
    rf"{_DAY_NAME}(\d{{4}})[-/.](\d{{1,2}})[-/.](\d{{1,2}})(?:(?:T|\s+){_CLOCK}(.*))?", re.IGNORECASE
)
_HALF = re.compile(r"\s*([ap])\.?m\b\.?", re.IGNORECASE)
_OFFSET = re.compile(
    r"(?:(?:GMT|UTC?|Z)\s*)?([+-])\s?(?:(\d{1,2}):(\d{2})|(\d{2})(\d{2})|(\d)(\d{2})|(\d{1,2}))(?![\d:])", re.IGNORECASE
)
_NAME = re.compile(r"[^\W\d_]{1,5}(?![\w/+-])")
_COMMENT = re.compile(r"\([^()]*+\)")
_MONTHS = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
}  # fmt: skip
_USUAL_MONTHS = {name.title(): f"{number:02}" for name, number in _MONTHS.items()}
_ZONES = {
    "UT": 0, "UTC": 0, "GMT": 0, "Z": 0, "WET": 0,
    # RFC 5322 section 4.3.
    "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
    # What senders write beside these and what means one thing only. IST, AST and the like mean several.
    "CET": 1, "CEST": 2, "MET": 1, "MEST": 2, "MEZ": 1, "MESZ": 2, "WEST": 1, "BST": 1, "EET": 2, "EEST": 3,
    "MSK": 3, "MSD": 4, "TRT": 3, "SAST": 2, "CAT": 2, "EAT": 3, "JST": 9, "KST": 9, "HKT": 8, "SGT": 8, "PKT": 5,
    "WIB": 7, "AEST": 10, "AEDT": 11, "ACST": 9.5, "ACDT": 10.5, "AWST": 8, "NZST": 12, "NZDT": 13, "AKST": -9,
    "AKDT": -8, "HST": -10, "NST": -3.5, "NDT": -2.5, "BRT": -3, "BRST": -2, "ART": -3, "CLT": -4, "CLST": -3,
}  # fmt: skip
_CONSIDERED = 200


def parse_date(value: str) -> datetime | None:
    """The instant, aware and in UTC; None if ``value`` is no date. See :func:`read_date`."""
    return read_date(value)[0]


def read_date(value: str) -> tuple[datetime | None, str]:
    """The instant, aware and in UTC, and a defect or ""; None and :data:`MALFORMED` if ``value`` is no date, lies
    outside of the calendar, or is of a zone that is not known: no instant at all is better than one that is hours
    off. Never raises.

    Understood are RFC 5322's form, ISO 8601's, that of asctime, and the American one; years of two digits as RFC 5322
    section 4.3 says.
    """
    value = value[:_CONSIDERED]
    if (usual := _USUAL.match(value)) is not None and (read := _read_usual(*usual.groups())) is not None:
        return read, ""
    comments = _COMMENT.findall(value) if "(" in value else []
    if comments:
        value = _COMMENT.sub("", value)
    try:
        found, defect = _read(value.strip())
        if found is None and (full := _FULL.search(value)) is not None:
            day, *rest = full.groups()
            return (read, "") if (read := _read_usual(day.zfill(2), *rest)) is not None else (None, MALFORMED)
        if defect == ZONE_MISSING and found is not None and comments:  # `08:00:00 (EST)`
            offset, unknown = _zone(comments[-1].strip("( )"))
            if offset is not None and not unknown:
                return found - offset, ""
        return found, defect
    except (ValueError, OverflowError):
        return None, MALFORMED


def _read(value: str) -> tuple[datetime | None, str]:
    month: int | None
    year: str
    if (found := _YEAR_FIRST.match(value)) is not None:
        year, number, day, *clock, rest = found.groups()
        month = int(number)
    elif (found := _DAY_FIRST.match(value)) is not None:
        day, name, year, *clock, rest = found.groups()
        month = _MONTHS.get(name[:3].lower())
    elif (found := _MONTH_FIRST.match(value)) is not None:
        name, day, early, *groups = found.groups()
        month = _MONTHS.get(name[:3].lower())
        if early:
            year, clock, rest = early, groups[:3], groups[3]
        else:  # the zone stands before the year, or after it
            clock, (zone, year, tail) = groups[4:7], groups[7:]
            rest = f"{zone} {tail}"
    else:
        return None, MALFORMED
    if month is None:
        return None, MALFORMED
    hour, minute, second = (int(piece or 0) for piece in clock)
    rest = rest or ""
    if (half := _HALF.match(rest)) is not None:
        rest = rest[half.end() :]
        if hour > 12 and half[1] in "aA":
            return None, MALFORMED
        hour = hour if hour > 12 else hour % 12 + (12 if half[1] in "pP" else 0)
    zone_offset, defect = _zone(rest.strip(" \t,;."))
    if zone_offset is None:
        return None, MALFORMED
    end_of_day = hour == 24 and minute == second == 0  # ISO 8601
    # A leap second is told as the second before it: datetime has none.
    local = datetime(_year(year), month, int(day), 0 if end_of_day else hour, minute, min(second, 59), tzinfo=UTC)
    return local + timedelta(days=int(end_of_day)) - zone_offset, defect


def _year(text: str) -> int:
    year = int(text)
    if len(text) == 2:
        return year + (2000 if year < 50 else 1900)
    return year + 1900 if len(text) == 3 else year


def _zone(text: str) -> tuple[timedelta | None, str]:
    """East of Greenwich, and a defect or ""; None for a zone that is not known."""
    if not text:
        return timedelta(0), ZONE_MISSING
    if (found := _OFFSET.match(text)) is not None:
        sign, *pieces = found.groups()
        hours, minutes = next(
            (int(pieces[at]), int(pieces[at + 1] if at < 6 else 0)) for at in (0, 2, 4, 6) if pieces[at] is not None
        )
        if hours > 23 or minutes > 59:
            return None, MALFORMED
        offset = timedelta(hours=hours, minutes=minutes)
        return (offset if sign == "+" else -offset), ""
    name = _NAME.match(text)
    hours_east = _ZONES.get(name[0].upper()) if name is not None else None
    return (None, MALFORMED) if hours_east is None else (timedelta(hours=hours_east), "")


def _read_usual(day: str, name: str, year: str, time: str, zone: str) -> datetime | None:
    """What nearly all senders write, at a third of the price; None if it has to be looked at more closely."""
    month = _USUAL_MONTHS.get(name)
    if month is None:
        return None
    try:
        found = datetime.fromisoformat(f"{year}-{month}-{day}T{time}{zone}")
        return found if found.tzinfo is UTC else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
