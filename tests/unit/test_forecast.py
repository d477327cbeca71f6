"""What ends on a known date is told 30, 14 and 3 days before, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from clocks import START, SkippingClock
from mailpoller.app import assemble
from mailpoller.config import load
from mailpoller.core.ports import Expiring
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.forecast import PAUSE, Forecast
from mailpoller.testing.memory_ledger import MemoryLedger

NOW = START
SECRET = "the client secret of app at login.test"


class Part:
    """A source or outgoing that knows these dates."""

    def __init__(self, *ends: tuple[str, datetime]) -> None:
        self.ends: Sequence[tuple[str, datetime]] = ends

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        return self.ends


class Broken:
    def expiries(self) -> Sequence[tuple[str, datetime]]:
        raise RuntimeError("a bug")


class Site:
    def __init__(self, **parts: Expiring) -> None:
        self.clock = SkippingClock()
        self.ledger = MemoryLedger(self.clock)
        self.parts = parts
        self.restart()

    def restart(self) -> None:
        self.ledger = self.ledger.restarted()
        self.alarm = Alarm(self.ledger, None, [], self.clock)
        self.forecast = Forecast(self.parts, self.alarm, self.clock)

    async def day(self, number: float = 0) -> list[str]:
        """Look on that day: the alarms that stand after it."""
        self.clock.seconds = timedelta(days=number).total_seconds()
        await self.forecast.look()
        self.clock.seconds += 300
        await self.alarm.step()
        return [edge.key.removeprefix(f"{Kind.CREDENTIALS_EXPIRE.value}:") for edge in await self.ledger.alarms()]


def told(*days: int, what: str = SECRET) -> list[str]:
    return [f"{what} ({one} days)" for one in days]


async def test_each_of_the_three_dates_is_told_once_when_it_is_reached() -> None:
    site = Site(a=Part((SECRET, NOW + timedelta(days=31))))
    with capture_logs() as log:
        assert await site.day(0) == []
        assert await site.day(1) == told(30)
        assert await site.day(16) == told(30)
        assert sorted(await site.day(17)) == sorted(told(30, 14))
        assert sorted(await site.day(28)) == sorted(told(30, 14, 3))
        assert sorted(await site.day(40)) == sorted(told(30, 14, 3))
    raised = [entry["subject"] for entry in log if entry["event"] == "alarm.raised"]
    assert raised == told(30, 14, 3)


async def test_a_date_that_is_found_late_is_told_for_the_nearest_only() -> None:
    assert await Site(a=Part((SECRET, NOW + timedelta(days=10)))).day() == told(14)
    assert await Site(a=Part((SECRET, NOW - timedelta(days=1)))).day() == told(3)


async def test_the_reason_names_the_day_and_whether_it_has_passed() -> None:
    ahead, over = Site(a=Part((SECRET, NOW + timedelta(days=2)))), Site(a=Part((SECRET, NOW - timedelta(days=2))))
    await ahead.day()
    await over.day()
    assert [edge.summary for edge in await ahead.ledger.alarms()] == ["it ends on 2026-11-24"]
    assert [edge.summary for edge in await over.ledger.alarms()] == ["it ended on 2026-11-20"]


async def test_it_ends_when_the_date_has_moved_away() -> None:
    part = Part((SECRET, NOW + timedelta(days=31)))
    site = Site(a=part)
    for day in (1, 17):
        await site.day(day)
    part.ends = [(SECRET, NOW + timedelta(days=37))]  # twenty from then: 30 stands, 14 is over
    assert await site.day(17) == told(30)
    part.ends = [(SECRET, NOW + timedelta(days=400))]
    assert await site.day(17) == []


async def test_it_ends_when_nobody_has_the_credential_any_more() -> None:
    part = Part((SECRET, NOW + timedelta(days=2)))
    site = Site(a=part)
    assert await site.day(0) == told(3)
    part.ends = []
    assert await site.day(1) == []


async def test_a_restart_neither_tells_again_nor_ends_what_was_told() -> None:
    site = Site(a=Part((SECRET, NOW + timedelta(days=31))))
    for day in (1, 17):
        await site.day(day)
    site.restart()
    with capture_logs() as log:
        for day in range(17, 21):
            assert sorted(await site.day(day)) == sorted(told(30, 14))
    assert log == []


async def test_what_several_parts_share_is_told_once_and_its_earliest_date_counts() -> None:
    shared = Part((SECRET, NOW + timedelta(days=20)))
    site = Site(a=shared, b=shared, c=Part((SECRET, NOW + timedelta(days=10)), ("other", NOW + timedelta(days=2))))
    assert sorted(await site.day()) == sorted([*told(14), *told(3, what="other")])


async def test_a_part_that_raises_hides_no_other() -> None:
    site = Site(a=Broken(), b=Part((SECRET, NOW + timedelta(days=1))))
    with capture_logs() as log:
        assert await site.day() == told(3)
    assert [entry["part"] for entry in log if entry["event"] == "forecast.failed"] == ["a"]


async def test_it_looks_at_the_start_and_then_once_a_day_until_the_service_stops() -> None:
    site, stop, looks = Site(), asyncio.Event(), list[datetime]()

    class Counting(Part):
        def expiries(self) -> Sequence[tuple[str, datetime]]:
            looks.append(site.clock.now())
            return []

    site.parts["a"] = Counting()
    running = asyncio.create_task(site.forecast.run(stop))
    async with asyncio.timeout(60):
        while len(looks) < 4:
            await asyncio.sleep(0.001)
        stop.set()
        await running
    assert looks[:4] == [NOW, NOW + PAUSE, NOW + 2 * PAUSE, NOW + 3 * PAUSE]


async def test_a_service_that_runs_only_briefly_has_looked() -> None:
    site, stop = Site(a=Part((SECRET, NOW + timedelta(days=1)))), asyncio.Event()
    stop.set()
    await site.forecast.run(stop)
    assert len(await site.ledger.alarms()) == 1


async def test_the_service_looks_at_its_mailboxes_and_outgoings(tmp_path: Path) -> None:
    ends = f"{datetime.now(UTC) + timedelta(days=9):%Y-%m-%d}"
    auth = (
        "{{type: oauth2, token_url: 'https://login.test/token', grant: client_credentials, client_id: {}, "
        "client_secret: 'env:HOME', scopes: [mail], expires: '{}'}}"
    )
    file = tmp_path / "mailpoller.yaml"
    file.write_text(f"""
service: {{environment: production, state_directory: {tmp_path}, control_socket: {tmp_path}/control}}
ledger: {{type: sqlite, path: {tmp_path}/ledger.db}}
queues: {{support: {{type: sqlite, path: {tmp_path}/queue.db}}}}
outgoing:
  relay: {{type: smtp, host: localhost, sender: a@example.com, username: a, auth: {auth.format("sending", ends)}}}
mailboxes:
  one: {{type: imap, host: 127.0.0.1, port: 1, tls: none, username: a, auth: {auth.format("polling", ends)}}}
  two: {{type: imap, host: 127.0.0.1, port: 1, tls: none, username: b, auth: {auth.format("polling", ends)}}}
""")
    async with assemble(load(file)) as app:
        await app.drain()
        found = [edge.key for edge in await app.ledger.alarms() if edge.key.startswith("credentials-expire")]
    assert sorted(found) == [
        f"credentials-expire:the client secret of {whose} at login.test (14 days)" for whose in ("polling", "sending")
    ]


@pytest.mark.parametrize(
    "path",
    [
        "sources.imap.source:ImapSource",
        "sources.pop3.source:Pop3Source",
        "sources.ews.source:EwsSource",
        "sources.graph.source:GraphSource",
        "sources.gmail.source:GmailSource",
        "outgoings.smtp:SmtpOutgoing",
        "outgoings.graph:GraphOutgoing",
    ],
)
def test_whatever_logs_in_says_what_of_it_ends(path: str) -> None:
    module, _, name = path.partition(":")
    assert issubclass(getattr(import_module(f"mailpoller.{module}"), name), Expiring)
