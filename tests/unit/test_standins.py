"""Notices that servers give instead of a mail."""

from __future__ import annotations

import time

import pytest

from mailpoller.core.spool import Octets
from mailpoller.remote.standins import LONGEST, stand_in
from pace import paced

COURIER = (
    b"From: System Administrator <root@localhost>\r\nSubject: message unavailable\r\n\r\n"
    b"This message is no longer available on the server.\r\n"
)
EXCHANGE = (
    b'MIME-Version: 1.0\r\nContent-Type: text/plain; charset="us-ascii"\r\nFrom: Microsoft Exchange Server 2010\r\n'
    b"Subject: Retrieval using the IMAP4 protocol failed for the following\r\n message: 20004\r\n\r\n"
    b'The server couldn\'t retrieve the following message:\r\n\r\nSubject: "Canceled"\r\n'
)
NOTICES = [
    COURIER,
    EXCHANGE,
    EXCHANGE.replace(b"IMAP4", b"POP3"),
    b"Subject: ?\r\n\r\nThe server couldn\xe2\x80\x99t retrieve the following message:\r\n",
    b"From: server\r\nSubject: error\r\n\r\nThis message could not be retrieved from the store.\r\n",
    b"Subject: [mail]\r\n\r\nError while converting this message.\r\n",
    b"Subject: corrupted\r\n\r\nThe contents of this message are lost: the message was corrupted.\r\n",
]


@pytest.mark.parametrize("notice", NOTICES)
def test_a_notice_whose_size_contradicts_the_announced_one_stands_in_for_a_mail(notice: bytes) -> None:
    assert "in place of the message" in stand_in(Octets.of(notice), 14_000)


@pytest.mark.parametrize("notice", NOTICES)
def test_a_mail_that_has_the_announced_size_is_itself_whatever_it_says(notice: bytes) -> None:
    assert stand_in(Octets.of(notice), len(notice)) == ""
    assert stand_in(Octets.of(notice), None) == ""


def test_notice_that_encloses_the_mail_is_one_whatever_its_size() -> None:
    notice = (
        b"From: Mail Delivery Subsystem <postmaster>\r\nSubject: Cannot display Unicode content\r\n"
        b'Mime-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="=_1"\r\n\r\n'
        + b"a line of the mail\r\n"
        * LONGEST
    )
    assert "in place of the message" in stand_in(Octets.of(notice), len(notice) - 700)
    assert stand_in(Octets.of(notice), len(notice)) == ""
    assert stand_in(Octets.of(b"Subject: Fwd: look\r\n\r\n" + notice), 100_000) == ""


def test_a_mail_about_such_a_notice_is_a_mail_though_its_size_is_an_estimate() -> None:
    mail = b"Subject: help\r\n\r\nMy phone says that the message could not be retrieved.\r\n"
    assert stand_in(Octets.of(mail), len(mail) + 20) == ""
    quoted = b"Subject: Fwd: Retrieval\r\n\r\n> The server couldn't retrieve the following message:\r\n"
    assert stand_in(Octets.of(quoted), len(quoted) + 20) == ""


def test_ordinary_mail_of_another_size_than_announced_is_no_notice() -> None:
    assert stand_in(Octets.of(b"Subject: hello\r\n\r\nYour order was shipped.\r\n"), 5000) == ""


def test_a_notice_is_looked_for_in_bounded_time() -> None:
    began = time.process_time()
    for piece in (b"message ", b"Subject: ", b"error while ", b"a b c d e f "):
        stand_in(Octets.of((piece * LONGEST)[:LONGEST]), 10_000_000)
    assert time.process_time() - began < paced(1.0)
