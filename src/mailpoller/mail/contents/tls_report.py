"""TLS reports (RFC 8460 section 4): JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from mailpoller.core.contents import Report
from mailpoller.mail.contents.dmarc import ROWS_KEPT, number
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.words import clean

LARGEST = 2_000_000
"""Octets of one: JSON takes twenty times its size in memory."""

_LONGEST = 1000


def read_tls_report(pieces: Iterable[bytes]) -> Report:
    """The report: a row for each policy, and one more for each kind of failure. Raises
    :class:`~mailpoller.mail.contents.unpack.Closed`."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise Closed("too-large")
    try:
        found = orjson.loads(b"".join(held).removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        raise Closed("malformed") from None
    if not isinstance(found, dict) or not isinstance(found.get("policies"), list):
        raise Closed("malformed")
    span = _object(found.get("date-range"))
    rows = [row for policy in found["policies"] for row in _rows(_object(policy))]
    return Report(
        "tls-rpt",
        organization=_text(found.get("organization-name")),
        id=_text(found.get("report-id")),
        domain=next((str(row["domain"]).lower() for row in rows if row["domain"]), ""),
        begin=_instant(span.get("start-datetime")),
        end=_instant(span.get("end-datetime")),
        rows=tuple(rows[:ROWS_KEPT]),
        rows_total=len(rows),
    )


def _rows(written: Mapping[str, Any]) -> Iterator[Mapping[str, str | int]]:
    policy, summary = _object(written.get("policy")), _object(written.get("summary"))
    about = {"policy_type": _text(policy.get("policy-type")), "domain": _text(policy.get("policy-domain"))}
    yield about | {
        "successes": number(summary.get("total-successful-session-count")),
        "failures": number(summary.get("total-failure-session-count")),
    }
    failures = written.get("failure-details")
    for one in failures if isinstance(failures, list) else ():
        failure = _object(one)
        yield about | {
            "result_type": _text(failure.get("result-type")),
            "source_ip": _text(failure.get("sending-mta-ip")),
            "receiving_mx": _text(failure.get("receiving-mx-hostname")),
            "failures": number(failure.get("failed-session-count")),
        }


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return clean(value)[:_LONGEST] if isinstance(value, str) else ""


def _instant(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(_text(value).upper().replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
