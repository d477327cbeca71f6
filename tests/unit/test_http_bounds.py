"""What a web service can cost us is bounded by what it tells: not by headers, interim responses, chunks or tags."""

from __future__ import annotations

import asyncio
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.core.literals import Secret
from mailpoller.sources.ews.authentication import Challenge, PasswordLogin
from mailpoller.sources.ews.reader import ENVELOPE, AnswerReader, Malformed
from mailpoller.wire.http import HttpAnswer, HttpClient, HttpError, http_date, iso_date, retry_after
from mailpoller.wire.http.network import _Stream, _Wire
from mailpoller.wire.tls import TlsPolicy
from pace import paced
from servers.listener import Listener

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Talker(Listener):
    """Answers each request with octets that an endless or finite iterator gives, as fast as they are read."""

    def __init__(self, says: Callable[[], Iterator[bytes]], pause: float = 0.0) -> None:
        self.says = says
        self.pause = pause
        self.said = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for octets in self.says():
            writer.write(octets)
            self.said += len(octets)
            await writer.drain()
            if self.pause:
                await asyncio.sleep(self.pause)


def forever(first: bytes, then: bytes) -> Callable[[], Iterator[bytes]]:
    def says() -> Iterator[bytes]:
        yield first
        while True:
            yield then

    return says


async def asked(talker: Talker, seconds: float = 60, limit: int = 4 << 20) -> None:
    async with talker:
        client = HttpClient(f"http://127.0.0.1:{talker.port}", timeout=timedelta(seconds=seconds))
        try:
            await client.request("POST", "/x", doing="look", limit=limit)
        finally:
            await client.close()


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1000, "no HTTP"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000, "no end"),
        (CHUNKED, b"1\r\n \r\n" * 1000, "less than what it comes in"),
        (CHUNKED, b"1;" + b"x" * 10_000 + b"\r\n \r\n", "less than what it comes in"),
        (CHUNKED, b"4\r\n    \r\n" * 1000, "less than what it comes in"),
        (CHUNKED, (b"10\r\n" + b" " * 16 + b"\r\n") * 1000, "less than what it comes in"),
    ],
)
async def test_answer_that_is_mostly_wrapping_is_given_up(first: bytes, then: bytes, words: str) -> None:
    talker = Talker(forever(first, then))
    with pytest.raises(HttpError, match=words):
        await asked(talker)
    assert talker.said < 12_000_000, "it was read for long"


async def test_answer_in_honest_chunks_is_taken() -> None:
    talker = Talker(lambda: iter([CHUNKED, b"40\r\n" + b" " * 64 + b"\r\n", b"0\r\n\r\n"]))
    await asked(talker)
    many = Talker(lambda: iter([CHUNKED, *[b"80\r\n" + b" " * 128 + b"\r\n"] * 12_000, b"0\r\n\r\n"]))
    await asked(many)


async def test_header_that_has_begun_comes_to_its_end() -> None:
    began = time.monotonic()
    with pytest.raises(HttpError, match="no answer within"):
        await asked(Talker(forever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), pause=0.05), seconds=0.4)
    assert time.monotonic() - began < 10


async def test_others_have_their_turn_before_what_is_there_already_is_read() -> None:
    wire, turns = _Wire(), []
    wire.buffer += b"HTTP/1.1 102 Processing\r\n\r\n" * 1000
    stream = _Stream(wire, TlsPolicy(), 30.0)
    for _ in range(3):
        asyncio.get_running_loop().call_soon(turns.append, None)
        await stream.read(1000)
    assert len(turns) == 3


async def test_others_have_their_turn_while_an_answer_floods() -> None:
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)

    looking = asyncio.create_task(look())
    with pytest.raises(HttpError):
        await asked(Talker(forever(b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000)))
    looking.cancel()
    assert longest < 1


@pytest.mark.parametrize("value", [b"{}", b"[]", b"1", b'{"a":1}'])
def test_json_of_too_many_values_is_refused_before_it_is_decoded(value: bytes) -> None:
    kind = {"content-type": "application/json"}
    few = HttpAnswer(200, kind, b"[" + b",".join([value] * 1000) + b"]", "host")
    assert len(few.json()) == 1000
    many = HttpAnswer(200, kind, b"[" + b",".join([value] * 500_001) + b"]", "host")
    tracemalloc.start()
    try:
        with pytest.raises(HttpError, match="too many values"):
            many.json()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


# --- dates -----------------------------------------------------------------------------------------------------------
ODD_DATES = [
    "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 2026 00:00:00 +99999999999",
    "Mon, 99 Foo 2026 99:99:99",
    "¹ Jan 2026",
    "\x00",
    "",
]


@pytest.mark.parametrize("said", ODD_DATES)
def test_unreadable_date_is_no_date(said: str) -> None:
    assert http_date(said) is None
    assert retry_after({"retry-after": said}) is None


@pytest.mark.parametrize(
    "said", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "99999-01-01", 7, None, "x"]
)
def test_unreadable_date_of_a_service_is_no_date(said: object) -> None:
    assert iso_date(said) is None


def test_readable_dates_are_in_utc() -> None:
    assert iso_date("2026-01-02T03:04:05+01:00") == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)
    assert iso_date("2026-01-02T03:04:05Z") == http_date("Fri, 02 Jan 2026 03:04:05 GMT")


# --- EWS -------------------------------------------------------------------------------------------------------------
namespace, _, name = ENVELOPE.rpartition(" ")
BEGUN = f'<s:{name} xmlns:s="{namespace}">'.encode()


def test_tag_without_end_is_refused_before_it_is_held() -> None:
    reader = AnswerReader(limit=16 << 20)
    reader.feed(BEGUN + b"<a ")
    with pytest.raises(Malformed, match="a tag of more"):
        for number in range(100_000):
            reader.feed(b"".join(b'a%d="" ' % one for one in range(number * 1000, number * 1000 + 1000)))
    assert number < 100


def test_attributes_count_as_elements() -> None:
    reader = AnswerReader(limit=16 << 20)
    tag = b"<a " + b" ".join(b'a%d=""' % one for one in range(1000)) + b"/>"
    with pytest.raises(Malformed, match="too many elements"):
        reader.feed(BEGUN + tag * 150)


def test_text_between_elements_is_not_added_up() -> None:
    reader = AnswerReader(limit=64 << 20)
    began = time.thread_time()
    reader.feed(BEGUN + (b"x" * 300 + b"<b/>") * 50_000 + b"</s:Envelope>")
    assert time.thread_time() - began < paced(2)
    assert len(reader.finish().text) == 300


@pytest.mark.parametrize("error", [KeyError("secret"), struct.error("secret"), IndexError("secret")])
async def test_whatever_a_challenge_raises_ends_the_login_with_its_name(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stumbling:
        def step(self, said: bytes | None) -> bytes:
            if said is None:
                return b"hello"
            raise error

    monkeypatch.setattr("mailpoller.sources.ews.authentication._context", lambda *_: Stumbling())
    monkeypatch.setenv("HOSTILE_SECRET", "hush")
    login = PasswordLogin("host", "joe", Secret("env:HOSTILE_SECRET"), "ntlm", secure=True)
    await login.next(Challenge({"ntlm": ""}, self_ := object(), None))
    with pytest.raises(TransientError, match=type(error).__name__) as caught:
        await login.next(Challenge({"ntlm": "TlRM"}, self_, None))
    assert "secret" not in str(caught.value)
