"""A noisy day, and no secret in anything that is written, said or kept."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mailpoller.testing.builders import auto_reply
from scenarios.harness import Site
from scenarios.outage import command, fill, outgoing, said, stopped, until
from servers.dovecot import Dovecot
from servers.smtp import Relay

SECRETS = {
    "plain": "hunter2-Sentinel-plain",
    "quotes": 'Sen"ti\\nel\\\\-"quoted"',
    "foreign": "Sentinel-pässwörd-密码",
    "relay": "relay-Sentinel-{0}%s",
    "wrong": "Sentinel wrong word",
}


def forms(user: str, secret: str) -> Iterator[bytes]:
    """Every way in which a secret may travel or be printed."""
    raw = secret.encode()
    yield raw
    for encoded in (secret.replace("\\", "\\\\").replace('"', '\\"'), repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        yield encoded.encode()
    yield quote(secret, safe="").encode()
    for said_by_sasl in (raw, b"\0" + user.encode() + b"\0" + raw, user.encode() + b"\0" + user.encode() + b"\0" + raw):
        yield base64.b64encode(said_by_sasl).rstrip(b"=")[:-1]
        # Inside a longer base64 text it may begin at any of three places.
        for shift in (1, 2):
            yield base64.b64encode(b"\0" * shift + said_by_sasl)[4:-4]
    yield raw.hex().encode()


def asked(path: Path, request: dict[str, Any]) -> bytes:
    """The octets that the control socket answers."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(60)
        wire.connect(str(path))
        wire.sendall(json.dumps(request).encode() + b"\n")
        return wire.makefile("rb").readline()


@pytest.fixture
def noisy(site: Site, dovecot: Dovecot, user: str) -> Site:
    """Mailboxes that cannot log in for every reason there is, and one that can."""
    hold = site.directory / "secrets"
    hold.mkdir(mode=0o700)
    for name, secret in SECRETS.items():
        (hold / name).write_text(secret + "\n")
    port = dovecot.imap_port
    site.settings["service"]["log_level"] = "debug"
    for name, secret in SECRETS.items():
        for mechanism in ("plain", "login"):
            site.imap(
                f"{name}-{mechanism}",
                port,
                f"{user}-{name}",
                password=f"file:{hold / name}",
                auth={"type": "password", "mechanism": mechanism},
                poll_interval="200ms",
                reconnect_interval="100ms",
            )
        site.imap(f"{name}-inline", port, f"{user}-{name}", password=secret, reconnect_interval="100ms")
    site.imap("tls-nobody-trusts", dovecot.imaps_port, user, password=SECRETS["plain"], tls="tls")
    site.imap("tls-of-nobody", port, user, password=SECRETS["plain"], tls="tls", connect_timeout="1s")
    site.imap("nobody-there", 1, user, password=SECRETS["plain"], connect_timeout="1s")
    return site


async def test_no_secret_is_found_in_anything_that_a_noisy_day_leaves_behind(
    noisy: Site, dovecot: Dovecot, user: str
) -> None:
    site = noisy
    async with Relay(users={"mailpoller": "something else"}, login_in_clear=True) as relay:
        for name in ("relay", "quotes", "foreign"):
            login = {"username": "mailpoller", "password": f"file:{site.directory / 'secrets' / name}"}
            outgoing(site, name, relay.port, **login)
        site.settings["quarantine"] = {
            "type": "smtp", "outgoing": "relay", "to": "quarantine@example.com", "retry_interval": "100ms",
        }  # fmt: skip
        site.settings["alerts"] = {"outgoing": "quotes", "to": ["ops@example.com"]}
        expected = fill(dovecot, user, "message", 3)
        dovecot.deliver(user, auto_reply())
        heard: dict[str, bytes] = {}
        with site.run("--log-level", "debug", by="scenarios.clumsy") as daemon:
            await until(daemon, lambda: site.subjects() == expected)
            await said(daemon, "mailbox.refused", 8)
            await said(daemon, "queue.failed", 2)
            await said(daemon, "watcher.crashed", 2)
            await until(daemon, lambda: "alert." in daemon.said)
            await until(daemon, lambda: relay.logins)
            for verb in ("status", "clear-errors", "no-such-verb", "poll", "redeliver"):
                request = {"do": verb, "mailbox": "support", "mid": "x"}
                heard[f"socket {verb}"] = await asyncio.to_thread(asked, site.directory / "control.sock", request)
            for words in (["status"], ["status", "--json"], ["errors"], ["errors", "--json"], ["trace", "1"]):
                heard[" ".join(words)] = await output(site, *words)
            assert await stopped(daemon) == 0
            heard["log"] = daemon.log_path.read_bytes()
        for words in (
            ["check"], ["check", "--live"], ["check", "--json", "--live"], ["config"], ["config", "--json"], ["status"],
        ):  # fmt: skip
            heard[" ".join(words)] = await output(site, *words)
        site.settings["mailboxes"]["plain-login"]["pasword"] = SECRETS["plain"]
        site.settings["mailboxes"]["quotes-login"]["port"] = SECRETS["quotes"]
        site.settings["mailboxes"]["support"]["password"] = {"deeper": SECRETS["foreign"]}
        heard["check of a wrong file"] = await output(site, "check")
    for path in (
        *site.directory.glob("ledger.db*"),
        *site.directory.glob("queue/*"),
        *site.directory.glob("state/**/*"),
    ):
        if path.is_file():
            heard[f"file {path.name}"] = path.read_bytes()
    assert b"Traceback" in heard["log"] or b"exc_type" in heard["log"], "plug-ins crashed, and that was logged"
    assert len(heard["config"]) > 1000
    assert b"FAILED" in heard["check --live"]
    found = [
        (place, name, form)
        for place, octets in heard.items()
        for name, secret in SECRETS.items()
        for login in (f"{user}-{name}", "mailpoller", user)
        for form in forms(login, secret)
        if form in octets
    ]
    assert found == []
    marks = [b"Sentinel", "pässwörd".encode(), b"U2VudGluZW", b"NlbnRpbmVs", b"TZW50aW5lb"]
    assert [(place, mark) for place, octets in heard.items() for mark in marks if mark in octets] == []


async def output(site: Site, *words: str) -> bytes:
    """Everything that a command says."""
    done = await command(site, *words)
    return (done.stdout + done.stderr).encode()


async def test_the_search_for_secrets_finds_them_in_every_form() -> None:
    for secret in SECRETS.values():
        for form in forms("user", secret):
            assert form in b"xx" + form + b"yy"
        wire = base64.b64encode(b"\0user\0" + secret.encode())
        assert any(form in b"AUTHENTICATE PLAIN " + wire for form in forms("user", secret))
        json_line = json.dumps({"reason": f"the server says: {secret}"}).encode()
        assert any(form in json_line for form in forms("user", secret))
