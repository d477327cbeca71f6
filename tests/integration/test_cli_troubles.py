"""What an operator is told in the middle of the night: signals, names that are not there, a ledger that cannot be
read."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.harness import PATIENCE_S, Site
from servers.command import PROGRAM, Said, environment, mailpoller
from servers.dovecot import Dovecot


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    """One mailbox with three messages."""
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user)
    dovecot.deliver_all(user, [f"Subject: {number}\r\n\r\ntext\r\n".encode() for number in range(3)])
    return site


def ask(site: Site, *words: str) -> Said:
    return mailpoller(*words, "--config", str(site.config))


@pytest.fixture
def hang_ups() -> Iterator[None]:
    """SIGHUP as a daemon finds it where nobody has it ignored, as nohup does for all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


_ON_A_TERMINAL = (
    "import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR)); os.execv(sys.executable, [sys.executable, "
    "*sys.argv[2:]])"
)
"""Opening a terminal makes it that of a session that has none; whoever leads the session is told when it is closed."""


# --- signals
# -----------------------------------------------------------------------------------------------------------
def test_daemon_that_is_hung_up_reloads_and_goes_on(site: Site, dovecot: Dovecot, user: str, hang_ups: None) -> None:
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 3)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.until_said("config.reloaded", outcome="same")
        dovecot.deliver(user, b"Subject: later\r\n\r\ntext\r\n")
        daemon.until(lambda: daemon.count("message.delivered") == 4)
        assert daemon.stop() == 0


def test_daemon_on_a_terminal_that_is_closed_stops_in_order(site: Site, hang_ups: None) -> None:
    log = site.directory / "log"
    ours, theirs = pty.openpty()
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _ON_A_TERMINAL, os.ttyname(theirs), *PROGRAM[1:], "run", "--config",
            str(site.config)],
            stdin=theirs, stdout=theirs, stderr=file, env=environment({}), start_new_session=True,
        )  # fmt: skip
    try:
        os.close(theirs)
        deadline = time.monotonic() + PATIENCE_S
        while b"service.started" not in log.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.close(ours)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert json.loads(log.read_bytes().splitlines()[-1])["event"] == "service.stopped"


# --- output
# ------------------------------------------------------------------------------------------------------------
def test_dry_run_whose_reader_has_seen_enough_ends_without_a_word(site: Site) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "run", "--dry-run", "--config", str(site.config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment({}),
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_dry_run_that_cannot_be_told_is_no_fault_of_the_mailbox(site: Site) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "run", "--dry-run", "--config", str(site.config)],
            stdout=full, stderr=subprocess.PIPE, env=environment({}),
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (74, b"mailpoller: standard output: No space left on device\n")


def test_dry_run_that_missed_a_mailbox_does_not_sum_up_as_if_it_had_seen_all(site: Site) -> None:
    site.settings["mailboxes"]["support"]["password"] = "wrong"
    said = ask(site, "run", "--dry-run")
    assert said.code == 75
    assert said.err.splitlines()[-1] == (
        "0 to be fetched; nothing was changed; not every mailbox could be looked through"
    )


# --- names and reasons
# ---------------------------------------------------------------------------------------------------
def test_mistyped_mailbox_is_the_command_line_s_fault_whoever_is_asked(site: Site) -> None:
    with site.run() as daemon:
        daemon.until_said("service.started")
        for words in (("poll", "suport"), ("accept", "suport", "--replay")):
            said = ask(site, *words)
            assert (said.code, said.err) == (64, 'mailpoller: there is no mailbox suport; did you mean "support"?\n')
        said = ask(site, "errors", "suport")
        assert said.code == 0
        assert said.err == 'no errors, and the configuration has no suport; did you mean "support"?\n'


def test_status_says_when_a_mailbox_is_tried_again(site: Site) -> None:
    site.settings["mailboxes"]["support"]["password"] = "wrong"
    with site.run() as daemon:
        daemon.until_said("mailbox.refused")
        header, row, *_ = ask(site, "status").out.splitlines()[1:]
        box = dict(zip(header.split("\t"), row.split("\t"), strict=True))
        assert (box["state"], box["polled"]) == ("refused", "never")
        assert re.fullmatch(r"in \d+ (s|min)", box["next try"])
        assert daemon.stop() == 0


def test_status_says_why_the_ledger_cannot_be_read(site: Site) -> None:
    (site.directory / "ledger.db").write_text("this is no ledger, nor was it ever one")
    said = ask(site, "status")
    assert said.code == 75
    assert "ledger.db: file is not a database" in said.err
    assert "file is not a database" in ask(site, "status", "--json").json["ledger_error"]


def test_status_of_a_daemon_that_has_lost_its_ledger_does_not_say_that_none_runs(site: Site) -> None:
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 3)
        for file in site.directory.glob("ledger.db*"):
            if file.suffix != ".lock":
                file.unlink()
        said = ask(site, "status")
        assert said.code == 75
        assert said.out.splitlines()[0].startswith("1 mailbox: ")
        assert "ledger.db: there is no ledger" in said.err
