"""``message/delivery-status`` (RFC 3464): what became of each recipient, in blocks of fields."""

from __future__ import annotations

import re

from mailpoller.core.classification import BouncedRecipient
from mailpoller.mail.charset import decode
from mailpoller.mail.words import readable

RECIPIENTS_KEPT = 100
"""Recipients of one bounce that are told."""
LONGEST = 1000
"""Characters of a diagnostic that are kept."""

_FIELDS_READ = 5000
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60})[ \t]*:(.*)", re.DOTALL)
_STATUS = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")
_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_OF_A_RECIPIENT = frozenset(("final-recipient", "action", "original-recipient"))


def read_delivery_status(octets: bytes) -> tuple[BouncedRecipient, ...]:
    """The recipients in order; linear in time; never raises. A block without a recipient is the message's own."""
    found: list[BouncedRecipient] = []
    block: dict[str, str] = {}
    # Some servers leave out the empty line between two recipients.
    for name, value in (*_fields(octets), ("", "")):
        if not name or (name in block and name == "final-recipient"):
            if not _OF_A_RECIPIENT.isdisjoint(block):
                found.append(_recipient(block))
            block = {}
            if len(found) >= RECIPIENTS_KEPT:
                break
        if name:
            block.setdefault(name, value)
    return tuple(found)


def envelope_id(octets: bytes) -> str:
    """What the sender called the message at the relay (Original-Envelope-Id, RFC 3464 section 2.2.1), in the first
    block; "" if that is not told."""
    for name, value in _fields(octets):
        if not _OF_A_RECIPIENT.isdisjoint((name,)):
            break
        if name == "original-envelope-id":
            return readable(value)[:100]
    return ""


def _fields(octets: bytes) -> list[tuple[str, str]]:
    """Names in lower case with their values, unfolded; ("", "") where a block ends."""
    fields: list[tuple[str, list[str]]] = []
    for line in decode(octets)[0].replace("\r\n", "\n").replace("\r", "\n").split("\n", _FIELDS_READ)[:_FIELDS_READ]:
        if not line.strip():
            fields.append(("", []))
        elif line[0] in " \t" and fields and fields[-1][0]:
            fields[-1][1].append(line.strip())
        elif (field := _FIELD.fullmatch(line)) is not None:
            fields.append((field[1].lower(), [field[2].strip()]))
    return [(name, " ".join(pieces)) for name, pieces in fields]


def _recipient(block: dict[str, str]) -> BouncedRecipient:
    status = _STATUS.search(block.get("status", ""))
    diagnostic = block.get("diagnostic-code", "")
    return BouncedRecipient(
        final_recipient=address(block.get("final-recipient", "")),
        original_recipient=address(block.get("original-recipient", "")),
        action=block.get("action", "").partition("(")[0].partition(";")[0].strip().lower()[:20],
        status=status[0] if status is not None else status_in(diagnostic),
        diagnostic=readable(untyped(diagnostic))[:LONGEST],
        remote_mta=readable(untyped(block.get("remote-mta", "")))[:255],
    )


def untyped(value: str) -> str:
    """``rfc822; a@example.com`` without its type."""
    kind, semicolon, rest = value.partition(";")
    return rest.strip() if semicolon and len(kind.strip()) <= 20 and " " not in kind.strip() else value.strip()


def address(value: str) -> str:
    """An address of these fields: without type and brackets, and with its xtext (RFC 3461 section 4) undone."""
    text = untyped(value).strip("<> \t")
    if "+" in text:
        text = _XTEXT.sub(lambda found: chr(int(found[1], 16)) if "21" <= found[1] <= "7E" else found[0], text)
    return readable(text)[:320]


def status_in(text: str) -> str:
    """The status of RFC 3463 that stands in a server's words, or one made of its SMTP code; "" without either."""
    found = _STATUS.search(text[:LONGEST])
    if found is not None:
        return found[0]
    code = _CODE.search(text[:LONGEST])
    return f"{code[1]}.0.0" if code is not None else ""


_CODE = re.compile(r"(?<![\d.])([45])\d\d(?=[ \-,:#]|\Z)")
