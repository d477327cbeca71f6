"""A mail that was handed in whole: its body stays as it is, its header becomes ours where that must be."""

from __future__ import annotations

import re
from datetime import datetime

from mailpoller.core.errors import EntryRefused
from mailpoller.core.record import record
from mailpoller.core.sender import Sender
from mailpoller.mail.compose import data_domain
from mailpoller.mail.letter import Letter, addresses, message_ids
from mailpoller.mail.letter_form import mailboxes, own_fields, thread_fields
from mailpoller.mail.loop import LOOP_HEADER

_OURS = frozenset(
    (
        b"from", b"sender", b"reply-to", b"date", b"message-id", b"bcc", b"return-path", b"received",
        b"delivered-to", b"dkim-signature", b"in-reply-to", b"references", b"auto-submitted",
        b"x-auto-response-suppress", b"mime-version", LOOP_HEADER.lower().encode(),
    )
)  # fmt: skip
"""Fields that whoever hands in a mail does not decide, or that we write anew."""
_NAME = re.compile(rb"[!-9;-~]{1,76}")
_MOST_FIELDS = 500


@record
class GivenMail:
    """Its recipients and thread, the fields that stay, and the body."""

    letter: Letter
    fields: tuple[bytes, ...]
    body: bytes

    def octets(self, sender: Sender, *, message_id: str, at: datetime, letter: Letter | None = None) -> bytes:
        """The mail that is sent. ``letter``: with another thread, and recipients if it came with none."""
        lines = [f"{name}: {value}".encode() for name, value in own_fields(sender, message_id, at, "utf-8")]
        lines += [f"{name}: {value}".encode() for name, value in thread_fields(letter or self.letter) if value]
        if letter is not None and letter.to and not self.letter.recipients:
            lines.append(f"To: {mailboxes(letter.to, 'utf-8')}".encode())
        return b"\r\n".join([*lines, *self.fields, b"MIME-Version: 1.0", b"", self.body])


def given_mail(octets: bytes) -> GivenMail:
    """Read a whole mail (RFC 5322). Lines may end in LF or CRLF. Raises :class:`EntryRefused`."""
    octets = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
    head, found, body = octets.partition(b"\r\n\r\n")
    if not found:
        raise EntryRefused("the mail has no empty line after its header")
    if data_domain(octets) == "binary":
        raise EntryRefused("the mail has lines of more than 998 octets, or a NUL")
    fields = _fields(head)
    said: dict[bytes, list[str]] = {}
    for name, field in fields:
        said.setdefault(name, []).append(_unfolded(field))
    to, cc, bcc = (addresses([one for one in said.get(key, []) if one], key.decode()) for key in (b"to", b"cc", b"bcc"))
    letter = Letter(
        to,
        cc,
        bcc,
        subject="",
        text="",
        html=None,
        in_reply_to=next(iter(message_ids((said.get(b"in-reply-to") or [""])[0], "In-Reply-To")), ""),
        references=message_ids((said.get(b"references") or [""])[0], "References"),
    )
    kept = tuple(field for name, field in fields if name not in _OURS and not name.startswith(b"resent-"))
    return GivenMail(letter, kept, body)


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for one in head.split(b"\r\n"):
        if one[:1] in (b" ", b"\t") and found:
            found[-1] = (found[-1][0], found[-1][1] + b"\r\n" + one)
            continue
        name, colon, value = one.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not _NAME.fullmatch(name):
            raise EntryRefused("the mail has a line in its header that is no field")
        # Without blanks before the colon: who sees no field there would not see whom it names (RFC 5322 section 4.5).
        found.append((name.lower(), name + b":" + value))
    if len(found) > _MOST_FIELDS:
        raise EntryRefused(f"the mail has more than {_MOST_FIELDS} fields in its header")
    return found


def _unfolded(field: bytes) -> str:
    value = field.partition(b":")[2].replace(b"\r\n", b"").replace(b"\t", b" ").strip()
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise EntryRefused("the mail has octets in its header that are not UTF-8") from None
