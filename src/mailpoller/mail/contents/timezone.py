"""Which instant a local time of a calendar is: by the name of its zone, else by the rules that came with it (RFC 5545
section 3.6.5)."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from mailpoller.core.record import record

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(?:/[A-Za-z0-9_+-]{1,30}){1,2}").fullmatch
_WHEN = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d)(\d\d)(?:\d\d)?")
_BY_DAY = re.compile(r"([+-]?\d{1,2})(MO|TU|WE|TH|FR|SA|SU)")
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


@record
class Onset:
    """From when an offset holds: since ``begin``, and if there is a ``month``, each year on its ``week``-th ``day``
    (counted from the end if it is negative)."""

    begin: datetime
    offset: timedelta
    month: int = 0
    week: int = 0
    day: int = 0

    def before(self, local: datetime) -> datetime | None:
        """The last time it began before ``local``; None if it had not."""
        if local < self.begin:
            return None
        if not self.month:
            return self.begin
        found = [one for year in (local.year - 1, local.year) if (one := self._in(year)) is not None]
        return max((one for one in found if self.begin <= one <= local), default=self.begin)

    def _in(self, year: int) -> datetime | None:
        if year < 1:
            return None
        weekday, length = monthrange(year, self.month)
        first = 1 + (self.day - weekday) % 7
        every = range(first, length + 1, 7)
        try:
            day = every[self.week - 1 if self.week > 0 else self.week]
        except IndexError:
            return None
        return self.begin.replace(year=year, month=self.month, day=day)


def onset_of(fields: Mapping[str, str]) -> Onset | None:
    """What STANDARD or DAYLIGHT says; None if that is no rule that calendars have."""
    begin, offset = _WHEN.fullmatch(fields.get("DTSTART", "").strip()), _OFFSET.match(fields.get("TZOFFSETTO", ""))
    if begin is None or offset is None:
        return None
    length = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (1 if offset[1] == "+" else -1)
    if abs(length) >= timedelta(days=1):
        return None
    rule = dict(piece.partition("=")[::2] for piece in fields.get("RRULE", "").upper().split(";")[:20])
    by_day, month = _BY_DAY.fullmatch(rule.get("BYDAY", "")), rule.get("BYMONTH", "")
    try:
        since = datetime(*(int(one) for one in begin.groups()))  # type: ignore[arg-type]  # no tzinfo among them
    except ValueError:
        return None
    if not rule.get("FREQ"):
        return Onset(since, length)
    if by_day is None or not (month.isascii() and month.isdigit() and 1 <= int(month[:3]) <= 12) or not int(by_day[1]):
        return None
    return Onset(since, length, int(month), int(by_day[1]), _DAYS.index(by_day[2]))


def instant_of(local: datetime, zone: str, rules: Sequence[Onset]) -> datetime | None:
    """The instant, in UTC; None if neither the name nor a rule tells. Never raises."""
    try:
        if _NAME(zone) is not None:
            return local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    except (ValueError, OSError, LookupError, OverflowError):
        pass  # a name that this system does not know
    begun = [(since, rule.offset) for rule in rules if (since := rule.before(local)) is not None]
    if not begun:
        return None
    try:
        return (local - max(begun, key=lambda one: one[0])[1]).replace(tzinfo=UTC)
    except OverflowError:
        return None
