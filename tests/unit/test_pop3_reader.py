"""The POP3 reader cuts what arrives into the same lines and bodies, whatever pieces it arrives in."""

from __future__ import annotations

import poplib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.sources.pop3 import reader
from mailpoller.sources.pop3.reader import AnswerReader, Collected, ProtocolViolation, Taker
from servers.scripted_pop3 import stuffed


class Everything:
    """Takes all there is: lines, and a body after each line ``+OK body``."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.told: list[bytes | Collected] = []
        self.limit = limit

    def line(self, line: bytes) -> Taker | None:
        self.told.append(line)
        if line != b"+OK body":
            return None
        self.told.append(Collected(self.limit))
        return self.told[-1]  # type: ignore[return-value]

    @property
    def found(self) -> list[bytes]:
        return [one.octets if isinstance(one, Collected) else one for one in self.told]


def read(octets: bytes, sizes: list[int]) -> list[bytes]:
    """What is found if the octets arrive in pieces of these sizes, and the rest in one."""
    everything = Everything()
    cutter = AnswerReader(everything)
    at = 0
    for size in sizes:
        cutter.feed(octets[at : at + size])
        at += size
    cutter.feed(octets[at:])
    assert cutter.clean
    return everything.found


ODD = [
    b"",
    b".\r\n",
    b"..\r\n",
    b"\r\n",
    b"\r\n.\r\n\r\n",
    b"a\r\n.b\r\n..c\r\n...\r\n",
    b"Subject: x\r\n\r\n.\r\n.\r\n.\r\n",
    b"a\n.\nb\r\n",
    b"a\n.\r\nb\r\n",
    b"a\r.\r\r\n",
    b"\r\r\n.\n\r\n",
    b"+OK body\r\n-ERR\r\n",
    b"x" * 300 + b"\r\n",
]

lines = st.lists(st.text(alphabet=".\r\nab", max_size=6).map(str.encode), max_size=8).map(
    lambda parts: b"".join(part + b"\r\n" for part in parts)
)


@pytest.mark.parametrize("body", ODD)
def test_body_is_the_same_octet_by_octet(body: bytes) -> None:
    octets = b"+OK\r\n+OK body\r\n" + stuffed(body) + b"-ERR no\r\n+OK body\r\n" + stuffed(body) + b"+OK\r\n"
    expected = [b"+OK", b"+OK body", body, b"-ERR no", b"+OK body", body, b"+OK"]
    for size in (1, 2, 3, 4, 5, 7, len(octets)):
        assert read(octets, [size] * (len(octets) // size)) == expected


@given(st.lists(lines, max_size=4), st.lists(st.integers(1, 9), max_size=80))
def test_body_is_the_same_in_whatever_pieces_it_comes(bodies: list[bytes], sizes: list[int]) -> None:
    octets = b"".join(b"+OK body\r\n" + stuffed(body) for body in bodies)
    assert read(octets, sizes) == [one for body in bodies for one in (b"+OK body", body)]


@given(lines)
def test_a_second_client_reads_the_same(body: bytes) -> None:
    """poplib splits lines at LF, so this holds where lines end with CRLF and no CR or LF stands alone."""
    plain = b"".join(line + b"\r\n" for line in body.replace(b"\r", b"").split(b"\n"))
    client = poplib.POP3.__new__(poplib.POP3)
    client.file = __import__("io").BytesIO(b"+OK body\r\n" + stuffed(plain))
    client._debugging = 0
    _, found, _ = client._getlongresp()
    assert read(b"+OK body\r\n" + stuffed(plain), []) == [b"+OK body", b"".join(line + b"\r\n" for line in found)]


def test_dot_that_the_server_forgot_to_double_is_taken_away_as_the_standard_says() -> None:
    assert read(b"+OK body\r\n.signature\r\nx\r\n.\r\n", [])[1] == b"signature\r\nx\r\n"


def test_mail_cannot_end_its_own_download_with_lone_line_feeds() -> None:
    smuggled = b"hello\n.\n+OK body\nevil\r\n"
    assert read(b"+OK body\r\n" + smuggled + b".\r\n", [])[1:] == [smuggled]


def test_status_line_that_ends_with_a_lone_line_feed_is_one() -> None:
    assert read(b"+OK\n+OK body\n.\r\n+OK body\n.dot\r\n.\r\n", []) == [
        b"+OK",
        b"+OK body",
        b"",
        b"+OK body",
        b"dot\r\n",
    ]


@pytest.mark.parametrize("octets", [b"+" * 10_000, b"+" * 10_000 + b"\r\n"])
def test_line_without_end_is_given_up(octets: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="longer than"):
        for at in range(0, len(octets), 100):
            (cutter := AnswerReader(Everything())).feed(octets[: at + 100])
    assert cutter is not None


def test_what_is_collected_is_bounded() -> None:
    cutter = AnswerReader(Everything(limit=1000))
    cutter.feed(b"+OK body\r\n")
    with pytest.raises(ProtocolViolation, match="larger than 1000 octets"):
        for _ in range(100):
            cutter.feed(b"x" * 98 + b"\r\n")


def test_large_body_is_handed_on_as_it_comes_and_never_held() -> None:
    class Counting:
        size = pieces = 0

        def write(self, chunk: bytes) -> None:
            self.size += len(chunk)
            self.pieces += 1

        def finish(self) -> None: ...
        def abort(self) -> None: ...

    class Lines:
        body = Counting()

        def line(self, line: bytes) -> Taker | None:
            return self.body

    cutter = AnswerReader(lines := Lines())
    cutter.feed(b"+OK\r\n")
    for _ in range(1000):
        cutter.feed(b"." * 1000 + b"\r\n")
        assert len(cutter._held) <= reader._HELD + 2
    cutter.feed(b".\r\n")
    assert (lines.body.size, lines.body.pieces) == (1000 * 1001, lines.body.pieces)
    assert lines.body.pieces >= 1000
