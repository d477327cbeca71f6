"""Which parts want a reader of their own, told from their type and name alone."""

from __future__ import annotations

from mailpoller.mail.structure import Part

REPORT = "report"
KINDS = (REPORT,)
"""What there are readers for."""

FIELDS = {"message/feedback-report": "arf", "message/disposition-notification": "mdn"}
"""Types of reports that are made of fields."""
TLS_TYPES = frozenset(("application/tlsrpt+gzip", "application/tlsrpt+json", "application/tlsrpt+zip"))
ARCHIVES = (".xml", ".xml.gz", ".zip", ".json", ".json.gz")
_ARCHIVE_TYPES = frozenset(
    ("application/zip", "application/x-zip-compressed", "application/x-zip", "application/gzip", "application/x-gzip",
     "application/gzip-compressed", "application/xml", "text/xml", "application/json")
)  # fmt: skip


def kind_of(part: Part) -> str:
    """The kind of reader that a part wants, or "". What wants ``report`` may be any archive: only the message's class
    tells."""
    kind = part.content_type
    if kind in FIELDS or kind in TLS_TYPES or kind in _ARCHIVE_TYPES:
        return REPORT
    if part.name and part.name.lower().endswith(ARCHIVES):
        return REPORT
    return ""
