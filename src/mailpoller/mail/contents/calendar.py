"""Calendar objects (RFC 5545) and what one is sent for (RFC 5546, RFC 6047): the first event, as an invitation shows
it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from urllib.parse import unquote

from mailpoller.core.contents import Calendar, Moment
from mailpoller.core.message import Address
from mailpoller.mail.charset import decode
from mailpoller.mail.contents.timezone import Onset, instant_of, onset_of
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.words import clean

CONSIDERED = 1 << 18
"""Octets of one that are looked at."""

_LINES = 20_000
_DEEPEST = 10
_ZONES, _ONSETS = 50, 50
_LONGEST = 1000
_FOLD = re.compile(r"\r?\n[ \t]")
_VALUE = r'(?:"[^"]*+"|[^":;,]*+)'
_LINE = re.compile(rf"([A-Za-z0-9-]{{1,60}}+)((?:;[A-Za-z0-9-]{{1,60}}+={_VALUE}(?:,{_VALUE})*+)*+):(.*+)")
_PARAMETER = re.compile(r';([A-Za-z0-9-]{1,60}+)=(?:"([^"]*+)"|([^":;]*+))')
_ESCAPED = re.compile(r"\\([\\;,nN])")
_WHEN = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?")
_DURATION = re.compile(r"\+?P(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})S)?)?")
_COMPONENTS = ("VEVENT", "VTODO", "VJOURNAL", "VFREEBUSY")
_WANTED = frozenset(("UID", "ORGANIZER", "DTSTART", "DTEND", "DUE", "DURATION", "SUMMARY", "SEQUENCE"))


class _Line(NamedTuple):
    name: str
    parameters: dict[str, str]
    value: str


def read_calendar(octets: bytes, charset: str = "") -> Calendar:
    """The first event, to-do, journal or free-busy time of a calendar.

    Raises :class:`~mailpoller.mail.contents.unpack.Closed` for what is none, or is too large.
    """
    if len(octets) > CONSIDERED:
        raise Closed("too-large")
    found: dict[str, _Line] = {}
    zones: dict[str, list[Onset]] = {}
    component = zone = method = ""
    onset: dict[str, str] = {}
    path: list[str] = []
    seen = False
    for line in _lines(decode(octets, charset or "utf-8")[0]):
        if line.name == "BEGIN":
            name = line.value.strip().upper()
            if len(path) >= _DEEPEST:
                raise Closed("malformed")
            path.append(name)
            seen = seen or name == "VCALENDAR"
            if name in _COMPONENTS and not component and len(path) == 2:
                component = name
            zone, onset = ("" if name == "VTIMEZONE" else zone), {}
        elif line.name == "END":
            name = path.pop() if path else ""
            if name in ("STANDARD", "DAYLIGHT") and zone and (rule := onset_of(onset)) is not None:
                if zone in zones or len(zones) < _ZONES:
                    zones.setdefault(zone, []).append(rule)
            elif name == component and len(path) == 1:
                component = "-"  # what follows is another event
        elif path == ["VCALENDAR"] and line.name == "METHOD":
            method = line.value.strip() or method
        elif path[1:] == ["VTIMEZONE"] and line.name == "TZID":
            zone = line.value.strip()[:_LONGEST]
        elif path[1:2] == ["VTIMEZONE"] and len(path) == 3:
            onset.setdefault(line.name, line.value[:_LONGEST])
        elif path[1:] == [component] and line.name in _WANTED:
            found.setdefault(line.name, line)
    if not seen or not component:
        raise Closed("malformed")
    return _calendar(found, zones, method)


def _lines(text: str) -> Iterator[_Line]:
    for number, written in enumerate(_FOLD.sub("", text).splitlines()):
        if number == _LINES:
            raise Closed("too-large")
        split = _LINE.fullmatch(written.rstrip())
        if split is not None:
            yield _Line(split[1].upper(), _parameters(split[2]), split[3])


def _parameters(written: str) -> dict[str, str]:
    return {one[1].upper(): one[2] if one[2] is not None else one[3] for one in _PARAMETER.finditer(written)}


def _calendar(found: dict[str, _Line], zones: dict[str, list[Onset]], method: str) -> Calendar:
    start = _moment(found.get("DTSTART"), zones)
    end = _moment(found.get("DTEND") or found.get("DUE"), zones)
    if end is None and start is not None and "DURATION" in found:
        end = _later(start, found["DURATION"].value.strip())
    sequence = found["SEQUENCE"].value.strip() if "SEQUENCE" in found else ""
    return Calendar(
        method=clean(method.strip()).lower()[:30],
        uid=_text(found.get("UID")),
        organizer=_organizer(found.get("ORGANIZER")),
        start=start,
        end=end,
        summary=_text(found.get("SUMMARY")),
        sequence=int(sequence) if sequence.isascii() and sequence.isdigit() and len(sequence) < 10 else 0,
    )


def _text(line: _Line | None) -> str:
    """TEXT (RFC 5545 section 3.3.11) on one line."""
    if line is None:
        return ""
    text = _ESCAPED.sub(lambda one: " " if one[1] in "nN" else one[1], line.value)
    return clean(text).strip()[:_LONGEST]


def _organizer(line: _Line | None) -> Address | None:
    if line is None:
        return None
    value = line.value.strip()
    if value[:7].lower() == "mailto:":
        value = unquote(value[7:].partition("?")[0])
    return Address(clean(line.parameters.get("CN", ""))[:_LONGEST], clean(value).strip()[:320])


def _moment(line: _Line | None, zones: dict[str, list[Onset]]) -> Moment | None:
    """DATE or DATE-TIME (RFC 5545 sections 3.3.4 and 3.3.5)."""
    written = _WHEN.fullmatch(line.value.strip()) if line is not None else None
    if line is None or written is None:
        return None
    zone = "UTC" if written[7] else clean(line.parameters.get("TZID", "").strip())[:_LONGEST]
    try:
        day = date(int(written[1]), int(written[2]), int(written[3]))
        if written[4] is None:
            return Moment(day.isoformat())
        # A leap second may be written (section 3.3.12), and no date of Python's can hold it.
        local = datetime(day.year, day.month, day.day, int(written[4]), int(written[5]), min(int(written[6]), 59))
    except ValueError:
        return None
    return Moment(local.isoformat(), zone, _instant(local, zone, zones))


def _instant(local: datetime, zone: str, zones: dict[str, list[Onset]]) -> datetime | None:
    if zone == "UTC":
        return local.replace(tzinfo=UTC)
    return instant_of(local, zone, zones.get(zone, ())) if zone else None


def _later(start: Moment, written: str) -> Moment | None:
    found = _DURATION.fullmatch(written)
    if found is None:
        return None
    weeks, days, hours, minutes, seconds = (int(one or 0) for one in found.groups())
    length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    try:
        if "T" not in start.local:
            return Moment((date.fromisoformat(start.local) + length).isoformat())
        # A nominal day is one on the calendar; of the usual length on nearly every day of the year.
        local = datetime.fromisoformat(start.local) + length
        return Moment(local.isoformat(), start.zone, start.instant + length if start.instant is not None else None)
    except OverflowError:
        return None
