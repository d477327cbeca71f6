"""The HTTP client: bounded, with deadlines, and errors that are decisions."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.errors import ConfigError, CredentialsRefused, TransientError
from mailpoller.core.spool import Spool
from mailpoller.remote.graph.client import _answer
from mailpoller.sources.gmail.encoded import EncodedIntake
from mailpoller.wire.http import (
    HttpClient,
    HttpCut,
    HttpError,
    HttpStatus,
    IntakeTrouble,
    Unauthorized,
    error_of,
    retry_after,
)
from mailpoller.wire.tls import TlsPolicy
from servers.dovecot import self_signed
from servers.web import Asked, Reply, Web, script

TOKEN = "opaque-token-that-nobody-may-see"


class Tokens:
    """Hands out numbered tokens."""

    def __init__(self, *tokens: str) -> None:
        self.left = list(tokens or (TOKEN,))
        self.refusals: list[str] = []

    async def token(self) -> str:
        return self.left[0]

    def taken(self, token: str) -> None:
        pass

    async def refused(self, token: str) -> bool:
        self.refusals.append(token)
        if len(self.left) > 1:
            self.left.pop(0)
            return True
        return False


async def ask(reply: Reply, **options: object) -> object:
    async with Web(script(reply)) as web:
        client = HttpClient(web.url, timeout=timedelta(seconds=0.4 if reply.pause else 60))
        try:
            return await client.request("GET", "/x", doing="look", **options)  # type: ignore[arg-type]
        finally:
            await client.close()


# --- answers ---------------------------------------------------------------------------------------------------------
async def test_json_is_decoded_and_a_connection_is_used_again() -> None:
    async with Web(script(Reply(body={"value": [1]}))) as web:
        client = HttpClient(web.url + "/v1.0")
        for _ in range(3):
            answer = await client.request("GET", "me", doing="look", query={"$top": "1"})
            assert answer.object() == {"value": [1]}
        await client.close()
        assert web.connections == 1
        assert web.asked[0].path == "/v1.0/me" and web.asked[0].query == {"$top": "1"}


async def test_bodies_are_sent_with_their_type() -> None:
    async with Web(script(Reply(body={}))) as web:
        client = HttpClient(web.url)
        await client.request("POST", "/a", doing="send", json={"a": "ü"})
        await client.request("POST", "/b", doing="send", form={"a": "b c&d"})
        await client.request("POST", "/c", doing="send", content=b"raw", headers={"content-type": "text/plain"})
        await client.request("POST", "/d", doing="send")
        await client.close()
        json, form, raw, empty = web.asked
        assert (json.headers["content-type"], json.body) == ("application/json", '{"a":"ü"}'.encode())
        assert form.form == {"a": "b c&d"}
        assert (raw.headers["content-type"], raw.body) == ("text/plain", b"raw")
        assert empty.headers["content-length"] == "0"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(body=b"<html>", headers={"content-type": "text/html"}), "instead of JSON"),
        (Reply(body=b"{", headers={"content-type": "application/json"}), "broken"),
        (Reply(body=b"{}" * 5000, headers={"content-type": "application/json"}), "more than 1,000 octets"),
        (Reply(body=b"[" * 900, headers={"content-type": "application/json"}), "broken"),
        (Reply(body=[1]), "no object"),
        (Reply(body={}, headers={"content-encoding": "gzip"}), "coding"),
        (Reply(body={"a": "b" * 99}, cut=130), "closed before the answer was complete"),
        (Reply(raw=b"SSH-2.0-OpenSSH\r\n\r\n", cut=99), "no HTTP"),
        (Reply(body={}, pause=60), "no answer within 0.4 s"),
        (Reply(302, headers={"location": "https://evil.example/?code=1"}), "redirects to evil.example"),
        (Reply(307, headers={"location": "/elsewhere"}), "redirects to 127.0.0.1"),
        (Reply(308, headers={"location": "https://[nowhere/"}), "redirects to somewhere"),
    ],
)
async def test_an_answer_of_no_use_is_a_passing_error_in_plain_words(reply: Reply, words: str) -> None:
    with pytest.raises(HttpError, match=words) as caught:
        answer = await ask(reply, limit=1000)
        answer.object()  # type: ignore[attr-defined]
    assert "code=1" not in str(caught.value)


async def test_a_chunked_answer_without_end_is_given_up_at_the_limit() -> None:
    endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n"
    with pytest.raises(HttpError, match="more than 1,000 octets"):
        await ask(Reply(raw=endless), limit=1000)


async def test_an_answer_that_drips_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.wire.http.client._PATIENCE", 0.01)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=timedelta(seconds=60))
        with pytest.raises(HttpError, match=r"not complete within 0\.6 s"):
            await client.request("GET", doing="look")
        await client.close()


async def test_an_answer_over_a_thin_line_may_take_as_long_as_it_takes_if_a_kilobyte_comes_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailpoller.wire.http.client._PATIENCE", 0.01)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6000\r\n\r\n")
        for _ in range(40):
            writer.write(b"x" * 150)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    async with server:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=timedelta(seconds=60))
        answer = await client.request("GET", doing="look")  # two seconds, of which 0.6 would be allowed
        assert len(answer.body) == client.octets_in == 6000
        await client.close()


async def test_a_get_whose_connection_breaks_is_repeated_and_a_post_is_not() -> None:
    async with Web(script(Reply(body={}, cut=0), Reply(body={"ok": 1}))) as web:
        client = HttpClient(web.url)
        assert (await client.request("GET", doing="look")).object() == {"ok": 1}
        web.answering = script(Reply(body={}, cut=0), Reply(body={"ok": 1}))
        with pytest.raises(HttpCut):
            await client.request("POST", doing="send", json={})
        await client.close()


async def test_nobody_listening_is_a_passing_error() -> None:
    client = HttpClient("http://127.0.0.1:1")
    with pytest.raises(TransientError, match="Connection refused"):
        await client.request("GET", doing="look")


# --- errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Fri, 01 Jan 2027 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 31 Dec 2026 00:00:00 GMT"}, 0.0),
        ({"retry-after": "999999999"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_endless(headers: dict[str, str], wait: float | None) -> None:
    found = retry_after(headers, datetime(2027, 1, 1, tzinfo=UTC))
    assert (None if found is None else found.total_seconds()) == wait


async def test_a_busy_service_says_how_long_to_wait() -> None:
    with pytest.raises(HttpStatus) as caught:
        await ask(
            Reply(429, {"error": {"code": "TooManyRequests", "message": "slow down"}}, headers={"retry-after": "5"})
        )
    assert caught.value.retry_after == timedelta(seconds=5)
    assert (caught.value.status, caught.value.code, caught.value.words) == (429, "TooManyRequests", "slow down")
    assert str(caught.value) == "127.0.0.1: look: HTTP 429 TooManyRequests: slow down"


async def test_a_status_that_the_caller_takes_is_an_answer() -> None:
    answer = await ask(Reply(404, {"error": {"code": "ErrorItemNotFound"}}), takes=(404,))
    assert answer.status == 404  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b'{"error": "invalid_grant", "error_description": "expired"}', "invalid_grant", "expired"),
        (b'{"error": {"code": "X", "message": "why"}}', "X", "why"),
        (b'{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "why"}}', "PERMISSION_DENIED", "why"),
        (b'{"type": "about:blank", "title": "Nope", "detail": "why"}', "Nope", "why"),
        (b'{"error": 7, "message": ["a"]}', "", ""),
        (b"[]", "", ""),
        (b"<html>", "", ""),
        (b"", "", ""),
    ],
)
def test_code_and_words_of_an_error_are_found_in_every_usual_shape(body: bytes, code: str, words: str) -> None:
    assert error_of(body, "application/json") == (code, words)


def test_an_error_never_quotes_a_token_known_or_unknown() -> None:
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MCIsImV4cCI6MX0.c2lnbmF0dXJl"
    body = f'{{"error": "invalid_token", "error_description": "the token {TOKEN} or {jwt} is bad, or {"a1" * 40}."}}'
    code, words = error_of(body.encode(), "application/json", [TOKEN])
    assert code == "invalid_token"
    assert words == "the token ******** or ******** is bad, or ********"


ID = "AAMkAGI2" + "Tq_-" * 30 + "AAA="


@pytest.mark.parametrize(
    "words",
    [
        f"GET /users/support@example.com/messages/{ID}/$value was refused",
        f"The resource '/users/support%40example.com/messages/{ID.replace('=', '%3D')}' does not exist.",
        f"Id is malformed: {ID}.",
    ],
)
async def test_what_we_asked_for_is_shown_where_the_service_repeats_it(words: str) -> None:
    stranger = "QkFE" * 12
    body = {"error": {"code": "x", "message": f"{words} {stranger}"}}
    async with Web(script(Reply(400, body=body))) as web:
        client = HttpClient(web.url + "/v1.0")
        with pytest.raises(HttpStatus) as refused:
            path = f"/users/support%40example.com/messages/{ID.replace('=', '%3D')}/$value"
            await client.request("GET", path, doing="fetch", secrets=["none"])
        await client.close()
    assert refused.value.words == f"{words} ********"


def test_each_answer_of_a_batch_may_repeat_its_own_request() -> None:
    asked = [f"/users/a/messages/{one}{ID}" for one in "xy"]
    response = {"id": "1", "status": 404, "body": {"error": {"code": "c", "message": f"no y{ID}, no x{ID}"}}}
    _, answer = _answer(response, asked) or (0, None)
    assert answer is not None and answer.words == f"no y{ID}, no ********"


async def test_a_secret_is_hidden_in_what_we_asked_for_too() -> None:
    secret = "s3cr3t" * 8
    body = {"error": {"code": "x", "message": f"Cannot GET /key/{secret}/{ID} with {ID}x"}}
    async with Web(script(Reply(400, body=body))) as web:
        client = HttpClient(web.url)
        with pytest.raises(HttpStatus) as refused:
            await client.request("GET", f"/key/{secret}/{ID}", doing="fetch", secrets=[secret])
        await client.close()
    assert secret not in refused.value.words
    assert refused.value.words.endswith("with ********")


def test_a_short_secret_is_masked_without_eating_the_words() -> None:
    body = b'{"error": "invalid_grant", "error_description": "id d and dd, secret s3cr3t in-s3cr3t-x"}'
    assert error_of(body, "", ["d", "s3cr3t"]) == ("invalid_grant", "id ******** and dd, secret ******** in-********-x")


def test_a_trace_id_is_no_token() -> None:
    told = "Trace ID: 0d9f1b52-7c1e-4ad0-9d3c-5b8f3a2e1c00 Timestamp: 2026-11-02 09:00:00Z"
    assert error_of(f'{{"error": "x", "error_description": "{told}"}}'.encode())[1] == told


# --- tokens ----------------------------------------------------------------------------------------------------------
async def test_a_refused_token_is_replaced_once_and_then_a_human_is_told() -> None:
    refusal = Reply(401, {"error": {"code": "InvalidAuthenticationToken", "message": f"bad {TOKEN}-2"}})
    async with Web(script(refusal, Reply(body={"ok": 1}), refusal)) as web:
        tokens = Tokens(f"{TOKEN}-1", f"{TOKEN}-2")
        client = HttpClient(web.url, bearer=tokens)
        assert (await client.request("GET", doing="look")).object() == {"ok": 1}
        assert [asked.bearer for asked in web.asked] == [f"{TOKEN}-1", f"{TOKEN}-2"]
        with pytest.raises(Unauthorized, match="InvalidAuthenticationToken") as caught:
            await client.request("GET", doing="look")
        await client.close()
    assert isinstance(caught.value, CredentialsRefused)
    assert tokens.refusals == [f"{TOKEN}-1", f"{TOKEN}-2"]
    assert len(web.asked) == 3
    assert TOKEN not in str(caught.value) + repr(caught.value)


async def test_a_token_never_goes_to_another_host_whoever_asks_for_it() -> None:
    elsewhere: list[Asked] = []
    async with (
        Web(lambda asked: elsewhere.append(asked) or Reply()) as other,
        Web(script(Reply(302, headers={"location": other.url}))) as web,
    ):
        client = HttpClient(web.url, bearer=Tokens())
        with pytest.raises(HttpError, match="not followed"):
            await client.request("GET", doing="look")
        for link in (
            other.url,
            web.url.replace("http:", "https:"),
            f"http://user@127.0.0.1:{web.port}/",
            "//127.0.0.1:1/x",
            "file:///etc/passwd",
            f"{web.url}/a b",
            "https://[",
        ):
            if link.startswith("//"):  # below our own base, as every path is
                continue
            with pytest.raises(HttpError, match="leads elsewhere"):
                await client.request("GET", link, doing="look")
        await client.close()
    assert not elsewhere


async def test_no_token_and_no_secret_crosses_a_network_in_clear() -> None:
    client = HttpClient("http://service.example", bearer=Tokens())
    with pytest.raises(ConfigError, match="https"):
        await client.request("GET", doing="look")
    with pytest.raises(ConfigError, match="https"):
        await HttpClient("http://service.example").request("POST", doing="look", secrets=["s"])


# --- TLS -------------------------------------------------------------------------------------------------------------
def server_tls(directory: Path) -> ssl.SSLContext:
    certificate, key = self_signed()
    (directory / "cert.pem").write_bytes(certificate)
    (directory / "key.pem").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    return context


async def test_certificates_are_verified_or_pinned_before_a_token_is_sent(tmp_path: Path) -> None:
    async with Web(script(Reply(body={})), tls=server_tls(tmp_path)) as web:
        der = ssl.PEM_cert_to_DER_cert((tmp_path / "cert.pem").read_text())
        for policy in (TlsPolicy(ca_file=tmp_path / "cert.pem"), TlsPolicy(pin=sha256(der).hexdigest())):
            client = HttpClient(web.url, bearer=Tokens(), policy=policy)
            await client.request("GET", doing="look")
            await client.close()
        assert len(web.asked) == 2
        for policy, words in ((TlsPolicy(), "not trusted"), (TlsPolicy(pin="0" * 64), "not the pinned one")):
            client = HttpClient(web.url, bearer=Tokens(), policy=policy)
            with pytest.raises(TransientError, match=words):
                await client.request("GET", doing="look")
            await client.close()
        assert len(web.asked) == 2


async def test_the_shared_tls_context_is_left_as_it_is(tmp_path: Path) -> None:
    """Names for ALPN in the context that IMAP uses too would make strict mail servers refuse us."""
    async with Web(script(Reply(body={})), tls=server_tls(tmp_path)) as web:
        policy = TlsPolicy(ca_file=tmp_path / "cert.pem")
        context = policy.context()
        names: list[object] = []
        context.__class__ = type("Watched", (ssl.SSLContext,), {"set_alpn_protocols": lambda self,
        found: names.append(found)})  # fmt: skip
        client = HttpClient(web.url, policy=policy)
        await client.request("GET", doing="look")
        await client.close()
        context.__class__ = ssl.SSLContext
    assert not names


# --- downloads -------------------------------------------------------------------------------------------------------
async def test_a_download_goes_to_the_spool_bit_for_bit_and_stops_at_the_limit(tmp_path: Path) -> None:
    octets = bytes(range(256)) * 8000
    spool = Spool(tmp_path, threshold=1000)
    async with Web(script(Reply(body=octets))) as web:
        client = HttpClient(web.url)
        whole = spool.begin(len(octets))
        await client.download("/m/$value", whole, doing="fetch")
        held = whole.finish()
        assert bytes(held.view()) == octets and held.path is not None
        held.close()
        cut = spool.begin(70_000)
        await client.download("/m/$value", cut, doing="fetch")
        assert cut.overflowed
        part = cut.finish()
        assert bytes(part.view()) == octets[:70_000]
        part.close()
        web.answering = script(Reply(body=octets, cut=200_000))
        intake = spool.begin(len(octets))
        with pytest.raises(HttpCut):
            await client.download("/m/$value", intake, doing="fetch")
        intake.abort()
        await client.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("raw", "framed"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\noctets", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\noctets\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\noctets", False),
        (b"HTTP/1.0 200 OK\r\n\r\noctets", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\noctets", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\noctets\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\noctets", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\noctets\r\n0\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Length: 3\r\n\r\noctets", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Encoding: gzip\r\n\r\noctets", None),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Length: 6\r\n\r\noctets", None),
        (b"HTTP/1.1 203 Changed\r\nContent-Length: 6\r\n\r\noctets", None),
    ],
)
async def test_a_download_is_whole_only_with_a_proper_end(tmp_path: Path, raw: bytes, framed: bool | None) -> None:
    async with Web(script(Reply(raw=raw, cut=len(raw)))) as web:
        client = HttpClient(web.url)
        intake = Spool(tmp_path, threshold=1000).begin(100)
        if framed is None:
            with pytest.raises(HttpError):
                await client.download("/m/$value", intake, doing="fetch")
            intake.abort()
        else:
            assert await client.download("/m/$value", intake, doing="fetch") is framed
            held = intake.finish()
            assert bytes(held.view()) == b"octets"
            held.close()
        await client.close()


async def test_a_spool_that_takes_nothing_is_no_trouble_of_the_service(tmp_path: Path) -> None:
    spools = Spool(tmp_path / "missing", threshold=0)
    async with Web(script(Reply(body=b"octets"), Reply(body=b'{"raw": "QUJD"}'))) as web:
        client = HttpClient(web.url)
        for intake in (spools.begin(100), EncodedIntake(spools, 100)):
            with pytest.raises(IntakeTrouble, match="cannot spool a message: No such file"):
                await client.download("/m/$value", intake, doing="fetch")
            intake.abort()
        await client.close()
