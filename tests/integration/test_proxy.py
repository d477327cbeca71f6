"""Every transport through real proxies: HTTP CONNECT and SOCKS5."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Mail
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.wire.http import HttpClient
from mailpoller.wire.probe import WebApproach, stages
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import TlsPolicy
from servers.dovecot import Dovecot
from servers.forward import PASSWORD, forward_proxy
from servers.mailboxes import imap_source, runtime, session_of
from servers.smtp import Relay
from servers.web import Reply, Web, script


@pytest.fixture(scope="module", params=["http", "socks5"])
def proxy(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with forward_proxy(request.param) as settings:
        yield settings


async def test_a_mailbox_is_polled_through_a_proxy_with_tls_to_the_server_itself(
    dovecot: Dovecot, user: str, tmp_path: Path, proxy: dict[str, Any]
) -> None:
    # The proxy looks the name up, and the certificate is checked against it.
    settings = {"proxy": proxy, "host": "localhost", "tls": "tls", "ca_file": dovecot.ca_file}
    source = imap_source(tmp_path, dovecot.imaps_port, user, **settings)
    async with session_of(source) as session:
        assert await session.folders() == ["INBOX"]
    stages = {stage.name: stage async for stage in source.probe([])}
    assert all(stage.ok for stage in stages.values())
    assert "by way of" in stages["tcp"].detail and "asked at the proxy" in stages["dns"].detail


async def test_mail_is_sent_through_a_proxy(tmp_path: Path, proxy: dict[str, Any]) -> None:
    async with Relay() as relay:
        config = SmtpConfig.model_validate(
            {"type": "smtp", "host": "127.0.0.1", "port": relay.port, "tls": "none", "sender": "m@example.com",
            "proxy": proxy}
        )  # fmt: skip
        outgoing = config.build("relay", runtime(tmp_path))
        await outgoing.send(Mail("m@example.com", ("ops@example.com",), b"Subject: x\r\n\r\ny\r\n"))
        await outgoing.close()
        assert len(relay.received) == 1


async def test_web_services_are_asked_through_a_proxy(proxy: dict[str, Any]) -> None:
    async with Web(script(Reply(body={"ok": 1}))) as web:
        client = HttpClient(web.url, proxy=Proxy.model_validate(proxy))
        assert (await client.request("GET", doing="look")).object() == {"ok": 1}
        await client.close()


async def test_a_probe_of_a_web_service_goes_through_a_proxy_to_tls(dovecot: Dovecot, proxy: dict[str, Any]) -> None:
    # Any server that begins TLS at once will do: nothing is said behind it.
    url, policy = f"https://localhost:{dovecot.imaps_port}/", TlsPolicy(ca_file=Path(dovecot.ca_file))
    approach = WebApproach(url, policy, Proxy.model_validate(proxy), timedelta(seconds=5), named="url")
    found = [one async for one in stages(approach.steps(), approach.advice, approach.close)]
    assert [(one.name, one.ok) for one in found] == [("dns", True), ("tcp", True), ("tls", True)]
    assert "asked at the proxy" in found[0].detail and "by way of" in found[1].detail and "TLSv1" in found[2].detail


async def test_a_proxy_that_refuses_is_a_passing_error_without_its_password(
    dovecot: Dovecot, user: str, tmp_path: Path, proxy: dict[str, Any]
) -> None:
    troubles = {
        "a wrong password": ({**proxy, "password": "wrong-" + PASSWORD}, dovecot.imap_port),
        "a target where nobody listens": (proxy, 1),
        "no proxy at all": ({**proxy, "port": 1}, dovecot.imap_port),
    }
    for trouble, (settings, port) in troubles.items():
        with pytest.raises(TransientError, match="proxy") as caught:
            await imap_source(tmp_path, port, user, proxy=settings).connect()
        assert PASSWORD not in repr(caught.value) + repr(caught.value.__context__), trouble


async def test_a_proxy_that_says_nothing_is_given_up(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    async with Web(script(Reply(pause=60))) as silent:
        for kind in ("http", "socks5"):
            settings = {"type": kind, "host": "127.0.0.1", "port": silent.port}
            source = imap_source(tmp_path, dovecot.imap_port, user, proxy=settings, connect_timeout="300ms")
            with pytest.raises(TransientError, match="within"):
                await source.connect()


def test_a_proxy_never_shows_its_password() -> None:
    block = Proxy.model_validate({"type": "http", "host": "h", "port": 1, "username": "u", "password": PASSWORD})
    assert PASSWORD not in repr(block) + block.place
