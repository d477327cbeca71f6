"""The mail by which somebody sees how an answer from a mailbox looks: whose it is, and in which charset."""

from __future__ import annotations

import uuid
from datetime import datetime

from mailpoller.core.message import Address
from mailpoller.core.ports import Mail
from mailpoller.core.reply_charset import ReplyCharset
from mailpoller.core.sender import Sender
from mailpoller.mail.compose import ascii_address
from mailpoller.mail.letter import Letter
from mailpoller.mail.letter_form import letter_octets
from mailpoller.mail.letter_thread import message_id_of

_SAMPLES = {"iso-2022-jp": "日本語", "gb2312": "简体中文", "big5": "繁體中文"}
_SAMPLE = "äöüß éèñ"


def test_answer(
    mailbox: str, sender: Sender, *, recipient: str, at: datetime, wish: ReplyCharset | None, footer: str
) -> Mail:
    """An answer from this mailbox that answers nothing: with some letters of its charset, in the envelope of answers,
    and marked so that no program answers it (RFC 3834 section 5)."""
    sample = _SAMPLES.get(wish.default.lower(), _SAMPLE) if wish is not None else _SAMPLE
    letter = Letter(
        to=(Address("", ascii_address(recipient)),),
        cc=(),
        bcc=(),
        subject=f"[mailpoller] test of the mailbox {mailbox} ({sample})",
        text=f"This is a test. So answers from the mailbox {mailbox} look, in its charset: {sample}\n\n{footer}\n",
        html=None,
    )
    address = ascii_address(sender.address)
    octets = letter_octets(
        letter,
        sender,
        message_id=message_id_of(uuid.uuid4().hex, address.rpartition("@")[2]),
        at=at,
        wish=wish,
        more=(("Auto-Submitted", "auto-generated"),),
    )
    return Mail(address, letter.recipients, octets)


test_answer.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test
