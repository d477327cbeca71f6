"""A fleet that is brought from one configuration to another while it runs."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml

from mailpoller.app import App, assemble
from mailpoller.assembly import reload as reload_module
from mailpoller.assembly.reload import NEWLY_INSTALLED
from mailpoller.assembly.reloaded import Reloaded
from mailpoller.config import load
from mailpoller.config.registry import Registry
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.errors import ConfigError, CredentialsRefused, TransientError
from mailpoller.core.literals import Secret
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.health import Condition
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_mailbox import FakeMailbox
from mailpoller.testing.fake_sink import FakeSink
from mailpoller.testing.fake_source import FakeSource
from mailpoller.testing.ledger_suite import outbox_mail
from waiting import until


class Box(SourceConfig):
    """A mailbox of a fake; what was built is known by its name."""

    type: Literal["box"]
    password: Secret = Secret("plain")
    lacks: str = ""
    opened: ClassVar[Counter[str]] = Counter()
    boxes: ClassVar[dict[str, FakeMailbox]] = {}
    refuse: ClassVar[set[str]] = set()

    def build(self, name: str, runtime: Runtime) -> Any:
        if self.lacks:
            raise ConfigError(f"needs {self.lacks}")
        box = Box.boxes.setdefault(name, FakeMailbox())
        return Counted(box, name=name)


class Counted(FakeSource):
    async def connect(self) -> Any:
        Box.opened[self.account.user or self.name] += 1
        if self.name in Box.refuse:
            raise CredentialsRefused("no")
        return await super().connect()


class Shelf(SinkConfig):
    """A queue of a fake."""

    type: Literal["shelf"]
    sinks: ClassVar[dict[str, FakeSink]] = {}

    def build(self, name: str, runtime: Runtime) -> Any:
        return Shelf.sinks.setdefault(name, FakeSink())


REGISTRY = Registry({("sources", "box"): Box, ("sinks", "shelf"): Shelf})


class Place:
    """A file and what runs with it. ``tree`` is the file's content as data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "mailpoller.yaml"
        self.tree: dict[str, Any] = {
            "service": {
                "state_directory": str(directory / "state"),
                "control_socket": str(directory / "s"),
                "workers": 0,
            },
            "queues": {"support": {"type": "shelf", "payload": "summary"}},
            "mailboxes": {},
        }
        self.app: App

    def box(self, name: str, **settings: Any) -> None:
        self.tree["mailboxes"][name] = {
            "type": "box", "start": "all", "default_queue": "support", "poll_interval": "1h", **settings
        }  # fmt: skip

    def load(self) -> Any:
        self.path.write_text(yaml.safe_dump(self.tree))
        return load(self.path, registry=REGISTRY)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with assemble(self.load(), load=self.load) as self.app:
            running = asyncio.create_task(self.app.run())
            try:
                await self.rested()
                yield
            finally:
                self.app.stop.set()
                await running

    async def rested(self) -> None:
        """Everybody has settled down."""
        mailboxes = self.app.health.mailboxes
        busy = (Condition.STARTING, Condition.QUEUING, Condition.CONNECTING, Condition.POLLING)
        await until(lambda: all(one.condition not in busy for one in mailboxes.values()), 60)

    async def reload(self, **how: Any) -> Reloaded:
        assert self.app.reloader is not None
        await until(lambda: self.app.reloader._group is not None)  # type: ignore[union-attr]
        report = await self.app.reloader._reload.run(**how)
        await self.rested()
        return report

    def subjects(self, queue: str) -> Counter[str]:
        return Counter(one.subject for one in Shelf.sinks[queue].held.values())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for known in (Box.opened, Box.boxes, Box.refuse, Shelf.sinks):
        known.clear()  # type: ignore[attr-defined]
    return Place(tmp_path)


async def test_of_a_thousand_mailboxes_the_one_that_changed_is_replaced_and_the_others_keep_their_sessions(
    place: Place,
) -> None:
    for number in range(1000):
        place.box(f"m{number}")
    async with place.running():
        assert set(Box.opened.values()) == {1}
        assert len(Box.opened) == 1000
        place.box("m500", keep="1d")
        report = await place.reload()
        assert (report.outcome, report.parts) == ("applied", ("mailbox m500",))
        assert {name for name, count in Box.opened.items() if count != 1} == {"m500"}
        assert Box.opened["m500"] == 2
        again = await place.reload()
        assert (again.outcome, again.parts, again.changes) == ("same", (), ())
        assert Box.opened.total() == 1001


async def test_a_rule_that_changed_concerns_those_who_name_it(place: Place) -> None:
    place.tree["rules"] = [{"name": "tag", "when": {"subject": "a"}, "then": {"tags": ["one"]}}]
    place.box("with", rules=["tag"])
    place.box("without")
    async with place.running():
        place.tree["rules"][0]["then"] = {"tags": ["two"]}
        report = await place.reload()
        assert report.parts == ("mailbox with",)
        assert Box.opened == {"with": 2, "without": 1}
        place.tree["rules"] += [
            {"name": "inner", "when": {"subject": "b"}, "then": {"tags": ["inner"]}},
            {"name": "outer", "when": {"rule": "inner"}, "then": {"tags": ["outer"]}},
        ]
        place.tree["rule_sets"] = {"all": {"rules": ["outer"]}}
        place.box("without", rule_sets=["all"])
        assert (await place.reload()).parts == ("mailbox without",)
        place.tree["rules"][1]["when"] = {"subject": "c"}
        assert (await place.reload()).parts == ("mailbox without",)


async def test_mailboxes_and_queues_come_and_go_and_take_another_name(place: Place) -> None:
    place.box("first")
    async with place.running():
        place.tree["queues"]["sales"] = {"type": "shelf", "payload": "summary"}
        place.box("second", default_queue="sales")
        Box.boxes["second"] = FakeMailbox()
        Box.boxes["second"].deliver(plain(subject="one"))
        assert (await place.reload()).outcome == "applied"
        await until(lambda: len(Shelf.sinks["sales"].held) == 1)
        place.tree["mailboxes"]["third"] = place.tree["mailboxes"].pop("second") | {"formerly": "second"}
        Box.boxes["third"] = Box.boxes["second"]
        renamed = await place.reload()
        assert renamed.outcome == "applied"
        assert set(place.app.fleet.parts) == {"first", "third"}
        assert len(Shelf.sinks["sales"].held) == 1, "the ledger knows it by the mailbox's earlier name"
        place.tree["mailboxes"]["third"]["enabled"] = False
        assert (await place.reload()).outcome == "applied"
        assert place.app.health.mailboxes["third"].condition is Condition.NOT_POLLED
        del place.tree["mailboxes"]["third"], place.tree["queues"]["sales"]
        assert (await place.reload()).outcome == "applied"
        assert set(place.app.health.mailboxes) == {"first"}
        assert set(place.app.fleet.queues) == {"support"}


async def test_what_is_in_use_or_owed_something_is_not_removed_by_a_slip(place: Place) -> None:
    place.tree["queues"]["sales"] = {"type": "shelf", "payload": "summary"}
    place.box("first")
    place.box("second", default_queue="sales")
    Box.boxes["second"] = FakeMailbox()
    Shelf.sinks["sales"] = FakeSink(doubt=lambda delivery: TransientError("closed"))
    Box.boxes["second"].deliver(plain(subject="owed"))
    async with place.running():
        await until(lambda: place.app.health.mailboxes["second"].deferred)
        place.box("second")
        assert (await place.reload()).outcome == "applied"
        del place.tree["queues"]["sales"], place.tree["mailboxes"]["first"]
        refused = await place.reload()
        assert refused.outcome == "refused"
        mailbox, queue = refused.refusals
        assert mailbox.startswith("the mailbox first is polled")
        assert queue.startswith("the queue sales is still owed 1")
        assert set(place.app.fleet.parts) == {"first", "second"}
        assert (await place.reload(remove=["first", "sales"])).outcome == "applied"
        await until(lambda: len(Shelf.sinks["support"].held) == 1)  # what was owed goes where it would go today


async def test_a_name_that_two_kinds_bear_allows_none_of_them_to_go(place: Place) -> None:
    place.tree["queues"]["first"] = dict(place.tree["queues"]["support"])
    place.box("first", default_queue="first")
    place.box("second", default_queue="first")
    async with place.running():
        del place.tree["queues"]["first"], place.tree["mailboxes"]["first"]
        place.box("second", default_queue="support")
        refused = await place.reload(remove=["first"])
        assert refused.outcome == "refused"
        assert refused.refusals[0].endswith("or say --remove mailbox:first")
        allowed = await place.reload(remove=["mailbox:first", "queue:first"])
        assert allowed.outcome == "applied", allowed.refusals


async def test_an_outgoing_that_is_to_send_something_yet_is_not_removed_by_a_slip(place: Place) -> None:
    relay = {"type": "smtp", "host": "127.0.0.1", "port": 9, "tls": "none", "sender": "a@example.com"}
    place.tree["outgoing"] = {"relay": relay, "other": relay | {"default": True}}
    place.box("support", outgoing="other")
    async with place.running():
        await place.app.ledger.outbox_accept(outbox_mail("a1", SystemClock()))  # type: ignore[arg-type]
        del place.tree["outgoing"]["relay"]
        refused = await place.reload()
        assert refused.refusals == (
            "the outgoing relay still has 1 in its outbox: let nobody send by it first, or say --remove relay",
        )
        assert (await place.reload(remove=["relay"])).outcome == "applied"
        assert set(place.app.fleet.outgoings) == {"other"}


async def test_other_limits_of_a_host_hold_at_once_and_no_mailbox_notices(place: Place) -> None:
    place.box("support")
    async with place.running():
        host = place.app.fleet.parts["support"].source.account.host
        shares = place.app.fleet.shares
        assert shares.hosts.report(shares.connections.by_host()) == []
        place.tree["hosts"] = {host: {"logins": 7, "connections": 3}}
        report = await place.reload()
        assert (report.outcome, report.restart) == ("applied", ())
        (told,) = shares.hosts.report(shares.connections.by_host())
        assert (told["host"], told["sessions"], told["sessions_limit"]) == (host, 1, 3)
        assert (told["logins_last_minute"], told["logins_limit"]) == (1, 7)
        del place.tree["hosts"]
        await place.reload()
        assert shares.hosts.report(shares.connections.by_host()) == []
        assert Box.opened == {"support": 1}


async def test_what_lacks_something_keeps_the_rest_from_nothing(place: Place) -> None:
    place.box("good")
    place.box("changed")
    async with place.running():
        place.box("new", lacks="a package")
        place.box("changed", lacks="another", keep="1d")
        place.box("secret", password="credential:secret")
        place.box("good", keep="1d")
        report = await place.reload()
        assert report.outcome == "applied"
        assert sorted(report.waiting) == ["mailbox changed: needs another", "mailbox new: needs a package"]
        assert any("credential:secret" in getattr(one, "message", "") for one in report.problems)
        mailboxes = place.app.health.mailboxes
        assert mailboxes["new"].condition is Condition.REFUSED
        assert mailboxes["secret"].condition is Condition.REFUSED
        assert mailboxes["changed"].condition is Condition.WAITING, "it goes on as it was"
        assert Box.opened == {"good": 2, "changed": 1}
        del place.tree["mailboxes"]["changed"]["lacks"]
        report = await place.reload()
        assert report.waiting == ("mailbox new: needs a package",)
        assert Box.opened["changed"] == 2


async def test_a_part_that_fails_in_the_middle_is_what_it_was_and_the_next_reload_tries_it_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.box("first")
    async with place.running():
        place.tree["queues"]["support"]["raw"] = True
        place.box("second")

        async def fail(name: str, block: Any) -> None:
            raise RuntimeError

        with monkeypatch.context() as broken:
            broken.setattr(place.app.fleet, "replace_queue", fail)
            report = await place.reload()
        assert report.outcome == "partly"
        assert report.failed == ("queue support: RuntimeError; the log has more",)
        assert report.parts == ("mailbox second",)
        report = await place.reload()
        assert (report.outcome, report.parts) == ("applied", ("queue support",))
        assert place.app.fleet.queues["support"].octets_wanted


async def test_a_mailbox_that_was_refused_is_asked_again_only_with_another_secret(place: Place) -> None:
    secret = place.directory / "secret"
    secret.write_text("one")
    place.box("support", password=f"file:{secret}")
    Box.refuse.add("support")
    async with place.running():
        await until(lambda: place.app.health.mailboxes["support"].condition is Condition.REFUSED)
        await place.reload()
        await asyncio.sleep(0.05)
        assert Box.opened["support"] == 1
        secret.write_text("two")
        await place.reload()
        await until(lambda: Box.opened["support"] == 2)


@pytest.mark.parametrize("failure", [ConfigError("broken"), OSError(24, os.strerror(24)), RuntimeError("a bug")])
async def test_whatever_keeps_the_file_from_being_read_changes_nothing(place: Place, failure: Exception) -> None:
    place.box("support")

    def fail() -> Any:
        raise failure

    async with place.running():
        assert place.app.reloader is not None
        place.app.reloader._reload._load = fail
        report = await place.reload()
        assert report.outcome == "bad"
        assert Box.opened == {"support": 1}


async def test_a_plug_in_that_was_installed_since_the_start_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.box("support")
    async with place.running():
        assert (await place.reload()).restart == ()
        monkeypatch.setattr(reload_module, "installed_now", lambda: frozenset({("sources new", "new", "1.0")}))
        assert (await place.reload()).restart == (NEWLY_INSTALLED,)


async def test_hang_ups_that_come_while_one_is_heeded_are_heeded_once(place: Place) -> None:
    place.box("support")
    reads: list[Callable[[], Any]] = []
    async with place.running():
        reloader = place.app.reloader
        assert reloader is not None
        await until(lambda: reloader._group is not None)
        real = reloader._reload._load
        reloader._reload._load = lambda: (reads.append(real), real())[1]
        for _ in range(5):
            reloader.hung_up()
        await until(lambda: len(reads) == 2)
        await asyncio.sleep(0.1)
        assert len(reads) == 2
        assert reloader.last is not None


async def test_bounds_and_notices_of_the_quarantine_are_taken_up_and_nobody_s_session_is_for_the_bounds(
    place: Place,
) -> None:
    place.tree["quarantine"] = {"keep": "30d", "notice": {"type": "shelf", "payload": "summary"}}
    place.box("one", auto_replies="quarantine")
    async with place.running():
        place.tree["quarantine"]["keep"] = "10d"
        report = await place.reload()
        assert (report.outcome, report.restart) == ("applied", ())
        assert [(change.part, [key.key for key in change.keys]) for change in report.changes] == [
            ("quarantine", ["keep"])
        ]
        store = place.app.fleet.store
        assert store is not None and store._keep == timedelta(days=10)  # type: ignore[attr-defined]
        assert Box.opened == {"one": 1}
        del place.tree["quarantine"]["notice"]
        await place.reload()
        assert place.app.fleet.told_of("one") is None
