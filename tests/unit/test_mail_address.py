"""Addresses: RFC 5322's forms, the obsolete ones, and what arrives instead."""

from __future__ import annotations

import email.utils
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.core.message import Address
from mailpoller.mail.address import CUT, KEPT, MALFORMED, parse_addresses
from pace import paced


def pairs(value: str) -> list[tuple[str, str]]:
    return [(address.name, address.address) for address in parse_addresses(value)[0]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@example.com", [("", "a@example.com")]),
        ("<a@example.com>", [("", "a@example.com")]),
        ("John Doe <a@example.com>", [("John Doe", "a@example.com")]),
        ('"Doe, John" <a@example.com>', [("Doe, John", "a@example.com")]),
        ('"He said \\"hi\\" \\\\o/" <a@example.com>', [('He said "hi" \\o/', "a@example.com")]),
        ("a@example.com (John Doe)", [("John Doe", "a@example.com")]),
        ("a@example.com (John (Johnny) Doe)", [("John (Johnny) Doe", "a@example.com")]),
        ("John (the boss) Doe <a@example.com>", [("John Doe", "a@example.com")]),
        ("a@example.com, b@example.com", [("", "a@example.com"), ("", "b@example.com")]),
        ("a@example.com; b@example.com", [("", "a@example.com"), ("", "b@example.com")]),
        ("Team: a@example.com, B <b@example.com>;, c@example.com",
         [("", "a@example.com"), ("B", "b@example.com"), ("", "c@example.com")]),
        ("undisclosed-recipients:;", []),
        ("<@relay.example,@other.example:a@example.com>", [("", "a@example.com")]),
        ("john . doe @ example . com", [("", "john.doe@example.com")]),
        ('"john doe"@example.com', [("", '"john doe"@example.com')]),
        ("a@[192.0.2.1]", [("", "a@[192.0.2.1]")]),
        ("A <a@[IPv6:2001:db8::1]>", [("A", "a@[IPv6:2001:db8::1]")]),
        ("=?utf-8?q?J=C3=BCrgen_Gro=C3=9F?= <a@example.com>", [("Jürgen Groß", "a@example.com")]),
        ("=?utf-8?q?Doe,_John?= <a@example.com>, "
         "b@example.com", [("Doe, John", "a@example.com"), ("", "b@example.com")]),
        ('"=?utf-8?q?J=C3=BCrgen?=" <a@example.com>', [("Jürgen", "a@example.com")]),
        ("=?utf-8?b?SsO8?= =?utf-8?b?cmdlbg==?= <a@example.com>", [("Jürgen", "a@example.com")]),
        ("Jürgen <jürgen@exämple.com>", [("Jürgen", "jürgen@exämple.com")]),
        ("", []),
        (" , ,, ", []),
        ("<>", []),
    ],
)  # fmt: skip
def test_address_field_is_understood(value, expected):
    assert pairs(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("John Doe john@example.com", [("John Doe", "john@example.com")]),
        ("<a@example.com", [("", "a@example.com")]),
        ('"John <a@example.com>', [("John", "a@example.com")]),
        ("((( a@example.com", [("", "a@example.com")]),
        ("<<<a@example.com>>>", [("", "a@example.com")]),
        ("A <a@example.com> B <b@example.com>", [("A", "a@example.com"), ("B", "b@example.com")]),
        ("<a@example.com> John", [("John", "a@example.com")]),
        ("<a@example.com> John b@example.com", [("", "a@example.com"), ("John", "b@example.com")]),
        ("root", [("", "root")]),
        ("the whole team", [("the whole team", "")]),
        ("=?utf-8?q?a=40example.com?=", [("a@example.com", "")]),
        ("A <a@exa mple.com>", [("A", "a@exa mple.com")]),
        ("<power quadrant system@example.com>", [("", "power quadrant system@example.com")]),
        ("test1@local>", [("", "test1@local>")]),
        ("A <a@example.com>>", [("A", "a@example.com")]),
        ("a@b@example.com", [("", "a@b@example.com")]),
        ("A <mailto:a@example.com>", [("A", "mailto:a@example.com")]),
        ("A <root>", [("A", "root")]),
    ],
)
def test_broken_address_field_still_gives_what_is_in_it(value, expected):
    assert pairs(value) == expected


@pytest.mark.parametrize(
    "value",
    ["test1@local>", "a@b@example.com", "<power quadrant system@example.com>", "A <mailto:a@example.com>", "A <root>",
     "A <a@>", "@example.com", "A <a@example.com>>"],
)  # fmt: skip
def test_what_cannot_be_an_address_is_given_as_written_and_said(value):
    found, defect = parse_addresses(value)
    assert len(found) == 1
    assert found[0].address in value
    assert defect == MALFORMED


@pytest.mark.parametrize("value", ["< john . doe @ example . com >", 'x <"john doe"@example.com>', "<a@[IPv6:::1]>"])
def test_odd_forms_that_are_allowed_are_no_defect(value):
    assert parse_addresses(value)[1] == ""


@pytest.mark.parametrize("value", ["root", '"John <a@example.com>', "((( a@example.com", "<>", "no address here"])
def test_broken_address_field_is_a_defect(value):
    assert parse_addresses(value)[1] == MALFORMED


def test_what_an_encoded_word_says_is_a_name_and_never_an_address():
    value = "=?utf-8?q?boss=40example.org=3E=2C_=3Cevil=40example.org=3E?= <a@example.com>"
    assert pairs(value) == [("boss@example.org>, <evil@example.org>", "a@example.com")]


def test_names_and_addresses_hold_no_control_characters():
    (address,) = parse_addresses('"a\x00b=?utf-8?q?=0D=0ABcc:_x?=" <c\x07@example.com>')[0]
    assert address.name.isprintable() or "\ufffd" in address.name
    assert not set(map(ord, address.name + address.address)) & set(range(32))


def test_addresses_beyond_the_bound_are_cut_and_said_so():
    found, defect = parse_addresses(", ".join(f"u{n}@example.com" for n in range(KEPT + 5)))
    assert len(found) == KEPT
    assert defect == CUT
    found, defect = parse_addresses(", ".join(f'"U, {n}" <u{n}@example.com>' for n in range(KEPT)))
    assert len(found) == KEPT
    assert defect == ""


WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
NAME = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map(str.strip)


@given(st.lists(st.tuples(NAME, WORD, WORD), max_size=6))
def test_what_the_standard_library_writes_is_read_back(written):
    wanted = [Address(" ".join(name.split("\t")), f"{local}@{domain}.example") for name, local, domain in written]
    value = ", ".join(email.utils.formataddr((address.name, address.address)) for address in wanted)
    found, _ = parse_addresses(value)
    assert [address.address for address in found] == [address.address for address in wanted]
    if "=?" not in value:
        assert [address.name for address in found] == [address.name for address in wanted]


MARKS = ("(", ")", "<", ">", '"', "\\", "@", ",", ":", ";", "=?a?q?", "a", " ", ".", "[", "]")


def test_whatever_is_repeated_takes_linear_time():
    for repeated in (
        *itertools.product(MARKS, repeat=2),
        ("<", "\\", '"'),
        ('"', "<", "\\", '"'),
        ("<", '"', "\\", '"'),
    ):
        value = "".join(repeated)
        began = time.process_time()
        parse_addresses((value * 12_000)[:12_000])
        assert time.process_time() - began < paced(0.25), value


@given(st.text('ab@.,;:<>()[]"\\ =?\t\ud800\x00é', max_size=60))
def test_no_text_raises_or_yields_invalid_unicode(value):
    for address in parse_addresses(value)[0]:
        (address.name + address.address).encode("utf-8")
