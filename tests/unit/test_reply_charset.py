"""In which charset an answer is written: KANA's presets beside every kind of text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header
from email.message import EmailMessage

import pytest
from structlog.testing import capture_logs

from mailpoller.core.reply_charset import PRESETS, WRITTEN, ReplyCharset
from mailpoller.core.sender import Sender
from mailpoller.mail.letter import letter_of
from mailpoller.mail.letter_form import letter_octets
from mailpoller.mail.reply_charset import CODECS, holds, written

AT = datetime(2026, 11, 30, tzinfo=UTC)
TEXTS = {
    "ascii": "Hello",
    "latin": "Grüße",
    "euro": "5 € für Grüße",
    "dash": "Grüße – „so“",
    "czech": "Příliš žluťoučký",
    "kanji": "お問い合わせ",
    "kanji euro": "お問い合わせ €",
    "circled": "お問い合わせ ①",
    "vendor": "株式会社 ㈱ 髙橋",
    "simplified": "您好,订单",
    "gbk": "您好,朱镕基",
    "traditional": "您好,訂單",
    "cyrillic": "Привет",
    "emoji": "Thanks 🙂",
}
CODES = {"western-europe": "iso-8859-1", "japanese": "iso-2022-jp", "simplified-chinese": "gb2312",
         "traditional-chinese": "big5"}  # fmt: skip
TABLE = {
    #                western-europe   japanese       simplified-chinese  traditional-chinese
    "ascii":       ("us-ascii",       "us-ascii",    "us-ascii",         "us-ascii"),
    "latin":       ("iso-8859-1",     "utf-8",       "gb18030",          "utf-8"),
    "euro":        ("iso-8859-1 EUR", "utf-8",       "gb18030",          "utf-8"),
    "dash":        ("windows-1252",   "utf-8",       "gb18030",          "utf-8"),
    "czech":       ("utf-8",          "utf-8",       "gb18030",          "utf-8"),
    "kanji":       ("utf-8",          "iso-2022-jp", "gbk",              "utf-8"),
    "kanji euro":  ("utf-8",          "iso-2022-jp EUR", "gb18030",      "utf-8"),
    "circled":     ("utf-8",          "utf-8",       "gbk",              "utf-8"),
    "vendor":      ("utf-8",          "utf-8",       "gbk",              "utf-8"),
    "simplified":  ("utf-8",          "utf-8",       "gb2312",           "utf-8"),
    "gbk":         ("utf-8",          "utf-8",       "gbk",              "utf-8"),
    "traditional": ("utf-8",          "utf-8",       "gbk",              "big5"),
    "cyrillic":    ("utf-8",          "iso-2022-jp", "gb2312",           "utf-8"),
    "emoji":       ("utf-8",          "utf-8",       "gb18030",          "utf-8"),
}  # fmt: skip


def read(octets: bytes) -> EmailMessage:
    made = message_from_bytes(octets, policy=policy.default)
    assert isinstance(made, EmailMessage)
    assert not made.defects
    return made


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_writes_every_text_in_what_holds_it(preset: str, text: str) -> None:
    found = written(TEXTS[text], PRESETS[preset])
    expected = TABLE[text][list(PRESETS).index(preset)]
    assert f"{found.charset}{' EUR' if found.euro_as_text else ''}" == expected


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("preset", PRESETS)
def test_it_arrives_as_it_was_written_in_header_and_body_and_never_with_a_question_mark(preset: str, text: str) -> None:
    wish, words = PRESETS[preset], TEXTS[text]
    sender = replace(Sender("s@x.example"), display_name=words, text=words)
    letter = letter_of(
        {"to": f"{words.replace(',', ' ')} <a@x.example>", "subject": words * 20, "text": words, "html": f"<p>{words}"}
    )
    octets = letter_octets(letter, sender, message_id="<m@x>", at=AT, wish=wish)
    found = written(words, wish)
    expected = words.replace("€", "EUR") if found.euro_as_text else words
    mail = read(octets)
    assert mail["Subject"] == expected * 20
    assert mail["From"].addresses[0].display_name == expected
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None and html is not None
    assert plain.get_content().replace("\r\n", "\n") == f"{expected}\n-- \n{expected}\n"
    assert html.get_content().strip() == f"<p>{expected}"
    if found.charset != "us-ascii":
        assert plain.get_content_charset() == html.get_content_charset() == found.charset
        raw = message_from_bytes(octets, policy=policy.compat32)["Subject"]
        assert {charset for _, charset in decode_header(raw)} == {found.charset}
    assert octets.isascii() and max(map(len, octets.split(b"\r\n"))) < 998


@pytest.mark.parametrize("charset", sorted(WRITTEN))
def test_every_charset_that_can_be_configured_is_written_and_read_back(charset: str) -> None:
    codec = CODECS[charset]
    every = "".join(chr(one) for one in (*range(0xA0, 0x3400), *range(0x4E00, 0x9FA6), *range(0xAC00, 0xD7A4)))
    held = "".join(one for one in every if holds(charset, one))[:400]
    letter = letter_of({"to": "a@x.example", "subject": held[:100].strip(), "text": f"x{held}"})
    wish = ReplyCharset(charset, "default", "ignore")
    octets = letter_octets(letter, Sender("s@x.example"), message_id="<m@x>", at=AT, wish=wish)
    mail = read(octets)
    if charset != "us-ascii":
        assert mail.get_content_charset() == charset, codec
    assert (mail.get_content().rstrip("\r\n"), mail["Subject"] or "") == (f"x{held}", held[:100].strip())


@pytest.mark.parametrize(
    ("wish", "incoming", "text", "expected"),
    [
        (ReplyCharset("iso-8859-1", "choose"), "windows-1250", "Příliš", "windows-1250"),
        (ReplyCharset("iso-8859-1", "choose"), "x-unknown", "Grüße", "iso-8859-1"),
        (ReplyCharset("iso-8859-1", "choose"), "utf-7", "Grüße", "iso-8859-1"),
        (ReplyCharset("iso-8859-1", "choose"), "SHIFT_JIS", "お問い合わせ", "iso-2022-jp"),
        (ReplyCharset("iso-8859-1", "choose"), "windows-1252", "5 €", "windows-1252"),
        (ReplyCharset("iso-8859-1", "incoming"), "utf-8", "Hello", "utf-8"),
        (ReplyCharset("iso-8859-1", "incoming"), "iso-8859-2", "お", "utf-8"),
        (ReplyCharset("iso-8859-1", "incoming"), "", "Hello", "iso-8859-1"),
        (ReplyCharset("iso-8859-1", "default"), "utf-8", "Hello", "iso-8859-1"),
        (ReplyCharset("iso-8859-1", "default"), "iso-8859-2", "Příliš", "iso-8859-2"),
        (ReplyCharset("iso-8859-1", "choose", "latin-9"), "", "5 € für", "iso-8859-15"),
        (ReplyCharset("iso-8859-1", "choose", "unicode"), "", "5 € für", "utf-8"),
        (ReplyCharset("iso-8859-1", "choose", "ignore"), "", "5 € für", "windows-1252"),
        (ReplyCharset("iso-8859-1", "choose", "EUR"), "windows-1252", "5 € für", "windows-1252"),
        (ReplyCharset("big5", "choose", "latin-9"), "", "訂單 €", "utf-8"),
        (ReplyCharset("iso-8859-1", "choose", "EUR"), "", "5 € für お", "utf-8"),
    ],
)
def test_the_ladder_ends_where_the_text_is_held(wish: ReplyCharset, incoming: str, text: str, expected: str) -> None:
    found = written(text, wish, incoming)
    assert (found.charset, found.euro_as_text) == (expected, False)


def test_the_one_replacement_is_logged() -> None:
    letter = letter_of({"to": "a@x.example", "subject": "5 €", "text": "für 5 €"})
    with capture_logs() as lines:
        letter_octets(letter, Sender("s@x.example"), message_id="<m@x>", at=AT, wish=PRESETS["western-europe"])
    assert lines == [{"event": "outbox.euro_replaced", "log_level": "info", "charset": "iso-8859-1", "signs": 2}]


def test_what_shifts_iso_2022_jp_is_not_written_in_it() -> None:
    assert written("お\x1b$B", PRESETS["japanese"]).charset == "utf-8"
