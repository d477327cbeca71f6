"""``mailpoller run --dry-run`` against a real server: it tells what would be, and nothing is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from places import open_to_all
from scenarios.harness import Site
from servers.command import mailpoller, on_a_terminal
from servers.dovecot import Dovecot
from servers.smtp import relay_in_a_thread


def mail(subject: str, *fields: str) -> bytes:
    lines = ["From: ada@customer.example", f"Subject: {subject}", f"Message-ID: <{subject}@x>", *fields, "", "text", ""]
    return "\r\n".join(lines).encode()


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Iterator[Site]:
    """Mail for every verdict in one mailbox that moves what is settled."""
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user, rules=["invoices", "spam"], disposition={"move": "Processed"})
    site.settings["rules"] = [
        {"name": "invoices", "when": {"subject": {"contains": ["invoice"]}}, "then": {"topic": "billing",
        "tags": ["money"]}},
        {"name": "spam", "when": {"subject": {"contains": ["spam"]}}, "then": {"discard": True}},
    ]  # fmt: skip
    dovecot.deliver_all(
        user, [mail("hello"), mail("invoice"), mail("spam"), mail("away", "Auto-Submitted: auto-replied")]
    )
    yield site


def snapshot(directory: Path) -> dict[str, str]:
    """Every file below a directory by what is in it, but for SQLite's own index of its log."""
    return {
        str(path.relative_to(directory)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm") and not path.name.startswith("log-")
    }


def test_dry_run_tells_every_fate_and_changes_neither_server_nor_disk(site: Site, dovecot: Dovecot, user: str) -> None:
    config = str(site.config)
    before = snapshot(site.directory)
    said = mailpoller("run", "--dry-run", "--config", config, "--json")
    assert said.code == 0, said.err
    fates = {fate["uid"]: fate for fate in said.objects}
    assert [fates[uid]["kind"] for uid in "1234"] == ["delivered", "delivered", "discarded", "quarantined"]
    assert fates["1"]["queues"] == ["support"]
    assert (fates["2"]["topic"], fates["2"]["tags"], fates["2"]["rules"]) == ("billing", ["money"], ["invoices"])
    assert (fates["4"]["queues"], fates["4"]["reason"]) == (["quarantine"], "auto-reply")
    assert fates["1"]["disposition"] == {"move": "Processed"}
    assert {fate["folder"] for fate in fates.values()} == {"INBOX"}
    assert snapshot(site.directory) == before
    assert dovecot.flags(user) == {1: frozenset(), 2: frozenset(), 3: frozenset(), 4: frozenset()}
    assert dovecot.folders(user) == {"INBOX"}


def test_dry_run_foretells_what_the_real_run_then_does(site: Site, dovecot: Dovecot) -> None:
    config = str(site.config)
    foretold = {fate["mid"]: fate for fate in mailpoller("run", "--dry-run", "--config", config, "--json").objects}
    assert site.once() == 0
    for mid, fate in foretold.items():
        (story,) = mailpoller("trace", mid, "--config", config, "--json").json
        assert (story["outcome"], sorted(story["receipts"]), story["rules"], story["size"]) == (
            fate["kind"], sorted(fate["queues"]), fate["rules"], fate["size"],
        )  # fmt: skip
    assert mailpoller("run", "--dry-run", "--config", config, "--json").objects == []


def test_dry_run_speaks_to_people_in_sentences(site: Site) -> None:
    said = mailpoller("run", "--dry-run", "--config", str(site.config))
    lines = said.out.splitlines()
    assert len(lines) == 4
    assert any("→ support; topic billing; tags money; rules invoices; then move Processed" in line for line in lines)
    assert any("→ quarantine: auto-reply; then move Processed" in line for line in lines)
    assert any("→ nowhere: discarded" in line for line in lines)
    assert said.err == "4 to be fetched: 2 delivered, 1 discarded, 1 quarantined; nothing was changed\n"


def test_dry_run_works_beside_a_running_daemon_and_leaves_its_mail_to_it(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 2 and daemon.count("message.quarantined") == 1)
        said = mailpoller("run", "--dry-run", "--config", str(site.config), "--json")
        assert said.code == 0, said.err
        assert said.objects == []
        dovecot.deliver(user, mail("later"))
        daemon.until_said("message.delivered", uid="5")
        assert daemon.stop() == 0
        assert daemon.count("ledger.opened") == 1


def test_dry_run_shows_what_is_put_off_and_until_when_it_waits(site: Site, dovecot: Dovecot) -> None:
    site.settings["mailboxes"]["support"]["rules"] = []
    (site.directory / "queue").write_text("a file where the queue's directory should be")
    config = str(site.config)
    assert site.once() == 75
    fates = [
        fate
        for fate in mailpoller("run", "--dry-run", "--config", config, "--json").objects
        if fate["queues"] == ["support"]
    ]
    assert [fate["uid"] for fate in fates] == ["1", "2", "3"]
    assert all(fate["put_off_until"] and fate["put_off_for"] for fate in fates)
    said = mailpoller("run", "--dry-run", "--config", config)
    assert said.out.count("; not before ") == 3
    with sqlite3.connect(site.directory / "ledger.db") as ledger:
        assert ledger.execute("SELECT count(*) FROM message WHERE state = 'deferred'").fetchone() == (3,)


def test_dry_run_of_one_mailbox_leaves_the_others_alone(site: Site, dovecot: Dovecot, user: str) -> None:
    site.imap("other", dovecot.imap_port, f"{user}-other", default_queue="support")
    dovecot.deliver(f"{user}-other", mail("elsewhere"))
    said = mailpoller("run", "--dry-run", "--mailbox", "other", "--config", str(site.config), "--json")
    assert [(fate["mailbox"], fate["uid"]) for fate in said.objects] == [("other", "1")]


def test_dry_run_that_cannot_reach_a_mailbox_says_why_and_ends_with_75(site: Site) -> None:
    site.settings["mailboxes"]["support"]["password"] = "hunter2-wrong"
    said = mailpoller("run", "--dry-run", "--config", str(site.config))
    assert said.code == 75
    assert "mailbox.failed" in said.err
    assert "AUTHENTICATIONFAILED" in said.err
    assert "hunter2" not in said.err + said.out
    assert list(site.directory.glob("*.db")) == []


def test_dry_run_sends_no_mail_and_needs_no_secret_for_that(site: Site) -> None:
    with relay_in_a_thread() as relay:
        site.settings["outgoing"] = {
            "relay": {
                "type": "smtp", "host": "127.0.0.1", "port": relay.port, "tls": "none",
                "sender": "mailpoller@example.com",
                "username": "mailpoller", "password": "env:MAILPOLLER_TEST_NO_SUCH_VARIABLE",
            }
        }  # fmt: skip
        site.settings["quarantine"] = {"type": "smtp", "outgoing": "relay", "to": "quarantine@example.com"}
        site.settings["alerts"] = {"outgoing": "relay", "to": ["ops@example.com"]}
        said = mailpoller("run", "--dry-run", "--config", str(site.config), "--json")
        assert said.code == 0, said.err
        assert [fate["uid"] for fate in said.objects if fate["kind"] == "quarantined"] == ["4"]
        assert relay.connections == 0


def test_dry_run_leaves_a_maildir_as_it_is(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for name in ("new", "cur", "tmp"):
        (tmp_path / "mail" / name).mkdir(parents=True)
    (tmp_path / "mail" / "new" / "1.M1.host").write_bytes(mail("hello"))
    site.settings["mailboxes"]["drop"] = {"type": "maildir", "path": str(tmp_path / "mail"), "default_queue": "support"}
    config = str(site.config)
    before = snapshot(tmp_path)
    said = mailpoller("run", "--dry-run", "--config", config, "--json")
    assert [fate["kind"] for fate in said.objects] == ["delivered"], said.err
    assert snapshot(tmp_path) == before


def test_once_shows_its_progress_on_a_terminal_and_none_in_a_json_log(site: Site) -> None:
    shown = on_a_terminal("run", "--once", "--config", str(site.config), "--log-level", "error")
    assert shown.code == 0
    assert "1 mailbox: " in shown.out
    assert shown.out.rstrip("\r\n").endswith("\x1b[K"), "the line is gone in the end"
    shown = on_a_terminal("run", "--once", "--config", str(site.config), "--log-format", "json")
    assert " settled" not in shown.out
    assert "\x1b[K" not in shown.out


def test_once_exits_with_75_if_a_mailbox_could_not_be_drained(site: Site, dovecot: Dovecot) -> None:
    site.imap("broken", dovecot.imap_port, "somebody", password="wrong")
    assert site.once() == 75
    assert len(site.events()) == 2, "the other mailbox was drained"


def test_second_daemon_names_the_first_and_exits_with_75(site: Site) -> None:
    with site.run() as daemon:
        daemon.until_said("service.started")
        said = mailpoller("run", "--config", str(site.config))
        assert said.code == 75
        assert f"in use by process {daemon.process.pid} on " in said.err.splitlines()[-1]
        assert daemon.stop() == 0


def test_run_logs_what_is_configured_and_what_is_doubtful(site: Site, tmp_path: Path) -> None:
    open_to_all(tmp_path)
    with site.run("--once") as daemon:
        assert daemon.wait() == 0
        (configured,) = [line for line in daemon.log if line["event"] == "service.configured"]
        doubts = [line for line in daemon.log if line["event"] == "config.doubtful"]
    assert (configured["mailboxes"], configured["polled"], configured["queues"], configured["rules"]) == (1, 1, 1, 2)
    assert {doubt["path"] for doubt in doubts} >= {"mailboxes.support.password", "mailboxes.support.poll_interval"}
    assert all(doubt["file"] and doubt["line"] for doubt in doubts)


def test_it_touches_nothing_of_the_outbox_and_is_alarmed_by_nothing(
    tmp_path: Path, dovecot: Dovecot, user: str
) -> None:
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user, departments=["sales"])
    witness = tmp_path / "witness"
    witness.mkdir()
    site.settings["outbox"] = {"witness": str(witness)}
    site.settings["intakes"] = {"desk": {"type": "socket", "departments": ["sales"]}}
    dovecot.deliver(user, b"Subject: hello\r\n\r\ntext\r\n")
    before = mailpoller("run", "--dry-run", "--config", str(site.config))
    assert (before.code, list(witness.iterdir())) == (0, []), before
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 1)
        kept = {path.name: path.read_bytes() for path in witness.iterdir()}
        beside = mailpoller("run", "--dry-run", "--config", str(site.config))
        assert "alarm.raised" not in beside.err and "clock.doubted" not in beside.err, beside
        assert {path.name: path.read_bytes() for path in witness.iterdir()} == kept
