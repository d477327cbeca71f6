"""What a server says, understood."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailpoller.core.spool import Octets
from mailpoller.wire.imap.names import Namespace
from mailpoller.wire.imap.reader import ProtocolViolation, Response
from mailpoller.wire.imap.responses import (
    Literal,
    read_date,
    read_fetch,
    read_flags,
    read_list,
    read_namespace,
    read_status,
    read_values,
    readable,
)
from mailpoller.wire.imap.uids import read_esearch, read_search, read_set


@pytest.mark.parametrize(
    "response",
    [
        [b'* 1 FETCH (UID 7 FLAGS (\\Seen $X) INTERNALDATE " 1-Feb-2026 03:04:05 +0100" BODY[] {3}', b"abc", b")"],
        [b"* 1 FETCH (BODY[] {3}", b"abc", b' UID 7 FLAGS (\\Seen $X) INTERNALDATE "01-Feb-2026 02:04:05 +0000")'],
        [b'* 1 fetch (flags (\\Recent \\Seen $X) internaldate "01-FEB-2026 02:04:05 +0000" uid 7 Body[]<0> "abc")'],
        [b'* 1 FETCH (ENVELOPE ("d" "a ( b" NIL) UID 7 X {1}', b")", b' FLAGS (\\Seen $X) BODY[]<0> {3}', b"abc",
         b' MODSEQ (5) INTERNALDATE "01-Feb-2026 02:04:05 +0000")'],
    ],
)  # fmt: skip
def test_a_message_is_read_in_whatever_order_the_server_tells_it(response: Response) -> None:
    response = [Octets.of(piece) if piece == b"abc" else piece for piece in response]
    found = read_fetch(response)
    assert found is not None
    assert isinstance(found.body, Octets)
    assert found.body.view() == b"abc"
    assert (found.uid, found.flags, found.announced, found.asked) == ("7", ("\\Seen", "$X"), 3, True)
    assert found.received == datetime(2026, 2, 1, 2, 4, 5, tzinfo=UTC)


def test_a_body_that_is_nil_is_told_from_one_that_was_not_named() -> None:
    nil = read_fetch([b"* 1 FETCH (UID 7 BODY[] NIL)"])
    none = read_fetch([b"* 1 FETCH (UID 7 FLAGS (\\Seen))"])
    assert nil is not None and none is not None
    assert (nil.asked, nil.body) == (True, None)
    assert none.asked is False


@pytest.mark.parametrize(
    "line", [b"* 1 FETCH", b"* 1 FETCH )", b"* 1 FETCH (((", b"* 1 FETCH (UID (1) FLAGS x BODY[] "
                                                             b"(a))", b"* 1 FETCH (UID x)"]
)  # fmt: skip
def test_nonsense_is_no_message(line: bytes) -> None:
    found = read_fetch([line])
    assert found is None or (found.uid is None and found.body is None)


def test_flags_are_not_kept_without_end() -> None:
    assert len(read_flags(b"$x " * 100_000)) == 1000
    assert read_flags(b"\\Seen \\RECENT $" + b"x" * 600) == ("\\Seen", "$" + "x" * 600)


def test_lists_cannot_be_nested_without_end() -> None:
    with pytest.raises(ProtocolViolation, match="nested"):
        read_values([b"* 1 FETCH " + b"(" * 100])


def test_words_lists_strings_and_literals_are_told_apart() -> None:
    assert read_values([b'* X (A "b \\" c" NIL {2}', b"()", b' BODY[HEADER.FIELDS ("A" B)]<0> ())']) == [
        b"*", b"X", [b"A", b'b " c', None, Literal(b"()", 2), b'BODY[HEADER.FIELDS ("A" B)]<0>', []],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "instant"),
    [
        (b"01-Feb-2026 00:00:00 +0000", datetime(2026, 2, 1, tzinfo=UTC)),
        (b" 1-Feb-2026 00:00:00 -0330", datetime(2026, 2, 1, 3, 30, tzinfo=UTC)),
        (b"31-Dec-9999 23:59:59 -1200", None),
        (b"32-Feb-2026 00:00:00 +0000", None),
        (b"yesterday", None),
    ],
)
def test_an_internal_date_becomes_an_instant_or_nothing(words: bytes, instant: datetime | None) -> None:
    assert read_date(words) == instant


def test_the_servers_words_are_printable_and_short() -> None:
    assert readable(b"no\x1b[31m \xffway\r\n" + b"x" * 1000).startswith("no [31m \ufffdway")
    assert len(readable(b"x" * 1000)) == 300
    status = read_status(b"no [TryCreate] there is no such folder")
    assert (status.kind, status.code, str(status)) == ("NO", "TRYCREATE", "NO [TRYCREATE] there is no such folder")
    assert read_status(b"OK [UIDNEXT 5] x").arguments == b"5"
    assert read_status(b"OK [broken").code == ""


def test_uids_are_read_from_both_kinds_of_search() -> None:
    assert list(read_search(b"3 1 2 (MODSEQ 9)")) == [3, 1, 2]
    assert list(read_search(b"")) == []
    assert list(read_esearch(b'(TAG "A1") UID COUNT 5 ALL 1:3,9')) == [1, 2, 3, 9]
    assert list(read_esearch(b'(TAG "A1") UID')) == []


@pytest.mark.parametrize("words", [b"1:4294967295", b"x", b"1:2:3", b"99999999999", b"-5"])
def test_a_set_that_would_fill_the_memory_or_is_none_is_refused(words: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        read_set(words)


def test_folders_and_namespaces_are_read() -> None:
    listed = read_list([b'* LIST (\\HasNoChildren \\NoSelect) "." "INBOX.Entw&APw-rfe"'])
    assert listed is not None
    assert (listed.name, listed.delimiter, listed.selectable) == ("INBOX.Entwürfe", ".", False)
    flat = read_list([b"* LIST () NIL {3}", b"a b", b""])
    assert flat is not None
    assert (flat.name, flat.delimiter, flat.selectable) == ("a b", "", True)
    assert read_namespace([b'* NAMESPACE (("INBOX." ".")) (("~" "/")) (("#shared." "."))']) == Namespace(
        "INBOX.", ".", ("~", "#shared.")
    )
    assert read_namespace([b'* NAMESPACE NIL NIL (("" "."))']) is None
