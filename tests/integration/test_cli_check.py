"""``mailpoller check --live`` against real servers: what fails, at which stage, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scenarios.harness import Site
from servers.command import Said, mailpoller, on_a_terminal
from servers.dovecot import Dovecot
from servers.ports import free_port
from servers.smtp import Relay, make_certificate, relay_in_a_thread

SECRET = "hunter2-never-shown"
MAIL = b"From: ada@customer.example\r\nSubject: hello\r\n\r\ntext\r\n"


@pytest.fixture(scope="module")
def relay() -> Iterator[Relay]:
    with relay_in_a_thread(users={"mailpoller": "right"}, login_in_clear=True) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def check(site: Site, *words: str) -> Said:
    return mailpoller("check", "--live", "--config", str(site.config), *words)


def stages(said: Said, part: str) -> dict[str, dict[str, Any]]:
    """The stages of one part by name, in order."""
    return {row["stage"]: row for row in said.json["stages"] if row["part"] == part}


def test_check_goes_through_every_stage_of_all_that_works(
    site: Site, dovecot: Dovecot, user: str, relay: Relay
) -> None:
    dovecot.deliver(user, MAIL)
    dovecot.create(user, "Processed")
    site.imap(
        "support", dovecot.imaps_port, user, tls="tls", ca_file=str(dovecot.ca_file), disposition={"move": "Processed"}
    )
    site.settings["outgoing"] = {"relay": outgoing(relay, "right")}
    said = check(site, "--json")
    assert said.code == 0, said.out
    assert said.json["ok"] is True
    assert list(stages(said, "mailbox support")) == [
        "dns", "tcp", "tls", "greeting", "login", "folder", "message", "disposition",
    ]  # fmt: skip
    assert stages(said, "mailbox support")["disposition"]["detail"] == "Processed exists"
    assert list(stages(said, "outgoing relay"))[-1] == "login"
    assert list(stages(said, "queue support")) == ["check"]
    assert all(row["ok"] and not row["advice"] and row["elapsed_ms"] >= 0 for row in said.json["stages"])
    assert dovecot.flags(user) == {1: frozenset()}
    assert list(site.directory.iterdir()) == [site.config], "no file, no directory, no token, no queue"


def outgoing(relay: Relay, password: str) -> dict[str, Any]:
    return {
        "type": "smtp", "host": "127.0.0.1", "port": relay.port, "tls": "none", "sender": "mailpoller@example.com",
        "username": "mailpoller", "password": password,
    }  # fmt: skip


def test_check_tells_for_each_fault_the_stage_and_what_to_do(
    site: Site, dovecot: Dovecot, user: str, relay: Relay, tmp_path: Path
) -> None:
    dovecot.deliver(user, MAIL)
    (tmp_path / "file").write_text("not a directory")
    plain, secure = dovecot.imap_port, dovecot.imaps_port
    site.imap("password", plain, user, password=SECRET)
    site.imap("port", free_port(), user)
    site.imap("untrusted", secure, user, tls="tls")
    site.imap("another-ca", secure, user, tls="tls", ca_file=str(make_certificate(tmp_path).path))
    site.imap("tls-too-early", plain, user, tls="tls")
    site.imap("tls-missing", secure, user, connect_timeout="500ms")
    site.imap("folder", plain, user, folders=["INBOX", "Nowhere"])
    site.imap("host", plain, user, host="nowhere.invalid")
    site.settings["queues"]["unwritable"] = {"type": "sqlite", "path": str(tmp_path / "file" / "queue.db")}
    site.settings["outgoing"] = {"relay": outgoing(relay, SECRET)}
    said = check(site, "--json")
    assert said.code == 69
    assert said.json["ok"] is False
    failed = {row["part"]: row for row in said.json["stages"] if not row["ok"]}
    found = {part: (row["stage"], row["advice"]) for part, row in failed.items()}
    expected = {
        "mailbox password": ("login", "Check username"),
        "mailbox port": ("tcp", "Check host, port and firewall"),
        "mailbox untrusted": ("tls", "name it with ca_file"),
        "mailbox another-ca": ("tls", "name it with ca_file"),
        "mailbox tls-too-early": ("tls", "starttls-required"),
        "mailbox tls-missing": ("greeting", "set tls: tls"),
        "mailbox folder": ("folder", "Correct folders"),
        "mailbox host": ("dns", "getent hosts nowhere.invalid"),
        "queue unwritable": ("check", "path"),
        "outgoing relay": ("login", "Check username and password"),
    }
    assert found.keys() == expected.keys()
    for part, (stage, advice) in expected.items():
        assert found[part][0] == stage, part
        assert advice in found[part][1], part
    assert "AUTHENTICATIONFAILED" in failed["mailbox password"]["detail"], "the server's own words"
    assert SECRET not in said.out + said.err


def test_check_sends_a_test_mail_through_each_outgoing_that_answers_and_only_when_asked(site: Site) -> None:
    with (
        relay_in_a_thread(users={"mailpoller": "right"}, login_in_clear=True) as good,
        relay_in_a_thread(
            users={"mailpoller": "right"}, login_in_clear=True, refuse={"RCPT": "550 5.7.1 not for you"}
        ) as choosy,
        relay_in_a_thread(users={"mailpoller": "right"}, login_in_clear=True) as closed,
    ):
        site.settings["outgoing"] = {
            "good": outgoing(good, "right"),
            "choosy": outgoing(choosy, "right"),
            "closed": outgoing(closed, SECRET),
        }
        assert check(site).code == 69
        assert good.received == [], "nobody asked for a mail"
        said = check(site, "--send-to", "ops@example.com", "--json")
    assert said.code == 69
    (mail,) = good.received
    assert (mail.sender, mail.recipients) == ("<>", ("ops@example.com",))
    assert b"Subject: [mailpoller] test mail" in mail.octets
    assert stages(said, "outgoing good")["mail"]["ok"]
    assert list(stages(said, "outgoing closed"))[-1] == "login", "no mail where the login failed"
    assert closed.received == []
    refused = stages(said, "outgoing choosy")["mail"]
    assert not refused["ok"]
    assert "5.7.1 not for you" in refused["detail"]
    assert "null_sender" in refused["advice"]


def test_check_tests_a_mailbox_both_ways_through_its_outgoing_in_its_charset(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    dovecot.deliver(user, MAIL)
    with relay_in_a_thread() as relay, relay_in_a_thread() as other:
        plain = {"type": "smtp", "host": "127.0.0.1", "tls": "none", "sender": "system@example.com"}
        site.settings["outgoing"] = {
            "tokyo": {**plain, "port": relay.port, "from": "tokyo@example.com", "display_name": "東京"},
            "other": {**plain, "port": other.port, "environment": "staging"},
        }
        site.imap("tokyo", dovecot.imap_port, user, outgoing="tokyo", charset="japanese")
        site.imap("copied", dovecot.imap_port, user, outgoing="other")
        site.imap("mute", dovecot.imap_port, user)
        words = ("check", "--live", "--json", "--config", str(site.config), "--send-to", "ops@example.com", "--mailbox")
        said, held, none = (mailpoller(*words, name) for name in ("tokyo", "copied", "mute"))
    assert said.code == 0, said.out
    assert stages(said, "mailbox tokyo")["login"]["ok"] and stages(said, "outgoing")["mail"]["ok"]
    (mail,) = relay.received
    assert (mail.sender, mail.recipients) == ("tokyo@example.com", ("ops@example.com",))
    assert b"charset=iso-2022-jp" in mail.octets.lower() and b"=?iso-2022-jp?" in mail.octets.lower()
    assert b"Auto-Submitted: auto-generated" in mail.octets
    assert (held.code, none.code, other.received) == (69, 69, [])
    assert "no outgoing" in stages(none, "outgoing")["mail"]["detail"]


@pytest.mark.parametrize(
    "words",
    [
        ("--send-to", "a@example.com"), ("--live", "--send-to", "nobody"),
        ("--live", "--send-to", "a@example.com,b@example.com"),
    ],
)  # fmt: skip
def test_check_takes_one_address_to_send_to_and_only_where_it_makes_sense(words: tuple[str, ...], site: Site) -> None:
    assert mailpoller("check", *words, "--config", str(site.config)).code == 64


def test_check_names_a_move_target_that_will_be_created_and_creates_nothing(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    dovecot.deliver(user, MAIL)
    site.imap("support", dovecot.imap_port, user, disposition={"move": "Nowhere/Yet"})
    said = check(site, "--json")
    assert said.code == 0
    assert "will be created" in stages(said, "mailbox support")["disposition"]["detail"]
    assert dovecot.folders(user) == {"INBOX"}
    assert site.events() == []


def test_check_finds_room_for_queues_that_are_not_there_yet_and_creates_nothing(site: Site, tmp_path: Path) -> None:
    for kind in ("sqlite", "jsonl", "maildir"):
        site.settings["queues"][kind] = {"type": kind, "path": str(tmp_path / "new" / kind / "queue")}
    said = check(site, "--json")
    assert said.code == 0, said.out
    queues = {f"queue {name}" for name in site.settings["queues"]}
    assert {row["part"] for row in said.json["stages"]} == {"service", *queues}
    assert list(tmp_path.iterdir()) == [site.config]


def test_check_says_beforehand_that_the_service_has_no_place_for_its_state(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    site.settings["service"]["state_directory"] = str(tmp_path / "file" / "state")
    said = check(site, "--json")
    assert said.code == 69
    (row,) = stages(said, "service").values()
    assert (row["stage"], row["ok"]) == ("state", False)
    assert "service.state_directory" in row["advice"]


def test_check_of_one_mailbox_probes_no_other_part(site: Site, dovecot: Dovecot, user: str) -> None:
    site.imap("support", dovecot.imap_port, user)
    site.imap("broken", dovecot.imap_port, user, password="wrong")
    said = check(site, "--mailbox", "support", "--json")
    assert said.code == 0
    assert {row["part"] for row in said.json["stages"]} == {"mailbox support"}


def test_check_speaks_to_people_with_advice_below_the_stage_that_failed(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.imap("support", dovecot.imap_port, user, password=SECRET)
    said = check(site)
    assert said.code == 69
    lines = said.out.splitlines()
    (failed,) = [number for number, line in enumerate(lines) if line.startswith("FAILED")]
    assert "mailbox support" in lines[failed]
    assert "login" in lines[failed]
    assert lines[failed + 1].startswith("       → Check username")
    assert SECRET not in said.out + said.err


def test_check_shows_on_a_terminal_whom_it_waits_for_and_leaves_no_trace_of_that(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.imap("slow", dovecot.imaps_port, user, connect_timeout="1s")
    shown = on_a_terminal("check", "--live", "--config", str(site.config), "--mailbox", "slow")
    assert shown.code == 69
    assert "probed 0 of 1; waiting for mailbox slow" in shown.out
    progress, _, table = shown.out.rpartition("\x1b[K")
    assert "waiting for" in progress and "waiting for" not in table
    assert "FAILED at" in table, "the last thing on the screen is what it comes to"
