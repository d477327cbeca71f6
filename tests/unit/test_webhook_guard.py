"""Where a webhook may lead to, and what is shown of where it leads."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hook import configured, queue_to
from pydantic import ValidationError

from mailpoller.core.delivery import Receipt
from mailpoller.core.errors import TransientError
from mailpoller.sinks.webhook import guard
from mailpoller.sinks.webhook.guard import Guard, effective, is_metadata, is_public
from mailpoller.sinks.webhook.presets import Login
from mailpoller.sinks.webhook.shapes import request_of
from mailpoller.testing.deliveries import make_delivery
from mailpoller.wire.names import Address
from servers.web import Reply, Web, script


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to; under ``asked`` the names that were asked for."""
    names: dict[str, list[str]] = {"asked": []}
    real = socket.getaddrinfo

    def found(host: str, port: object, *rest: Any, **more: Any) -> list[Any]:
        if host not in names:
            return real(host, port, *rest, **more)
        names["asked"].append(host)
        return [one for address in names[host] for one in real(address, None, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return names


PRIVATE = [
    "127.0.0.1", "127.8.9.10", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1",
    "fe80::1", "fc00::1", "fd12::1", "fec0::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255",
    "192.0.0.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "2001:db8::1", "64:ff9b:1::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a00:1::",
    "::127.0.0.1",
]  # fmt: skip
METADATA = ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "100.100.100.200"]


@pytest.mark.parametrize("address", [*PRIVATE, *METADATA])
def test_addresses_of_ours_are_not_public(address: str) -> None:
    assert not is_public(effective(ip_address(address)))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:8.8.8.8"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(effective(ip_address(address)))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "169.254.1.1", "::ffff:127.0.0.1", *METADATA])
async def test_a_name_that_resolves_to_an_address_of_ours_is_refused(
    resolver: dict[str, list[str]], tmp_path: Path, address: str
) -> None:
    resolver["hooks.example.com"] = [address]
    async with Web(script(Reply(204))) as web:
        queue = queue_to(f"http://hooks.example.com:{web.port}/", tmp_path, tls="none")
        for call in (queue.check(), queue.deliver([make_delivery(place="inside")])):
            with pytest.raises(TransientError, match=r"hooks\.example\.com resolves to .*allow_private"):
                await call
        await queue.close()
        assert web.connections == 0


async def test_such_a_name_is_taken_if_that_is_said(resolver: dict[str, list[str]], tmp_path: Path) -> None:
    resolver["hooks.example.com"] = ["127.0.0.1"]
    async with Web(script(Reply(204))) as web:
        url = f"http://hooks.example.com:{web.port}/"
        queue = queue_to(url, tmp_path, tls="none", allow_private=True)
        (answer,) = await queue.deliver([make_delivery(place="inside")])
        await queue.close()
        assert isinstance(answer, Receipt)
        assert web.asked[0].headers["host"] == f"hooks.example.com:{web.port}"


@pytest.mark.parametrize("address", METADATA)
async def test_metadata_is_never_reached_whatever_is_said(
    resolver: dict[str, list[str]], tmp_path: Path, address: str
) -> None:
    resolver["hooks.example.com"] = [address]
    queue = queue_to("https://hooks.example.com/", tmp_path, allow_private=True)
    with pytest.raises(TransientError, match="metadata"):
        await queue.check()
    written = f"[{address}]" if ":" in address else address
    with pytest.raises(ValidationError, match="metadata"):
        configured(f"http://{written}/latest", tls="none", allow_private=True)
    assert is_metadata(effective(ip_address(address)))


@pytest.mark.parametrize("host", ["metadata.google.internal", "metadata.google.internal.", "METADATA.google.internal"])
def test_metadata_is_known_by_its_name(host: str) -> None:
    with pytest.raises(ValidationError, match="metadata"):
        configured(f"http://{host}/", tls="none")


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver["hooks.example.com"] = ["127.0.0.1", "93.184.216.34", "10.0.0.1"]
    tried: list[str] = []

    async def connecting(addresses: Sequence[Address], place: str, *, seconds: float) -> socket.socket:
        tried.extend(str(one[2][0]) for one in addresses)
        raise TransientError("far away")

    monkeypatch.setattr(guard, "connect", connecting)
    with pytest.raises(TransientError, match="far away"):
        await Guard(allow_private=False).connect("hooks.example.com", 443, seconds=1)
    assert tried == ["93.184.216.34"]
    assert resolver["asked"] == ["hooks.example.com"], "it is asked once: a second answer might be another one"


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "localhost."])
async def test_a_number_that_resolvers_take_for_an_address_is_a_name(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValidationError, match="https"):
        configured(f"http://{host}/")
    async with Web(script(Reply(204))) as web:
        queue = queue_to(f"http://{host}:{web.port}/", tmp_path, tls="none")
        with pytest.raises(TransientError):
            await queue.check()
        assert web.connections == 0


async def test_localhost_is_the_operators_word_as_long_as_it_is_this_machine(
    resolver: dict[str, list[str]], tmp_path: Path
) -> None:
    async with Web(script(Reply(204))) as web:
        queue = queue_to(f"http://localhost:{web.port}/", tmp_path)
        await queue.check()
        resolver["localhost"] = ["10.0.0.1"]
        with pytest.raises(TransientError, match=r"resolves to 10\.0\.0\.1"):
            await queue.check()


TOKENS = {
    "type": "oauth2",
    "grant": "client_credentials",
    "token_url": "https://login.example.com/token",
    "client_id": "mailpoller",
    "client_secret": "x",
}

# --- the configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "http://hooks.example.com/"}, "https"),
        ({"url": "http://10.0.0.1/"}, "https"),
        ({"url": "https://hooks.example.com/", "tls": "none"}, "tls: none"),
        ({"url": "https://me:pass-word@hooks.example.com/"}, "username and password"),
        ({"url": "https://hooks.example.com/#x"}, "fragment"),
        ({"url": "https://hooks.example.com/a b"}, "spaces"),
        ({"url": "https://hooks.example.com:99999/"}, "port"),
        ({"url": "ftp://hooks.example.com/"}, "https"),
        ({"url": "https:///x"}, "HOST"),
        ({"url": "https://[::1/"}, "HOST"),
        ({"url": 7}, "text"),
        ({"preset": "rails"}, "password is missing"),
        ({"preset": "gitlab"}, "token is missing"),
        ({"preset": "rails", "password": "x", "mode": "raw"}, "shape"),
        ({"preset": "rails", "password": "x", "batch": 2}, "shape"),
        ({"batch": 2, "mode": "binary"}, "batches"),
        ({"password": "x", "username": "y", "token": "z"}, "exclude"),
        ({"password": "x"}, "together"),
        ({"username": "a:b", "password": "x"}, "colon"),
        ({"username": "a\nb", "password": "x"}, "ASCII"),
        ({"signing_secrets": ["a", "b", "c"]}, "at most 2"),
        ({"ca_file": "/x", "pin": "0" * 64}, "exclude"),
        ({"timeout": 0}, "100ms"),
        ({"auth": {**TOKENS, "scopes": []}, "token": "x"}, "excludes"),
        ({"auth": {**TOKENS, "token_url": None, "provider": "microsoft", "tenant": "x", "scopes": []}}, "say scopes"),
        ({"auth": {**TOKENS, "grant": "refresh_token", "refresh_token": "x"}}, "client_credentials"),
        ({"auth": TOKENS, "url": "http://hooks.example.com/", "tls": "none"}, "https:// only"),
    ],
)
def test_what_contradicts_itself_is_refused_and_no_secret_is_shown(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        configured(**{"url": "https://hooks.example.com/", **keys})
    assert "pass-word" not in str(caught.value)


def test_a_url_shows_no_query(tmp_path: Path) -> None:
    config = configured("https://hooks.example.com:8443/services/T0?key=s3cret&x=1")
    for shown in (str(config), repr(config), str(config.url), config.model_dump_json(), f"{config.url!r}"):
        assert "s3cret" not in shown
        assert "x=1" not in shown
    assert str(config.url) == "https://hooks.example.com:8443/services/T0?********"
    assert configured(str(config.url)).url.host == "hooks.example.com", "what is shown can be loaded"


def test_what_is_sent_is_not_shown() -> None:
    login = Login("ada", "pass-word", "t0ken", 1)
    request = request_of([make_delivery()], mode="structured", preset=None, batched=False, login=login, keys=[])
    assert "pass-word" not in repr(login) + repr(request)
    assert "t0ken" not in repr(login)
    assert "Hello." not in repr(request)


async def test_no_error_shows_what_a_url_hides(tmp_path: Path) -> None:
    said = Reply(404, {"message": "no route for /hook/0123456789abcdef0123?key=s3cret (key s3cret)"})
    async with Web(script(said, Reply(cut=0), Reply(raw=b"x\r\n\r\n"), Reply(pause=9))) as web:
        queue = queue_to(f"{web.url}/hook/0123456789abcdef0123?key=s3cret", tmp_path, timeout="500ms")
        for uid in range(4):
            with pytest.raises(TransientError) as caught:
                await queue.deliver([make_delivery(uid, place="inside")])
            whole = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
            assert "s3cret" not in whole
            assert "0123456789abcdef" not in whole
        await queue.close()


def test_a_proxy_takes_the_guard_away_and_check_says_so() -> None:
    proxy = {"type": "http", "host": "proxy.example.com", "port": 3128}
    (finding,) = configured("https://hooks.example.com/", proxy=proxy).findings()
    assert (finding.key, finding.severity) == ("proxy", "warning")
    assert "is not checked here" in finding.text
    assert list(configured("https://hooks.example.com/", proxy=proxy, allow_private=True).findings()) == []
    assert list(configured("https://hooks.example.com/").findings()) == []


def test_what_crosses_the_network_in_clear_is_said() -> None:
    (finding,) = configured("http://hooks.example.com/", tls="none", token="x").findings()
    assert finding.key == "tls"
    assert "logs in with" in finding.text
    assert list(configured("http://127.0.0.1:8080/", token="x").findings()) == []
