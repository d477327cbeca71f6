"""The response reader: whatever arrives however cut, it gives the same responses, in linear time, within its bounds."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.core.spool import Intake, Octets, Spool
from mailpoller.wire.imap import reader as module
from mailpoller.wire.imap.reader import ProtocolViolation, Response, ResponseReader, SpoolFailure, literal_size
from pace import paced


def plain(response: Response) -> list[bytes]:
    return [bytes(piece.view()) if isinstance(piece, Octets) else piece for piece in response]  # type: ignore[misc]


def read(chunks: list[bytes], spool: Spool | None = None, limit: int = 1 << 30) -> list[list[bytes]]:
    found: list[list[bytes]] = []

    def intake(line: bytes, size: int) -> Intake | None:
        return spool.begin(limit) if spool is not None and b"BODY[]" in line else None

    reader = ResponseReader(lambda response: found.append(plain(response)), intake)
    reader.early = False
    for chunk in chunks:
        while taken := reader.feed(chunk):
            chunk = chunk[taken:]
    return found


CONVERSATION = (
    b"* OK [CAPABILITY IMAP4rev1] hello {5}\r\n"
    b'* 1 FETCH (UID 7 BODY[] {9}\r\n* 1 * {3}\r FLAGS (\\Seen) X "a {5}")\r\n'
    b"* 2 FETCH (UID 8 BODY[] {0}\r\n)\r\n"
    b'* 3 FETCH (UID 9 ENVELOPE ("Re: (unbalanced" NIL) BODY[] {4}\r\n\r\n\r\n)\r\n'
    b'* LIST () "/" {6}\r\na "b" \r\n'
    b"\r\n"
    b"A1 OK done {5}\r\n"
    b"+ go on {3}\r\n"
    b"bare line feed\n"
)
RESPONSES = [
    [b"* OK [CAPABILITY IMAP4rev1] hello {5}"],
    [b"* 1 FETCH (UID 7 BODY[] {9}", b"* 1 * {3}", b'\r FLAGS (\\Seen) X "a {5}")'],
    [b"* 2 FETCH (UID 8 BODY[] {0}", b"", b")"],
    [b'* 3 FETCH (UID 9 ENVELOPE ("Re: (unbalanced" NIL) BODY[] {4}', b"\r\n\r\n", b")"],
    [b'* LIST () "/" {6}', b'a "b" ', b""],
    [b"A1 OK done {5}"],
    [b"+ go on {3}"],
    [b"bare line feed"],
]


def test_data_is_kept_bit_for_bit_and_text_is_not_taken_for_literals() -> None:
    assert read([CONVERSATION]) == RESPONSES


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=40).map(sorted))
def test_however_the_octets_are_cut_the_responses_are_the_same(cuts: list[int]) -> None:
    edges = [0, *cuts, len(CONVERSATION)]
    chunks = [CONVERSATION[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert read(chunks) == RESPONSES


def test_one_octet_at_a_time_gives_the_same_responses(tmp_path: Path) -> None:
    spool = Spool(tmp_path, threshold=4)
    assert read([CONVERSATION[i : i + 1] for i in range(len(CONVERSATION))], spool) == RESPONSES


def test_ten_thousand_short_lines_in_one_read_are_no_recursion() -> None:
    lines = b"".join(b"* %d FETCH (UID %d RFC822.SIZE 99)\r\n" % (i, i) for i in range(1, 10_001))
    assert len(read([lines])) == 10_000


def test_the_work_is_linear_in_the_octets() -> None:
    def seconds(lines: int) -> float:
        best = 9.0
        data = b"* 1 FETCH (UID 1 BODY[] {3}\r\nabc)\r\n" * lines
        for _ in range(3):
            began = time.thread_time()
            assert len(read([data[i : i + 50] for i in range(0, len(data), 50)])) == lines
            best = min(best, time.thread_time() - began)
        return best

    assert seconds(20_000) < 90 * seconds(1_000)  # 20 times is linear, 400 quadratic


def test_a_long_line_that_comes_in_small_pieces_costs_linear_time() -> None:
    line = b"* SEARCH " + b"1 " * 1_000_000
    began = time.thread_time()
    assert len(read([line[i : i + 1000] for i in range(0, len(line), 1000)] + [b"\r\n"])) == 1
    assert time.thread_time() - began < paced(2)


def test_a_line_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 10_000)
    with pytest.raises(ProtocolViolation, match="longer than 10000"):
        read([b"* OK " + b"x" * 1000] * 11)
    with pytest.raises(ProtocolViolation, match="longer than 10000"):
        read([b"* OK " + b"x" * 10_001 + b"\r\n"])


def test_a_literal_that_nobody_wants_is_refused_before_it_comes() -> None:
    with pytest.raises(ProtocolViolation, match="20000000000 octets"):
        read([b"* LIST () NIL {20000000000}\r\n"])


def test_a_response_of_endless_literals_is_cut_off() -> None:
    with pytest.raises(ProtocolViolation, match="response is longer"):
        read([b"* X {1}\r\n" + b"a {1}\r\n" * 200_000])
    with pytest.raises(ProtocolViolation, match="response is longer"):
        read([b"* X {1000000}\r\n", *[b"x" * 1_000_000 + b" {1000000}\r\n"] * 20])


def test_a_response_has_one_body(tmp_path: Path) -> None:
    with pytest.raises(ProtocolViolation, match="two bodies"):
        read([b"* 1 FETCH (BODY[] {3}\r\nabc BODY[] {3}\r\nabc)\r\n"], Spool(tmp_path))


def test_what_exceeds_the_limit_is_not_kept(tmp_path: Path) -> None:
    data = b"* 1 FETCH (BODY[] {10}\r\n0123456789)\r\n"
    assert read([data], Spool(tmp_path), limit=4)[0][1] == b"0123"
    assert read([data[:28], data[28:]], Spool(tmp_path), limit=4)[0][1] == b"0123"


def test_a_full_disk_loses_one_literal_and_not_the_connection(tmp_path: Path) -> None:
    class FullSpool(Spool):
        def file(self):  # type: ignore[no-untyped-def]
            raise OSError(28, "No space left on device")

    found: list[Response] = []
    spool = FullSpool(tmp_path, threshold=4)
    reader = ResponseReader(found.append, lambda line, size: spool.begin(1000))
    for chunk in (b"* 1 FETCH (BODY[] {10}\r\n01", b"2345", b"67", b"89)\r\nA1 OK\r\n"):
        reader.feed(chunk)
    assert found == [[b"* 1 FETCH (BODY[] {10}", SpoolFailure("No space left on device"), b")"], [b"A1 OK"]]


def test_closing_in_the_middle_removes_the_spool_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, threshold=4)
    reader = ResponseReader(lambda response: None, lambda line, size: spool.begin(1000))
    reader.feed(b"* 1 FETCH (BODY[] {100}\r\n")
    reader.feed(b"0123456789")
    assert len(list(tmp_path.iterdir())) == 1
    reader.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"* 1 FETCH (BODY[] {5}", 5),
        (b'* LIST () "/" {5}', 5),
        (b'* LIST () "\\"" {5}', 5),
        (b'* LIST () "a {5}', None),
        (b'* LIST () "a\\" {5}', None),
        (b"* OK text {5}", None),
        (b"* NO {5}", None),
        (b"* BYE {5}", None),
        (b"A1 OK {5}", None),
        (b"+ {5}", None),
        (b"* 1 FETCH (BODY[] {5x}", None),
        (b"* 1 FETCH (BODY[] {}", None),
        (b"* 1 FETCH (BODY[] {99999999999999999999}", None),
    ],
)
def test_only_data_can_announce_a_literal(line: bytes, size: int | None) -> None:
    assert literal_size(line, continued=False) == size
