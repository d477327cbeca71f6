"""What an operator asks of a running service, and of its files when none runs: every verb, against the real command."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scenarios.harness import Daemon, Site
from servers.command import Said, mailpoller, on_a_terminal
from servers.dovecot import Dovecot

UNKNOWN = "00000000-0000-5000-8000-000000000000"


def mail(subject: str) -> bytes:
    return (
        f"From: Ada <Ada@customer.example>\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\ntext\r\n".encode()
    )


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    """One mailbox with three messages."""
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user)
    dovecot.deliver_all(user, [mail("one"), mail("two"), mail("three")])
    return site


@pytest.fixture
def running(site: Site) -> Iterator[Daemon]:
    """A daemon that has carried the three."""
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 3)
        yield daemon


def ask(site: Site, *words: str) -> Said:
    return mailpoller(*words, "--config", str(site.config))


def story(site: Site, term: str) -> dict[str, Any]:
    (only,) = ask(site, "trace", term, "--json").json
    assert isinstance(only, dict)
    return only


# --- status and errors
# -------------------------------------------------------------------------------------------------
def test_status_shows_the_running_daemon_and_then_what_the_ledger_knows(site: Site, running: Daemon) -> None:
    said = ask(site, "status", "--json")
    assert (said.code, said.json["ok"]) == (0, True)
    assert said.json["pid"] == running.process.pid
    well = ask(site, "health")
    assert (well.code, well.err) == (0, "")
    assert re.fullmatch(
        r"OK: 1 mailbox up, 1 queue; the oldest poll was \d+ s ago \| mailboxes=1 behind=0 alarms=0 stuck=0\n", well.out
    )
    (box,) = said.json["mailboxes"]
    assert (box["mailbox"], box["behind"], box["ledger"]["settled"]) == ("support", False, 3)
    assert box["last_poll_at"]
    table = ask(site, "status")
    header, row = table.out.splitlines()[1:3]
    assert header.split("\t")[:3] == ["mailbox", "state", "polled"]
    assert row.split("\t")[:2] == ["support", "up"]
    drawn = on_a_terminal("status", "--config", str(site.config), columns=80).out
    assert re.search(r"support +\x1b\[32m", drawn)
    assert "\x1b[3" not in on_a_terminal("status", "--config", str(site.config), NO_COLOR="1").out
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in drawn.splitlines()) <= 80
    assert "last poll at" in ask(site, "status", "support").out
    assert ask(site, "status", "--failing", "--json").json["mailboxes"] == []
    assert [box["mailbox"] for box in ask(site, "status", "--host", "127.0.0.1", "--json").json["mailboxes"]] == [
        "support"
    ]
    running.kill()
    assert ask(site, "health").code == 2
    said = ask(site, "status", "--json")
    assert (said.code, said.json["ok"]) == (75, False)
    assert "no daemon answers" in said.json["line"]
    assert [(box["mailbox"], box["ledger"]["settled"]) for box in said.json["mailboxes"]] == [("support", 3)]


def test_errors_are_listed_newest_first_and_cleared_with_and_without_a_daemon(site: Site) -> None:
    site.settings["mailboxes"]["support"]["password"] = "hunter2-wrong"
    with site.run() as daemon:
        daemon.until_said("mailbox.refused")
        daemon.until(lambda: ask(site, "errors", "--json").json)
        (fault,) = ask(site, "errors", "support", "--json").json
        assert (fault["subject"], fault["event"]) == ("support", "mailbox.refused")
        assert "AUTHENTICATIONFAILED" in fault["detail"]
        assert ask(site, "errors", "somebody-else", "--json").json == []
        assert "hunter2" not in ask(site, "errors").out + ask(site, "status").out + daemon.said
        status = ask(site, "status", "--json").json
        assert status["mailboxes"][0]["condition"] == "refused"
        assert ask(site, "errors", "--clear").out == "1 error cleared\n"
        assert ask(site, "errors", "--json").json == []
        assert ask(site, "poll", "support").code == 0
        daemon.until(lambda: daemon.count("mailbox.refused") == 2)
        daemon.until(lambda: ask(site, "errors", "--json").json)
        assert daemon.stop() == 0
    assert ask(site, "errors", "support", "--clear", "--json").json == {"cleared": 1}
    said = ask(site, "errors")
    assert (said.code, said.out, said.err) == (0, "", "no errors\n")


# --- trace
# ---------------------------------------------------------------------------------------------------------------
def test_trace_finds_a_message_by_all_that_one_may_know_of_it(site: Site, running: Daemon) -> None:
    mid = next(line["mid"] for line in running.log if line["event"] == "message.delivered" and line["uid"] == "2")
    for term in (mid, mid.upper(), "<two@x>", "two@x", "2"):
        assert story(site, term)["mid"] == mid
    assert len(ask(site, "trace", "ada@customer.example", "--json").json) == 3
    assert len(ask(site, "trace", "ada@customer.example", "--json", "--limit", "2").json) == 2
    told = ask(site, "trace", mid).out
    assert "receipts           support: 2" in told
    assert "disposition        seen" in told
    assert "strikes" not in told
    nobody = ask(site, "trace", "nobody@customer.example")
    assert (nobody.code, nobody.err) == (66, "mailpoller: the ledger knows no message by nobody@customer.example\n")
    assert ask(site, "trace", "nobody@customer.example", "--json").out == "[]\n"


# --- poll and redeliver
# --------------------------------------------------------------------------------------------------
def test_poll_asks_only_for_mailboxes_that_are_polled(site: Site, running: Daemon) -> None:
    assert ask(site, "poll", "support").out == "support is being polled\n"
    site.settings["mailboxes"]["new"] = site.settings["mailboxes"]["support"]
    said = ask(site, "poll", "new")
    assert said.code == 65
    assert "no mailbox new is being polled" in said.err


def test_redelivered_message_comes_once_more_under_another_delivery_id(site: Site, running: Daemon) -> None:
    mid = story(site, "<one@x>")["mid"]
    assert ask(site, "redeliver", mid.upper()).code == 0
    running.until(lambda: len(site.events()) == 4)
    first, again = [event for event in site.events() if event["id"] == mid]
    assert first["deliveryid"] != again["deliveryid"]
    assert {**first["data"], "flags": []} == {**again["data"], "flags": []}
    running.until(lambda: story(site, mid)["state"] == "settled")
    told = story(site, mid)
    assert told["receipts"] == {"support": "4"}
    assert [(one["outcome"], one["receipts"]) for one in told["former"]] == [("delivered", {"support": "1"})]
    assert re.search(r"^former +delivered support: 1 at 20\d\d-", ask(site, "trace", mid).out, re.MULTILINE)
    for unknown in (UNKNOWN, "nonsense"):
        assert ask(site, "redeliver", unknown).code == 66
    assert running.stop() == 0
    assert ask(site, "redeliver", UNKNOWN).code == 66, "also without a daemon"
    assert ask(site, "redeliver", mid).code == 0
    assert "once more" in ask(site, "trace", mid).out
    assert site.once() == 0
    assert len(site.events()) == 5


def test_what_a_queue_was_given_comes_once_more_in_one_command_and_nothing_twice(site: Site, running: Daemon) -> None:
    assert ask(site, "redeliver").code == 64
    assert ask(site, "redeliver", "--queue", "support").code == 64, "since when?"
    assert ask(site, "redeliver", UNKNOWN, "--since", "1h").code == 64, "one or the other"
    assert ask(site, "redeliver", "--since", "1h", "--sender", "nobody@x.example").code == 66
    wanted = ("redeliver", "--queue", "support", "--since", "1h")
    shown = ask(site, *wanted, "--dry-run")
    assert (shown.code, "3 messages would be brought once more" in shown.err) == (0, True), shown
    assert (ask(site, *wanted).code, len(site.events())) == (64, 3), "nobody to ask"
    said = ask(site, *wanted, "--yes")
    assert (said.code, "3 messages to be brought at the next poll" in said.out) == (0, True), said
    running.until(lambda: len(site.events()) == 6)
    assert len({event["id"] for event in site.events()}) == 3
    assert len({event["deliveryid"] for event in site.events()}) == 6
    running.until(lambda: story(site, "<one@x>")["state"] == "settled")
    mid = story(site, "<one@x>")["mid"]
    said = ask(site, "redeliver", mid, UNKNOWN)
    assert (said.code, "1 message to be brought" in said.out, UNKNOWN in said.out) == (65, True, True), said


def test_redelivery_of_a_message_that_has_left_is_told_without_forgetting_who_sent_it(
    site: Site, running: Daemon, dovecot: Dovecot, user: str
) -> None:
    mid = story(site, "<two@x>")["mid"]
    dovecot.create(user, "Elsewhere")
    dovecot.move(user, "2", "INBOX", "Elsewhere")
    assert ask(site, "redeliver", mid).code == 0
    running.until_said("message.gone", mid=mid)
    running.until(lambda: story(site, mid)["state"] == "settled")
    told = story(site, mid)
    assert (told["outcome"], told["reason"]) == ("gone", "redelivery")
    assert (told["message_id"], told["sender"]) == ("<two@x>", "Ada@customer.example")
    assert "it had left the mailbox when it was to be brought once more" in ask(site, "trace", mid).out
    assert len(site.events()) == 3


# --- accept and forget
# -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["baseline", "replay"])
def test_held_mailbox_is_shown_and_released(how: str, site: Site, running: Daemon, dovecot: Dovecot, user: str) -> None:
    assert running.stop() == 0
    site.settings["mailboxes"]["support"]["hold_above"] = 1
    dovecot.renumber(user)
    dovecot.deliver_all(user, [mail("four" * 9), mail("five" * 20)])
    with site.run() as daemon:
        daemon.until_said("mailbox.held")
        (box,) = ask(site, "status", "--json").json["mailboxes"]
        assert box["condition"] == "held"
        assert ask(site, "accept", "elsewhere", f"--{how}").code == 64
        assert ask(site, "accept", "support", f"--{how}").out == f"1 folder of support released ({how})\n"
        daemon.until_said("mailbox.accepted", how=how)
        # What is there at the poll that follows is what the decision is about.
        daemon.until(lambda: ask(site, "status", "--json").json["mailboxes"][0]["condition"] == "waiting")
        dovecot.deliver(user, mail("six"))
        daemon.until_said("message.delivered", uid="6")
        said = ask(site, "accept", "support", f"--{how}")
        assert (said.code, said.err) == (65, "mailpoller: the mailbox support is not held\n")
        assert daemon.stop() == 0
    subjects = site.subjects()
    assert max(subjects.values()) == 1, "nothing came twice"
    assert len(subjects) == (4 if how == "baseline" else 6)


def test_held_mailbox_is_shown_without_a_daemon_too(site: Site, running: Daemon, dovecot: Dovecot, user: str) -> None:
    assert running.stop() == 0
    site.settings["mailboxes"]["support"]["hold_above"] = 0
    dovecot.renumber(user)
    dovecot.deliver(user, mail("four" * 9))
    assert site.once() == 75
    (box,) = ask(site, "status", "--json").json["mailboxes"]
    assert box["condition"] == "held"
    assert "numbering" in box["reason"]
    assert ask(site, "accept", "support", "--replay").code == 0
    assert site.once() == 0
    assert len(site.subjects()) == 4


def test_forgotten_mailbox_leaves_nothing_behind(site: Site, running: Daemon) -> None:
    said = ask(site, "forget", "support", "--yes")
    assert said.code == 64
    assert "still configured" in said.err
    site.settings["mailboxes"]["support"]["enabled"] = False
    said = ask(site, "forget", "support", "--yes")
    assert said.code == 65, "the daemon that runs still polls it, whatever the file says by now"
    assert "is being polled" in said.err
    assert running.stop() == 0
    assert ask(site, "forget", "support", "--yes").out == "support is forgotten: 3 messages\n"
    assert ask(site, "trace", "ada@customer.example").code == 66
    assert ask(site, "forget", "support", "--yes").code == 65


# --- queue
# -------------------------------------------------------------------------------------------------------------------
def test_queue_is_listed_shown_taken_returned_and_acknowledged(site: Site, running: Daemon) -> None:
    listed = ask(site, "queue", "list", "support", "--json").json
    assert [entry["state"] for entry in listed] == ["ready"] * 3
    assert ask(site, "queue", "list", str(site.queue_path), "--json").json == listed, "by its path too"
    shown = ask(site, "queue", "show", "support", listed[0]["mid"], "--json").json
    assert shown["event"]["data"]["subject"] == "one"
    assert "data.subject" in ask(site, "queue", "show", "support", "1").out
    assert ask(site, "queue", "show", "support", "1", "--octets").out == mail("one").decode()
    assert ask(site, "queue", "show", "support", "99").code == 66

    taken = ask(site, "queue", "take", "support", "--count", "2", "--for", "5m").objects
    first, second = [held["delivery_id"] for held in taken]
    lease = taken[0]["lease"]
    assert "2 taken" in ask(site, "queue", "list", "support").err
    assert ask(site, "queue", "ack", "support", first, "--lease", "another").code == 66
    assert ask(site, "queue", "ack", "support", first, "--lease", lease).out == f"acknowledged {first}\n"
    assert ask(site, "queue", "return", "support", second, "--lease", lease).out == f"returned {second}\n"
    assert ask(site, "queue", "ack", "support", first).code == 66
    states = [entry["state"] for entry in ask(site, "queue", "list", "support", "--json").json]
    assert states == ["ready", "ready"]
    assert ask(site, "queue", "list", "support", "--state", "taken").err.startswith("support has nothing taken")
    assert len(ask(site, "queue", "take", "support", "--count", "9").objects) == 2
    nothing = ask(site, "queue", "take", "support")
    assert (nothing.code, nothing.out) == (0, "")


def test_what_a_queue_shows_can_be_explained_again(site: Site, running: Daemon) -> None:
    octets = ask(site, "queue", "show", "support", "1", "--octets").out.encode()
    said = mailpoller("explain", "-", "--json", "--config", str(site.config), stdin=octets)
    assert json.loads(said.out)["queues"] == ["support"]


# --- stopping
# -------------------------------------------------------------------------------------------------------------------
def test_ctrl_c_stops_the_daemon_in_order(site: Site, running: Daemon) -> None:
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 0
    assert running.count("service.stopped") == 1


def test_second_ctrl_c_does_not_wait_for_what_is_in_hand(site: Site, dovecot: Dovecot) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site.settings["service"]["stop_grace"] = "60s"
        site.settings["mailboxes"]["support"]["port"] = silent.getsockname()[1]
        with site.run() as daemon:
            daemon.until_said("service.started")
            held, _ = silent.accept()
            daemon.process.send_signal(signal.SIGINT)
            daemon.until_said("service.stopping")
            began = time.monotonic()
            daemon.process.send_signal(signal.SIGINT)
            assert daemon.wait() in (0, 130)  # who only connects has nothing in hand, and may be gone already
            assert time.monotonic() - began < 30, "the grace period is a minute"
            assert "Traceback" not in daemon.said
            held.close()
    site.settings["mailboxes"]["support"]["port"] = dovecot.imap_port
    assert site.once() == 0, "the ledger is free again"
    assert len(site.events()) == 3


# --- damage
# ----------------------------------------------------------------------------------------------------------------------
def test_damaged_ledger_is_told_in_one_line_by_every_verb_that_reads_it(site: Site, running: Daemon) -> None:
    assert running.stop() == 0
    path = site.directory / "ledger.db"
    octets = bytearray(path.read_bytes())
    with sqlite3.connect(path) as ledger:
        (page,) = ledger.execute("PRAGMA page_size").fetchone()
    octets[2 * page : 8 * page] = b"\xa5" * (6 * page)
    for rest in site.directory.glob("ledger.db-*"):
        rest.unlink()
    path.write_bytes(octets)
    for words in (["errors"], ["trace", "x"], ["redeliver", UNKNOWN], ["run", "--dry-run"], ["run"]):
        said = ask(site, *words)
        assert said.code == (74 if words == ["run"] else 75), (words, said)
        assert "malformed" in said.err.splitlines()[-1]
        assert "Traceback" not in said.err
    assert ask(site, "status").code == 75


# --- nothing ends in silence
# -------------------------------------------------------------------------------------------
def test_mail_that_waits_for_its_queue_is_found_by_sender_message_id_and_mid_and_a_drain_says_that_it_waits(
    site: Site,
) -> None:
    path = site.settings["queues"]["support"]["path"]
    Path(path).mkdir(parents=True)  # a queue that cannot be opened is down
    said = mailpoller("run", "--once", "--config", str(site.config), "--log-format", "json")
    assert said.code == 75
    (line,) = [line for line in said.err.splitlines() if line.startswith("mailpoller: not finished")]
    assert line.startswith("mailpoller: not finished: support (")
    assert "waiting" in line
    told = ask(site, "trace", "<one@x>", "--json").json
    assert [(one["state"], one["sender"]) for one in told] == [("deferred", "Ada@customer.example")]
    assert ask(site, "trace", told[0]["mid"], "--json").json == told
    assert told[0] in ask(site, "trace", "ada@customer.example", "--json").json
    Path(path).rmdir()
    assert site.once() == 0


# --- metrics
# -------------------------------------------------------------------------------------------------------------
def test_figures_of_a_running_daemon_tell_its_mail_and_go_when_it_goes(site: Site, tmp_path: Path) -> None:
    where = tmp_path / "metrics.sock"
    site.settings["metrics"] = {"socket": str(where)}
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 3)
        daemon.until(lambda: ask(site, "health").code == 0)
        figures = scraped(where, "/metrics")
        assert 'mailpoller_mailbox_messages_total{mailbox="support",kind="delivered"} 3\n' in figures
        assert 'mailpoller_queue_latency_seconds_count{queue="support"} 3\n' in figures
        assert 'mailpoller_mailbox_up{mailbox="support",host="127.0.0.1"} 1\n' in figures
        assert re.search(r"^mailpoller_ledger_bytes [1-9]", figures, re.MULTILINE)
        for page in ("/healthz", "/readyz"):
            assert " 200 " in scraped(where, page).splitlines()[0]
        assert daemon.stop() == 0
    assert not where.exists()


def scraped(where: Path, page: str) -> str:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(str(where))
        wire.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
        with wire.makefile("rb") as answer:
            return answer.read().decode()


# --- pause and changes
# ------------------------------------------------------------------------------------------------------------------
def test_a_pause_holds_across_a_restart_and_is_told_with_who_it_was(site: Site, dovecot: Dovecot, user: str) -> None:
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 3)
        assert ask(site, "pause", "support").out == "mailbox support is paused\n"
        daemon.until(lambda: ask(site, "status", "--json").json["mailboxes"][0]["state"] == "paused")
        assert ask(site, "health").code == 1
        assert ask(site, "poll", "support").code == 65
        assert daemon.stop() == 0
    dovecot.deliver(user, mail("four"))
    with site.run() as daemon:
        daemon.until(lambda: ask(site, "status", "--json").json["mailboxes"][0]["state"] == "paused")
        assert daemon.count("message.delivered") == 0
        assert ask(site, "resume", "support").code == 0
        daemon.until(lambda: daemon.count("message.delivered") == 1)
        assert daemon.stop() == 0
    assert ask(site, "pause", "--queue", "support").code == 0, "without a daemon, too"
    assert ask(site, "resume", "--all").code == 65
    told = ask(site, "changes", "--since", "1h", "--json").json
    events = [one["event"] for one in reversed(told)]
    assert events == ["service.started", "verb.pause", "service.started", "verb.resume", "verb.pause"]
    assert all(one["who"] for one in told if one["event"].startswith("verb."))
    site.settings["mailboxes"]["support"]["poll_interval"] = "7m"
    with site.run() as daemon:
        daemon.until(lambda: "poll_interval" in ask(site, "changes").out)
        assert daemon.stop() == 0


# --- reconcile
# ------------------------------------------------------------------------------------------------------------------
def test_reconcile_finds_what_is_missing_and_nothing_else(site: Site, dovecot: Dovecot, user: str) -> None:
    assert ask(site, "reconcile", "support").code == 75, "there is no ledger yet"
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 3)
        said = ask(site, "reconcile", "support", "--json")
        assert (said.code, said.json["ok"]) == (0, True), said.err
        (inbox,) = said.json["folders"]
        assert (inbox["held"], inbox["settled"], inbox["missing"]) == (3, 3, 0)
        dovecot.deliver(user, mail("four"))
        said = ask(site, "reconcile", "support", "--json")
        assert said.code == 0, "what came a moment ago is polled first"
        assert daemon.stop() == 0
    with sqlite3.connect(site.directory / "ledger.db") as ledger:
        ledger.execute("DELETE FROM message WHERE uid = '2'")
    said = ask(site, "reconcile", "support")
    assert said.code == 66
    assert said.out.splitlines()[-1] == "1 message missing"
    assert re.search(r"^INBOX\tmissing\t2\t20", said.out, re.MULTILINE)
    assert ask(site, "reconcile", "support", "--since", "2099-01-01").code == 0
    with sqlite3.connect(site.directory / "ledger.db") as ledger:
        ledger.execute("UPDATE message SET state = 'deferred', due_at = 1, outcome = NULL, uid = '99' WHERE uid = '1'")
    missing = [one["uid"] for one in ask(site, "reconcile", "support", "--json").json["folders"][0]["messages"]]
    assert sorted(missing) == ["1", "2", "99"], "what waits and is not there is missing, too"
    with sqlite3.connect(site.directory / "ledger.db") as ledger:
        ledger.execute("UPDATE message SET uid = '300' WHERE uid = '3'")
    (inbox,) = ask(site, "reconcile", "support", "--json").json["folders"]
    assert (inbox["elsewhere"], inbox["missing"]) == (1, 3), "a message stands for one other"
    assert ask(site, "reconcile", "suport").code == 64


# --- every question
# ------------------------------------------------------------------------------------------------------------------
def test_every_question_of_the_table_is_answered_by_its_command(site: Site, running: Daemon, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/operations.md").read_text("utf-8")
    table = text.split("## Every question one command", 1)[1].split("\n## ", 1)[0]
    commands = re.findall(r"`(mailpoller [^`]+)`", table)
    assert len(commands) > 18
    (tmp_path / "mail.eml").write_bytes(mail("one"))
    mid = story(site, "<one@x>")["mid"]
    running.until(lambda: ask(site, "health").code == 0)
    for command in commands:
        words = [mid if word == "MID" else word for word in shlex.split(command)[1:]]
        words = [str(tmp_path / word) if word.endswith(".eml") else word for word in words]
        said = ask(site, *words)
        nothing_held = words[0] == "quarantine"
        assert said.code == 0 or (nothing_held and said.code == 66), (command, said)
        assert said.out or said.err, command


# --- erase
# ----------------------------------------------------------------------------------------------------------------------
def test_erase_forgets_a_person_and_names_what_it_does_not_reach(site: Site, running: Daemon) -> None:
    said = ask(site, "erase", "--address", "ADA@customer.example", "--dry-run", "--json")
    assert (said.code, said.json["messages"], said.json["queues"]) == (0, 3, {"support": 3})
    assert len(ask(site, "trace", "ada@customer.example", "--json").json) == 3, "nothing was erased"
    assert ask(site, "erase", "--address", "ada@customer.example").code == 64, "nobody to ask"
    said = ask(site, "erase", "--address", "ada@customer.example", "--yes")
    assert said.code == 0, said.err
    assert "3 messages erased from queue support" in said.out
    assert "the mailboxes themselves" in said.out
    assert site.events() == []
    assert ask(site, "trace", "ada@customer.example").code == 66
    assert ask(site, "poll", "support").code == 0
    changes = ask(site, "changes", "--json").json
    assert "ada" not in json.dumps([one for one in changes if one["event"] == "verb.erase"]).lower()
    assert running.count("message.delivered") == 3, "it is not delivered again"
    assert ask(site, "erase", "--mid", UNKNOWN, "--yes").code == 66
    for wrong in ("", "@customer.example", "ada"):
        assert ask(site, "erase", "--address", wrong, "--yes").code == 64, "it would mean everybody's"


def test_erase_reaches_the_quarantine_and_nobody_else_there(
    site: Site, running: Daemon, dovecot: Dovecot, user: str
) -> None:
    marker = "[mailpoller quarantine test message]"
    dovecot.deliver(user, mail(marker))
    dovecot.deliver(user, mail(marker).replace(b"Ada@customer.example", b"bob@customer.example"))
    running.until(lambda: running.count("message.quarantined") == 2)
    said = ask(site, "erase", "--address", "ada@customer.example", "--dry-run", "--json")
    assert said.json["quarantine"] == 1
    assert len(ask(site, "quarantine", "list", "--json").json["messages"]) == 2
    said = ask(site, "erase", "--address", "ada@customer.example", "--yes")
    assert "1 message erased from the quarantine" in said.out
    (left,) = ask(site, "quarantine", "list", "--json").json["messages"]
    assert left["sender"] == "bob@customer.example"
