"""Encoded words and charsets: what is declared, what is meant, and what is never done."""

from __future__ import annotations

import codecs
import encodings
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.mail.charset import codec_for, decode
from mailpoller.mail.words import decode_words, readable
from odd_mail.reading import field, read
from pace import paced


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe_aus?=", "Grüße aus"),
        ("=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"),
        ("=?utf-8?b?R3LDvMOfZQ?=", "Grüße"),
        ("=?iso-8859-1*de?q?Gr=FC=DFe?=", "Grüße"),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?=  b =?utf-8?q?c?=", "a  b c"),
        ("=?utf-8?b?R3LDvMM=?= =?utf-8?b?n2U=?=", "Grüße"),
        ("=?utf-8?q?=C3?= =?UTF-8?b?vA==?=", "ü"),
        ("=?utf-8?q?=C3=BC?= =?iso-8859-1?q?=FC?=", "üü"),
        ("x=?utf-8?q?=C3=BC?=y", "xüy"),
        ("=?utf-8?q?Really??=", "Really?"),
        ("=?utf-8?q?a b?=", "a b"),
        ("=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=", "日本"),
        ("=?gb2312?b?xOO6ww==?=", "你好"),
        ("=?windows-1252?q?=80?=", "€"),
        ("=?iso-8859-1?q?=80?=", "€"),
        ("=?x-unknown?q?=C3=BC?=", "ü"),
        ("=?x-unknown?q?=FC?=", "ü"),
        ("=?utf-8?b?!?=", "=?utf-8?b?!?="),
        ("=?utf-8?b?Hello, world?=", "=?utf-8?b?Hello, world?="),
        ("=?utf-8?b?Kévin?=", "=?utf-8?b?Kévin?="),
        ("=?utf-8?b?R3LDvMOfZQ==?= =?utf-8?b?Kévin?=", "Grüße=?utf-8?b?Kévin?="),
        ("=?iso-2022-jp?b?GyRCLSEbKEI=?=", "①"),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?unclosed", "=?utf-8?q?unclosed"),
        ("=??q?a?=", "a"),
    ],
)
def test_encoded_words_are_decoded(value, expected):
    assert decode_words(value) == expected
    assert field("Subject", value).subject == expected


@pytest.mark.parametrize("hidden", ["=0D=0A", "=0A", "=0D", "=00", "=C2=85", "=E2=80=A8", "=E2=80=A9", "=0B", "=1B"])
def test_nothing_hidden_in_an_encoded_word_can_break_a_line(hidden):
    message = field("Subject", f"=?utf-8?q?a{hidden}Bcc:_x?=")
    assert message.subject in ("a Bcc: x", "a\ufffdBcc: x")
    assert [name for name, _ in message.headers] == ["Subject"]
    assert message.header("bcc") == []


def test_a_carriage_return_alone_begins_no_header_field():
    message = read(b"Subject: a\rBcc: x\r\nFrom: a@example.com\r\n\r\n")
    assert [name for name, _ in message.headers] == ["Subject", "From"]
    assert "header-bare-cr" in message.defects


@pytest.mark.parametrize(
    "name",
    ["hex", "zip", "zlib", "bz2", "base64", "quopri", "uu", "rot13", "rot_13", "unicode_escape", "raw_unicode_escape",
     "idna", "punycode", "undefined", "mbcs", "oem", "charmap", "aliases", "", "x" * 1000, "utf\x008\x00!", "..", "os",
     "000", "cp000", "windows-0000"],
)  # fmt: skip
def test_what_is_no_charset_is_refused(name):
    assert name == "utf\x008\x00!" or codec_for(name) is None
    text, _ = decode(b"4142\\x41", name)
    assert text == "4142\\x41"


@given(st.lists(st.sampled_from(("0", "1", "28591", "cp", "x", "-", "iso", "8859", "٠", "²", "cs", "'")), max_size=9))
def test_no_name_of_a_charset_raises(pieces):
    codec_for("".join(pieces))


def test_names_from_mail_never_reach_the_codec_registry():
    before = len(encodings._cache)
    for number in range(1000):
        decode(b"\xfc", f"x-made-up-{number}")
    assert len(encodings._cache) == before


def test_every_charset_we_know_exists_and_is_text():
    from mailpoller.mail import charset_names

    for name in charset_names.CODECS:
        codec = codec_for(name)
        assert codec is not None, name
        assert codecs.lookup(codec)._is_text_encoding


@pytest.mark.parametrize(
    ("octets", "charset", "text", "defect"),
    [
        (b"abc", "", "abc", ""),
        ("ü".encode(), "", "ü", ""),
        (b"\xfc", "", "ü", "charset-wrong"),
        ("ü".encode(), "us-ascii", "ü", ""),
        (b"\xfc", "utf-8", "ü", "charset-wrong"),
        ("üüü".encode() + b"\xc3", "utf-8", "üüü\ufffd", "charset-wrong"),
        (b"\xfc", "ISO_8859-1", "ü", ""),
        (b"\x93x\x94", "iso-8859-1", "“x”", ""),
        (b"\xa4", "iso-8859-15", "€", ""),
        (b"\x81", "windows-1252", "\ufffd", "charset-wrong"),
        ("ü".encode(), "shift_jis", "ﾃｼ", ""),
        (b"\xff", "euc-jp", "\ufffd", "charset-wrong"),
        ("ü".encode(), "x-unknown", "ü", "charset-unknown"),
        (b"\xfc", "x-unknown", "ü", "charset-unknown"),
        (b"+AGE-", "utf-7", "a", ""),
        (b"+2AA-", "utf-7", "\ufffd", ""),
        (b"\x00\xd8", "utf-16-le", "\ufffd", "charset-wrong"),
        (b"\xef\xbb\xbfa", "utf-8-sig", "a", ""),
    ],
)
def test_charset_ladder(octets, charset, text, defect):
    assert decode(octets, charset) == (text, defect)


@given(
    st.binary(max_size=60),
    st.sampled_from(["", "utf-7", "utf-16", "hz", "iso-2022-kr", "gb18030", "cp1253", "big5", "koi8-u", "nope"]),
)
def test_decoded_octets_are_always_valid_unicode(octets, charset):
    decode(octets, charset)[0].encode("utf-8")


@given(st.text(st.sampled_from("=?utf-8bqQ?= \x00é\ud800_Aa/"), max_size=60))
def test_no_header_value_raises_or_stays_unprintable(value):
    shown = readable(value)
    shown.encode("utf-8")
    assert "\n" not in shown
    assert "\r" not in shown


def test_unclosed_encoded_words_take_linear_time():
    began = time.process_time()
    decode_words("=?a?q?" * 150_000)
    decode_words("=?a?q?" + "=" * 900_000)
    assert time.process_time() - began < paced(1)


@given(
    charset=st.sampled_from(["utf-8", "iso-8859-1", "ISO-2022-JP", "x-none", "utf-8*de", "", "ü", "a" * 81]),
    encoding=st.sampled_from("bBqQx"),
    encoded=st.text(alphabet="aZ9=_+/ ?CF\u20ac", max_size=12),
)
def test_a_word_by_itself_is_read_as_the_same_word_before_others(charset: str, encoding: str, encoded: str) -> None:
    """There is a short way for the first, and it must lead to the same place."""
    word = f"=?{charset}?{encoding}?{encoded}?="
    assert decode_words(f"{word} and more") == f"{decode_words(word)} and more"
