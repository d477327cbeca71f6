"""DMARC aggregate reports (RFC 7489 appendix C): XML without a document type, read as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from xml.parsers.expat import ExpatError, ParserCreate

from mailpoller.core.contents import Report
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.words import clean

ROWS_KEPT = 1000
"""Rows of a report that are told."""
ROWS_COUNTED = 5000
"""Rows that are counted: what comes behind them is not read."""

_ELEMENTS = 250_000
_DEEPEST = 20
_LONGEST = 1000
_TOKEN = 1 << 18
"""Octets of one tag at most: a parser begins anew with an unfinished one at every piece."""

_HEAD = {
    "feedback/report_metadata/org_name": "organization",
    "feedback/report_metadata/report_id": "id",
    "feedback/report_metadata/date_range/begin": "begin",
    "feedback/report_metadata/date_range/end": "end",
    "feedback/policy_published/domain": "domain",
}
_ROW = {
    "feedback/record/row/source_ip": "source_ip",
    "feedback/record/row/count": "count",
    "feedback/record/row/policy_evaluated/disposition": "disposition",
    "feedback/record/row/policy_evaluated/dkim": "dkim",
    "feedback/record/row/policy_evaluated/spf": "spf",
    "feedback/record/identifiers/header_from": "header_from",
}
_RECORD = "feedback/record"


class _Enough(Exception):
    pass


def read_dmarc(pieces: Iterable[bytes]) -> Report:
    """The report. Raises :class:`~mailpoller.mail.contents.unpack.Closed` for what is none, or is too large."""
    reader = _Reader()
    parser = ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    fed = 0
    try:
        for piece in pieces:
            parser.Parse(piece, False)
            fed += len(piece)
            if fed - parser.CurrentByteIndex > _TOKEN:
                raise Closed("malformed")
        parser.Parse(b"", True)
    except _Enough:
        pass
    except (ExpatError, ValueError, LookupError) as error:  # LookupError: of an encoding that Python does not know
        raise error if isinstance(error, Closed) else Closed("malformed") from None
    return reader.report()


class _Reader:
    def __init__(self) -> None:
        self.path: list[str] = []
        self.head: dict[str, str] = {}
        self.rows: list[Mapping[str, str | int]] = []
        self.total = 0
        self.row: dict[str, str] = {}
        self.piece: list[str] = []
        self.length = 0
        self.elements = 0

    def refuse(self, *_: object) -> None:
        raise Closed("malformed")  # a document type, and with it entities

    def start(self, name: str, _: object) -> None:
        self.elements += 1
        if len(self.path) >= _DEEPEST:
            raise Closed("malformed")
        if self.elements > _ELEMENTS:
            raise Closed("too-large")
        self.path.append(name.rpartition(":")[2])
        self.piece, self.length = [], 0

    def text(self, text: str) -> None:
        if self.length < _LONGEST:
            self.piece.append(text[:_LONGEST])
            self.length += len(text)

    def end(self, _: str) -> None:
        path = "/".join(self.path)
        self.path.pop()
        value = clean(" ".join("".join(self.piece).split()))[:_LONGEST]
        self.piece, self.length = [], 0
        if path in _HEAD:
            self.head.setdefault(_HEAD[path], value)
        elif path in _ROW:
            self.row.setdefault(_ROW[path], value)
        elif path == _RECORD:
            self.total += 1
            if len(self.rows) < ROWS_KEPT:
                row: dict[str, str | int] = {name: self.row.get(name, "") for name in _ROW.values()}
                row["count"] = number(self.row.get("count", ""))
                self.rows.append(row)
            self.row = {}
            if self.total >= ROWS_COUNTED:
                raise _Enough

    def report(self) -> Report:
        head = self.head
        if not head and not self.rows:
            raise Closed("malformed")
        return Report(
            "dmarc",
            organization=head.get("organization", ""),
            id=head.get("id", ""),
            domain=head.get("domain", "").lower(),
            begin=_instant(head.get("begin", "")),
            end=_instant(head.get("end", "")),
            rows=tuple(self.rows),
            rows_total=self.total,
        )


def number(written: str | int | float | None) -> int:
    """A count; 0 for what is none."""
    text = str(written)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


def _instant(written: str) -> datetime | None:
    seconds = number(written.partition(".")[0])
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < 1 << 33 else None
