"""Finds the report in a message, and has it read."""

from __future__ import annotations

from collections.abc import Sequence

from mailpoller.core.contents import Report
from mailpoller.mail.contents.dmarc import read_dmarc
from mailpoller.mail.contents.fields_report import read_fields_report
from mailpoller.mail.contents.kinds import FIELDS, TLS_TYPES
from mailpoller.mail.contents.leaf import Leaf
from mailpoller.mail.contents.tls_report import read_tls_report
from mailpoller.mail.contents.unpack import Closed, unpacked

_TRIED = 5


def read_report(leaves: Sequence[Leaf]) -> tuple[Report | None, str]:
    """The first report that can be read, and why there is none (one constant word). ``leaves``: the parts that may be
    one; those whose type says so come first."""
    why = "malformed"
    for leaf in sorted(leaves, key=_rank)[:_TRIED]:
        try:
            return _read(leaf.part.content_type, leaf.part.name.lower(), leaf.octets()), ""
        except Closed as closed:
            why = str(closed)
    return None, why


def _rank(leaf: Leaf) -> int:
    return 0 if leaf.part.content_type in FIELDS else 1 if leaf.part.content_type in TLS_TYPES else 2


def _read(kind: str, name: str, octets: bytes) -> Report:
    if kind == "message/feedback-report":
        return read_fields_report("arf", octets)
    if kind == "message/disposition-notification":
        return read_fields_report("mdn", octets)
    if kind in TLS_TYPES or name.endswith((".json", ".json.gz")) or kind == "application/json":
        return read_tls_report(unpacked(octets, (".json",)))
    return read_dmarc(unpacked(octets, (".xml",)))
