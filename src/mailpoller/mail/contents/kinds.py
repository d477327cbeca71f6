"""Which parts want a reader of their own, told from their type and name alone."""

from __future__ import annotations

from mailpoller.mail.structure import Part

REPORT, CALENDAR, TNEF, MESSAGES = "report", "calendar", "tnef", "messages"
KINDS = (REPORT, CALENDAR, TNEF, MESSAGES)
"""What there are readers for. ``messages``: those within a message that are not its body's forwarded one."""

FAILED = "failed"
"""Why a part stays closed whose reader has a bug."""

FIELDS = {"message/feedback-report": "arf", "message/disposition-notification": "mdn"}
"""Types of reports that are made of fields."""
TLS_TYPES = frozenset(("application/tlsrpt+gzip", "application/tlsrpt+json", "application/tlsrpt+zip"))
_CALENDARS = frozenset(("text/calendar", "application/ics", "text/x-vcalendar"))
_TNEF = frozenset(("application/ms-tnef", "application/vnd.ms-tnef"))
ARCHIVES = (".xml", ".xml.gz", ".zip", ".json", ".json.gz")
_ARCHIVE_TYPES = frozenset(
    ("application/zip", "application/x-zip-compressed", "application/x-zip", "application/gzip", "application/x-gzip",
     "application/gzip-compressed", "application/xml", "text/xml", "application/json")
)  # fmt: skip


def kind_of(part: Part) -> str:
    """The kind of reader that a part wants, or "". What wants ``report`` may be any archive: only the message's class
    tells."""
    kind = part.content_type
    name = part.name.lower()
    if kind in _CALENDARS or name.endswith((".ics", ".vcs")):
        return CALENDAR
    if kind in _TNEF or name == "winmail.dat":
        return TNEF
    if kind in FIELDS or kind in TLS_TYPES or kind in _ARCHIVE_TYPES:
        return REPORT
    if name.endswith(ARCHIVES):
        return REPORT
    return ""
