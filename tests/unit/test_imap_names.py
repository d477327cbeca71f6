"""Names on the wire: modified UTF-7, quoting, sets, namespaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.wire.imap.names import Namespace, decode_name, encode_name, quotable, quote, uid_set, uid_sets
from servers import dovecot

NAMES = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("INBOX", "INBOX"),
        ("Entwürfe", "Entw&APw-rfe"),
        ("A & B", "A &- B"),
        ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),  # RFC 3501 section 5.1.3
        ("😀", "&2D3eAA-"),
    ],
)
def test_a_folder_name_is_written_in_modified_utf_7(name: str, wire: str) -> None:
    assert encode_name(name) == wire
    assert decode_name(wire) == name


@given(NAMES)
def test_every_folder_name_survives_the_wire(name: str) -> None:
    wire = encode_name(name)
    assert wire.isascii()
    assert wire.isprintable()
    assert decode_name(wire) == name
    assert wire == dovecot.encode_name(name)


@pytest.mark.parametrize("name", ["Entwürfe &!!!- x", "Müller & Söhne - Archiv", "&A-", "&2D0-", "&", "a&b"])
def test_a_name_that_is_no_modified_utf_7_is_taken_as_it_is(name: str) -> None:
    assert decode_name(name) == name


@given(st.text(st.characters(min_codepoint=1, max_codepoint=126, exclude_characters="\r\n"), max_size=40))
def test_a_quoted_string_never_ends_early(text: str) -> None:
    inner = quote(text)[1:-1]
    unescaped = []
    position = 0
    while position < len(inner):
        position += inner[position] == "\\"
        unescaped.append(inner[position])
        position += 1
    assert "".join(unescaped) == text
    assert '"' not in inner.replace("\\\\", "").replace('\\"', "")


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b", "ä"])
def test_what_cannot_be_quoted_is_refused_and_not_shown(text: str) -> None:
    assert not quotable(text)
    with pytest.raises(ValueError, match="cannot be quoted") as caught:
        quote(text)
    assert text not in str(caught.value)


@given(st.sets(st.integers(1, 300)))
def test_a_set_names_exactly_its_uids(uids: set[int]) -> None:
    found: set[int] = set()
    for part in filter(None, uid_set(sorted(uids)).split(",")):
        low, _, high = part.partition(":")
        found.update(range(int(low), int(high or low) + 1))
    assert found == uids


def test_sets_are_cut_so_that_no_command_line_is_too_long() -> None:
    uids = range(1_000_000_000, 1_000_010_000, 2)
    pieces = list(uid_sets(uids))
    assert [uid for piece, _ in pieces for uid in piece] == list(uids)
    assert max(len(words) for _, words in pieces) < 8000


@pytest.mark.parametrize(
    ("namespace", "name", "candidates"),
    [
        (Namespace(), "inbox", ["INBOX"]),
        (Namespace(), "Sent Items", ["Sent Items"]),
        (Namespace("INBOX.", "."), "Done", ["INBOX.Done", "Done"]),
        (Namespace("INBOX.", "."), "INBOX.Done", ["INBOX.Done"]),
        (Namespace("INBOX.", "."), "Inbox.Done", ["Inbox.Done"]),
        (Namespace("INBOX.", "."), "Done/2026", ["INBOX.Done.2026", "Done.2026", "INBOX.Done/2026", "Done/2026"]),
        (Namespace("INBOX.", ".", ("shared.",)), "shared.team", ["shared.team"]),
        (Namespace("", "\\"), "Archive/Old", ["Archive\\Old", "Archive/Old"]),
    ],
)
def test_a_folder_is_looked_for_where_the_namespace_puts_it(
    namespace: Namespace, name: str, candidates: list[str]
) -> None:
    assert namespace.candidates(name) == candidates
