"""What `status` shows of a report: which of it, in which order, and that it fits."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from mailpoller.cli.output import age, cut
from mailpoller.cli.standing import Filter, outgoings_of, shown
from mailpoller.config import Config, load

NOW = datetime.now(UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "mailpoller.yaml").write_text(
        f"""
service: {{state_directory: {tmp_path}/state}}
queues:
  support: {{type: sqlite, path: {tmp_path}/support.db}}
  by-mail: {{type: smtp, outgoing: relay, to: ops@example.com}}
outgoing:
  relay: {{type: smtp, host: smtp.example.com, sender: daemon@example.com}}
  spare: {{type: smtp, host: smtp2.example.com, sender: spare@example.com}}
mailboxes:
  support: {{type: imap, host: imap.example.com, username: support, password: x, default_queue: support}}
  sales: {{type: imap, host: other.example.com, username: verkauf, password: x, default_queue: support,
    departments: [sales]}}
""",
        "utf-8",
    )
    return load(tmp_path / "mailpoller.yaml")


def box(name: str, state: str = "up", **more: Any) -> dict[str, Any]:
    polled = (NOW - timedelta(seconds=42)).isoformat()
    counts = {"claimed": 1, "deferred": 12_345, "settled": 9, "undisposed": 0}
    known = {"mailbox": name, "state": state, "reason": "", "last_poll_at": polled, "next_try_at": None}
    return known | {"ledger": counts} | more


def report(config: Config, *boxes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    queues = [{"queue": name, "state": "up", "reason": "", "concerns": {}} for name in config.queues]
    told = {"pid": 1, "line": "well", "level": "ok", "mailboxes": list(boxes), "queues": queues, "alarms": []}
    whole = told | {"stuck": []} | changes
    return whole | {"outgoings": outgoings_of(config, whole)}


def names(part: dict[str, Any]) -> list[str]:
    return [box["mailbox"] for box in part["mailboxes"]]


def test_worst_comes_first_and_failing_leaves_out_what_is_well(config: Config) -> None:
    whole = report(
        config,
        box("support"),
        box("sales", "retrying"),
        box("a", "not polled"),
        box("b", "behind"),
        box("c", "refused"),
    )
    assert names(Filter().of(whole, config)) == ["c", "b", "sales", "support", "a"]
    assert names(Filter(failing=True).of(whole, config)) == ["c", "b", "sales"]


@pytest.mark.parametrize(
    ("wanted", "mailboxes", "outgoings"),
    [
        (Filter(inbound=True), ["sales", "support"], []),
        (Filter(outbound=True), [], ["relay", "spare"]),
        (Filter(department="sales"), ["sales"], []),
        (Filter(host="imap.example.com"), ["support"], []),
        (Filter(host="smtp.example.com"), [], ["relay"]),
        (Filter(search="VERKAUF"), ["sales"], []),
        (Filter(search="spare@"), [], ["spare"]),
        (Filter(name="support"), ["support"], []),
    ],
)
def test_mailboxes_and_outgoings_are_filtered(
    config: Config, wanted: Filter, mailboxes: list[str], outgoings: list[str]
) -> None:
    part = wanted.of(report(config, box("support"), box("sales")), config)
    assert names(part) == mailboxes
    assert sorted(one["outgoing"] for one in part["outgoings"]) == outgoings


def test_an_outgoing_fails_with_the_queue_that_sends_by_it(config: Config) -> None:
    queues = [{"queue": "by-mail", "state": "down", "reason": "550 no", "concerns": {}}]
    relay, spare = report(config, queues=queues)["outgoings"]
    assert (relay["state"], relay["reason"], relay["used_by"]) == ("down", "by-mail: 550 no", ["queue by-mail"])
    assert (spare["state"], spare["used_by"]) == ("unused", [])
    dead = report(config)
    del dead["pid"]
    assert {one["state"] for one in outgoings_of(config, dead)} == {"no daemon"}


def test_a_name_that_nothing_has_is_refused(config: Config) -> None:
    with pytest.raises(typer.Exit):
        Filter(name="suport").require_known(config, report(config))
    Filter(name="by-mail").require_known(config, report(config))


def test_on_a_terminal_nothing_is_wider_than_it(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    long = box("a-mailbox-with-a-name-that-is-very-long-indeed", "refused", reason="bad password " * 20)
    alarm = {"key": f"mailbox-down:{long['mailbox']}", "summary": "s" * 200, "raised_at": NOW.isoformat()}
    stuck = {"mailbox": "support", "what": "fetch", "since": NOW.isoformat(), "mid": "m" * 36, "reason": "r" * 99}
    whole = report(config, long, box("support"), line="l" * 200, level="critical", alarms=[alarm], stuck=[stuck])
    shown(Filter().of(whole, config), None)
    drawn = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, drawn.splitlines())) <= 80
    assert "12,346" in drawn
    assert re.search(r"support +up +\d+ (s|min) ", drawn)
    assert "bad password" in drawn


def test_credentials_are_told_with_what_is_left(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    ends = [(NOW + timedelta(days=days)).isoformat() for days in (-3, 13, 200)]
    told = [{"credential": f"secret {number}", "ends_at": end} for number, end in enumerate(ends)]
    whole = report(config, credentials=told)
    shown(Filter().of(whole, config), None)
    drawn = capsys.readouterr().out
    assert "secret 0\tended\t3 d ago" in drawn
    assert re.search(r"secret 1\tgood\tin 1[23] d", drawn)
    assert [one["credential"] for one in Filter(failing=True).of(whole, config)["credentials"]] == [
        "secret 0", "secret 1"
    ]  # fmt: skip
    assert Filter(name="support").of(whole, config)["credentials"] == []


def test_ages_are_short_and_cut_words_show_it() -> None:
    ages = [age(NOW - timedelta(seconds=seconds), NOW) for seconds in (0, 42, 119, 120, 7200, 200_000, -5)]
    assert ages == ["0 s", "42 s", "119 s", "2 min", "2 h", "2 d", "0 s"]
    assert age(None, NOW) == "never"
    assert (cut("word", 4), cut("words", 4)) == ("word", "wor…")


def test_an_outgoing_that_sends_no_reply_says_why(config: Config) -> None:
    outbox = [
        {"identity": "spare", "state": "down", "reason": "no route"},
        {"identity": "former", "state": "held", "reason": "no outgoing is called so any more"},
    ]
    told = {one["outgoing"]: one for one in report(config, outbox=outbox)["outgoings"]}
    assert (told["spare"]["state"], told["spare"]["reason"]) == ("down", "replies: no route")
    assert (told["former"]["state"], told["former"]["used_by"]) == ("held", ["replies"])
    assert told["relay"]["state"] == "up"


def test_what_was_used_of_a_limited_host_is_told(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "host": "imap.gmail.com", "sessions": 12, "sessions_limit": 15, "logins_last_minute": 3, "logins_limit": 300,
        "commands": 4711, "commands_limit": 0, "commands_waited_s": 0.0,
    }  # fmt: skip
    whole = report(config, hosts=[told])
    shown(Filter().of(whole, config), None)
    assert "imap.gmail.com\tlimited\t12 of 15\t3 of 300\t4,711" in capsys.readouterr().out
    assert Filter(host="imap.example.com").of(whole, config)["hosts"] == []


def test_what_a_receipt_of_each_queue_is_worth_is_shown(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    known = [("support", "synced"), ("by-mail", "promised")]
    queues = [
        {"queue": name, "state": "up", "reason": "", "concerns": {}, "durability": {"finding": finding, "setting": "s"}}
        for name, finding in known
    ]
    shown(report(config, queues=queues), None)
    lines = capsys.readouterr().out.splitlines()
    assert all(any(name in line and finding in line for line in lines) for name, finding in known)
