"""What the mailboxes of a host ask it for, all together: sessions at once, logins a minute, commands a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulated_time import SimulatedClock, SimulatedLoop

from mailpoller.assembly.plans import host_limits
from mailpoller.config import ConfigErrors, load
from mailpoller.core.host_limit import HostLimit
from mailpoller.core.pacing import Pacer
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.connections import Connections
from mailpoller.engine.host_limits import HostLimits
from mailpoller.sources.imap.source import ImapSource
from mailpoller.sources.pop3.source import Pop3Source
from mailpoller.wire.turnstile import Turnstile
from servers.mailboxes import claims_of, fetched, imap_source, listed, session_of
from servers.pop3_mailboxes import pop3_source
from servers.scripted import ScriptedImap
from servers.scripted_pop3 import ScriptedPop3

GMAIL = "imap.gmail.com"


def simulated(work: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work())


def test_logins_of_a_host_are_spread_and_no_minute_has_more_than_are_allowed() -> None:
    async def work() -> list[float]:
        clock = SimulatedClock()
        hosts = HostLimits(clock)
        hosts.set({"a": HostLimit(logins=12)})
        connections = Connections(clock, hosts=hosts)
        began: list[float] = []

        async def log_in(host: str) -> None:
            with await connections.take("box", host, 0.0):
                began.append(clock.monotonic())

        await asyncio.gather(*(log_in("a") for _ in range(40)))
        assert hosts.report(connections.by_host())[0]["logins_last_minute"] <= 13
        return began

    began = simulated(work)
    assert len(began) == 40
    assert began[-1] > 120
    for at in began:
        assert sum(at <= other < at + 60 for other in began) <= 12 + 2  # a burst of ten seconds' worth


def test_who_waits_for_a_login_at_one_host_is_in_nobodys_way_and_makes_nobody_log_out() -> None:
    async def work() -> None:
        clock = SimulatedClock()
        hosts = HostLimits(clock)
        hosts.set({"slow": HostLimit(logins=1)})
        connections = Connections(clock, limit=2, hosts=hosts)
        with await connections.take("first", "slow", 0.0):
            pass
        idle = await connections.take("idle", "other", 0.0)
        asked: list[str] = []
        idle.idle(lambda: asked.append("idle"))
        early = [asyncio.ensure_future(connections.take(f"early {number}", "slow", 0.0)) for number in range(2)]
        await asyncio.sleep(1)
        with await connections.take("other", "other", 0.0):
            assert clock.monotonic() == 1.0
        assert asked == []
        with await early[0]:
            assert clock.monotonic() == pytest.approx(60.0)
        early[1].cancel()

    simulated(work)


def test_a_host_has_its_own_number_of_sessions_and_another_from_a_reload_on() -> None:
    async def work() -> None:
        clock = SimulatedClock()
        hosts = HostLimits(clock, usual=1)
        hosts.set({"a": HostLimit(connections=2), "free": HostLimit()})
        connections = Connections(clock, hosts=hosts)
        wishes = [asyncio.ensure_future(connections.take(str(n), host, 0.0)) for n, host in enumerate("aaabb")]
        free = [asyncio.ensure_future(connections.take(str(n), "free", 0.0)) for n in range(9)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [wish.done() for wish in wishes] == [True, True, False, True, False]
        assert all(wish.done() for wish in free)
        hosts.set({"a": HostLimit(connections=3)})
        connections.balance()
        assert [wish.done() for wish in wishes] == [True, True, False, True, False]
        await asyncio.sleep(0)
        assert [wish.done() for wish in wishes] == [True, True, True, True, False]
        wishes[4].cancel()

    simulated(work)


def test_commands_of_two_connections_share_a_rate_and_keep_their_order() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        pacer = Pacer(2, 2)
        sent: list[tuple[str, int, float]] = []

        class Line:
            def __init__(self, name: str) -> None:
                self.name, self.left = name, list(range(4))
                self.turnstile = Turnstile(loop, self.send)
                self.turnstile.pacer = pacer

            def send(self) -> None:
                while self.left and self.turnstile.opens():
                    sent.append((self.name, self.left.pop(0), loop.time()))

        lines = [Line("a"), Line("b")]
        for line in lines:
            line.send()
            line.send()
        await asyncio.sleep(10)
        assert [number for name, number, _ in sent if name == "a"] == [0, 1, 2, 3]
        assert [number for name, number, _ in sent if name == "b"] == [0, 1, 2, 3]
        assert max(at for _, _, at in sent) == pytest.approx(3.0)
        assert pacer.taken == 8
        pacer.limit(0)
        assert pacer.take(loop.time()) == 0.0

    simulated(work)


async def test_an_imap_session_sends_its_commands_no_faster_than_its_host_allows(tmp_path: Path) -> None:
    pacer = Pacer(100, 1)
    mail = {uid: b"Subject: %d\r\n\r\n" % uid for uid in range(1, 4)}
    async with ScriptedImap(messages=mail) as server:
        source = imap_source(tmp_path, server.port, "joe")
        assert isinstance(source, ImapSource)
        source._runtime = replace(source._runtime, pacer=lambda _: pacer)
        clock = SystemClock()
        async with session_of(source) as session:
            began = clock.monotonic()
            refs, _ = await listed(session, await session.open("INBOX"))
            assert len(await fetched(session, claims_of(refs), 1000)) == 3
            took = clock.monotonic() - began
    assert pacer.taken >= 3
    assert took >= (pacer.taken - 1) / 100 * 0.9


async def test_a_pop3_session_sends_its_commands_no_faster_than_its_host_allows(tmp_path: Path) -> None:
    pacer = Pacer(100, 1)
    messages = [(f"u{number}", b"Subject: %d\r\n\r\nhello\r\n" % number) for number in range(10)]
    async with ScriptedPop3(mails=messages) as server:
        source = pop3_source(tmp_path, server.port, "joe")
        assert isinstance(source, Pop3Source)
        source._runtime = replace(source._runtime, pacer=lambda _: pacer)
        clock = SystemClock()
        async with session_of(source) as session:
            began = clock.monotonic()
            refs, _ = await listed(session, await session.open("INBOX"))
            assert len(await fetched(session, claims_of(refs), 1000)) == 10
            took = clock.monotonic() - began
    assert pacer.taken >= 10
    assert took >= (pacer.taken - 1) / 100 * 0.9


BOX = "{{type: imap, host: {}, username: u, password: p, default_queue: q}}"


def test_what_is_written_overrules_a_preset_key_by_key_and_zero_is_no_limit(tmp_path: Path) -> None:
    def limits(**hosts: dict[str, int]) -> dict[str, HostLimit]:
        path = tmp_path / "mailpoller.yaml"
        path.write_text(
            f"hosts: {json.dumps({name.replace('_', '.'): limit for name, limit in hosts.items()})}\n"
            f"service: {{max_connections_per_host: 9}}\nqueues: {{q: {{type: jsonl, path: {tmp_path}/q}}}}\n"
            f"mailboxes:\n  a: {BOX.format('IMAP.gmail.com')}\n  b: {BOX.format('imap.163.com')}\n"
            f"  c: {BOX.format('imap.example.com')}\n"
        )
        return host_limits(load(path))

    assert limits() == {GMAIL: HostLimit(9, 300, 0), "imap.163.com": HostLimit(9, 20, 20)}
    assert limits(imap_gmail_com={"connections": 5})[GMAIL] == HostLimit(5, 300, 0)
    assert limits(imap_gmail_com={"logins": 0, "connections": 0})[GMAIL] == HostLimit()
    assert limits(imap_example_com={"logins": 7})["imap.example.com"] == HostLimit(9, 7, 0)


def test_a_host_is_limited_at_an_unusual_port_too(tmp_path: Path) -> None:
    path = tmp_path / "mailpoller.yaml"
    path.write_text(
        f"hosts: {{mail.example.com: {{commands: 5}}}}\nqueues: {{q: {{type: jsonl, path: {tmp_path}/q}}}}\n"
        f"mailboxes:\n  a: {BOX.format('mail.example.com, port: 10993')}\n"
    )
    config = load(path)
    account = config.mailboxes["a"].polled_account()
    assert account is not None
    assert host_limits(config)[account.host].commands == 5


@pytest.mark.parametrize("kind", ["imap", "pop3", "ews", "graph", "gmail", "maildir"])
def test_a_disabled_mailbox_that_lacks_its_host_keeps_nobody_from_starting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mailpoller.yaml"
    path.write_text(
        f"queues: {{q: {{type: jsonl, path: {tmp_path}/q}}}}\n"
        f"mailboxes:\n  template: {{type: {kind}, enabled: false}}\n  b: {BOX.format('imap.163.com')}\n"
    )
    assert list(host_limits(load(path))) == ["imap.163.com"]


@pytest.mark.parametrize("name", ["imap.example.com", "graph.microsoft.com", "10.0.0.1", "::1", "localhost"])
def test_a_host_is_named_as_it_is_spelt_in_its_mailboxes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "mailpoller.yaml"
    path.write_text(f"hosts:\n  '{name}': {{logins: 3}}\n")
    assert load(path).made["hosts"][name].logins == 3
    path.write_text(f"hosts:\n  '{name.upper()} x': {{logins: 3}}\n")
    with pytest.raises(ConfigErrors, match="small letters"):
        load(path)
