"""Tests of sizes, attachments and times made into predicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from zoneinfo import ZoneInfo

from mailpoller.core.body import Attachment, Body
from mailpoller.core.message import Message
from mailpoller.rules.predicate import Predicate
from mailpoller.rules.probes import TEXT_LIMIT, text_probe
from mailpoller.rules.quantities import DAYS, AgeTest, AttachmentTest, CountTest, ReceivedTest, SizeTest


def size(test: SizeTest) -> Predicate:
    """What ``test`` asks of the whole message."""
    fits, says = _bounds(test)

    def holds(message: Message) -> str:
        raw = message.raw
        # Of a truncated message the octets at hand are the least that it has.
        octets = max(raw.octets.size, raw.announced or 0) if raw.truncated else raw.octets.size
        return says if fits(octets) else ""

    return Predicate(holds, says)


def _bounds(test: SizeTest) -> tuple[Callable[[int], bool], str]:
    above = -1 if test.above is None else test.above
    below = float("inf") if test.below is None else test.below
    words = [f"above {test.above}"] if test.above is not None else []
    words += [f"below {test.below}"] if test.below is not None else []
    return lambda size: above < size < below, f"size {' and '.join(words)} octets"


def attachment(test: AttachmentTest) -> Predicate:
    """What ``test`` asks of the attachments."""
    if test.any is False:
        return Predicate(lambda m: "" if m.body.attachments else "no attachment", "no attachment", needs_body=True)
    probes: list[Callable[[Attachment], str]] = []
    words: list[str] = []
    if test.name is not None:
        by_name, says = text_probe(test.name)
        probes.append(lambda one: by_name(one.name[:TEXT_LIMIT]))
        words.append(f"name {says}")
    if test.type is not None:
        by_type, says_type = text_probe(test.type)
        probes.append(lambda one: by_type(one.content_type[:TEXT_LIMIT]))
        words.append(f"type {says_type}")
    if test.detected_type is not None:
        by_octets, says_detected = text_probe(test.detected_type)
        probes.append(lambda one: by_octets(one.detected_type))
        words.append(f"detected type {says_detected}")
    if (macros := test.macros) is not None:
        probes.append(lambda one: "macros" if one.macros is macros else "")
        words.append("macros" if macros else "no macros")
    if (encrypted := test.encrypted) is not None:
        probes.append(lambda one: "encrypted" if one.encrypted is encrypted else "")
        words.append("encryption" if encrypted else "no encryption")
    if (nested := test.nested) is not None:
        words.append("nested" if nested else "not nested")
    if test.size is not None:
        fits, bounds = _bounds(test.size)
        probes.append(lambda one: bounds if fits(one.size) else "")
        words.append(bounds)
    with_ = f" with {', '.join(words)}" if words else ""
    least, most = (1, None) if test.count is None else (test.count.above, test.count.below)
    if test.count is None:
        says_all = f"attachment{with_}"
    else:
        says_all = f"{_number(test.count)} attachments{with_}"
        least = 0 if test.count.above is None else test.count.above + 1

    def holds(message: Message) -> str:
        passing = 0
        for attachment in _attachments(message.body, nested):
            if all(probe(attachment) for probe in probes):
                passing += 1
                if most is None and passing >= (least or 0):
                    return says_all
        return says_all if passing >= (least or 0) and (most is None or passing < most) else ""

    return Predicate(holds, says_all, needs_body=True)


def _attachments(body: Body, nested: bool | None) -> Iterator[Attachment]:
    """Those of the mail and of messages within it; or those alone that are nested, or not."""
    yield from (one for one in body.attachments if nested is None or bool(one.within) is nested)
    if body.forwarded is not None and nested is not False:
        yield from body.forwarded.attachments


def _number(test: CountTest) -> str:
    words = [f"more than {test.above}"] if test.above is not None else []
    words += [f"fewer than {test.below}"] if test.below is not None else []
    return " and ".join(words)


def age(test: AgeTest) -> Predicate:
    """What ``test`` asks of the time between Date and receipt."""
    above = timedelta.min if test.above is None else test.above
    below = timedelta.max if test.below is None else test.below
    words = [f"above {test.above}"] if test.above is not None else []
    words += [f"below {test.below}"] if test.below is not None else []
    says = f"age {' and '.join(words)}"

    def holds(message: Message) -> str:
        received, sent = message.raw.received, message.date
        return says if received is not None and sent is not None and above < received - sent < below else ""

    return Predicate(holds, says)


def received(test: ReceivedTest) -> Predicate:
    """What ``test`` asks of the moment of receipt."""
    zone = ZoneInfo(test.zone)
    days = frozenset(DAYS.index(day) for day in test.days) if test.days is not None else None
    spans = [_span(written) for written in test.hours] if test.hours is not None else None
    dates = frozenset(test.dates) if test.dates is not None else None
    says = f"received {_when(test)}"

    def holds(message: Message) -> str:
        instant = message.raw.received
        if instant is None:
            return ""
        try:
            local = instant.astimezone(zone)
        except OverflowError:  # at an end of the calendar
            return ""
        day, minute = local.date(), local.hour * 60 + local.minute
        fits = (
            (days is None or day.weekday() in days)
            and (dates is None or day in dates)
            and (test.since is None or day >= test.since)
            and (test.until is None or day <= test.until)
            and (spans is None or any(_within(minute, *span) for span in spans))
        )
        return says if fits else ""

    return Predicate(holds, says)


def _span(written: str) -> tuple[int, int]:
    begin, _, end = written.partition("-")
    return _minutes(begin), _minutes(end)


def _minutes(written: str) -> int:
    return int(written[:2]) * 60 + int(written[3:])


def _within(minute: int, begin: int, end: int) -> bool:
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _when(test: ReceivedTest) -> str:
    words = [", ".join(test.days)] if test.days is not None else []
    words += [", ".join(test.hours)] if test.hours is not None else []
    words += [", ".join(map(str, test.dates[:10]))] if test.dates is not None else []
    words += [f"since {test.since}"] if test.since is not None else []
    words += [f"until {test.until}"] if test.until is not None else []
    return f"{' '.join(words)} ({test.zone})"
