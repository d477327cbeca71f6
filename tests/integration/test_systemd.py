"""The systemd files, judged by systemd's own tools."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mailpoller.config.model import ServiceConfig
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Event, Receipt
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Octets, Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.sqlite import SqliteQueueConfig
from servers import programs

SYSTEMD = Path(__file__).parents[2] / "systemd"


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as it is, but for a program that this machine has: verify wants it to be executable."""
    text = (SYSTEMD / "mailpoller.service").read_text("utf-8")
    assert "ExecStart=/opt/mailpoller/bin/mailpoller run --config /etc/mailpoller/mailpoller.yaml\n" in text
    unit = tmp_path / "mailpoller.service"
    unit.write_text(text.replace("/opt/mailpoller/bin/mailpoller", sys.executable), "utf-8")
    return unit


def test_systemd_has_nothing_to_say_about_the_unit(unit: Path) -> None:
    assert _run(programs.find("systemd-analyze"), "verify", unit).strip() == ""


def test_verify_would_complain_about_an_unknown_directive(unit: Path) -> None:
    unit.write_text(unit.read_text("utf-8").replace("Restart=on-failure", "Restrat=on-failure"), "utf-8")
    done = subprocess.run(
        [programs.find("systemd-analyze"), "verify", unit], capture_output=True, text=True, timeout=60
    )
    assert "Restrat" in done.stderr


def test_exposure_is_one_and_a_half_at_most(unit: Path) -> None:
    report = _run(programs.find("systemd-analyze"), "security", "--no-pager", "--offline=true", unit)
    level = re.search(r"Overall exposure level for mailpoller\.service: (\d+\.\d+)", report)
    assert level is not None, report
    assert float(level[1]) <= 1.5
    found = {line.split()[1].partition("=")[0] for line in report.splitlines() if line.startswith("✗")}
    reasoned = (SYSTEMD.parent / "docs/install.md").read_text("utf-8").partition("### What the unit allows")[2]
    lacking = [name for name in found if f"`{name}" not in reasoned and name != "RestrictAddressFamilies"]
    assert found and lacking == [], "each line that is left has its reason"


def test_nothing_that_the_service_does_needs_a_call_that_the_unit_forbids_by_name() -> None:
    """The filter has ``fchown`` alone of its kind, so nothing is given away by name."""
    source = SYSTEMD.parent / "src/mailpoller"
    named = [path for path in source.rglob("*.py") if re.search(r"\b(os\.l?chown|shutil\.chown)\b", path.read_text())]
    assert named == []


def test_stop_time_out_leaves_room_for_the_default_grace() -> None:
    text = (SYSTEMD / "mailpoller.service").read_text("utf-8")
    allowed = re.search(r"^TimeoutStopSec=(\d+)s$", text, re.MULTILINE)
    assert allowed is not None
    assert int(allowed[1]) >= ServiceConfig().stop_grace.total_seconds() + 15


def test_users_and_directories_come_out_as_documented(tmp_path: Path) -> None:
    sysusers, tmpfiles = programs.find("systemd-sysusers"), programs.find("systemd-tmpfiles")
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    for kind in ("sysusers", "tmpfiles"):
        target = tmp_path / "etc" / f"{kind}.d"
        target.mkdir(parents=True)
        shutil.copy(SYSTEMD / f"mailpoller.{kind}", target / "mailpoller.conf")
    _run(sysusers, f"--root={tmp_path}")
    _run(tmpfiles, f"--root={tmp_path}", "--create")

    ids = dict(line.split(":")[0:3:2] for line in (tmp_path / "etc/group").read_text().splitlines())
    (user,) = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if "mailpoller" in line]
    assert user[-1].endswith("nologin")

    def seen(path: str) -> tuple[str, str, str]:
        found = (tmp_path / path).stat()
        return oct(stat.S_IMODE(found.st_mode)), str(found.st_uid), str(found.st_gid)

    assert seen("var/lib/mailpoller") == ("0o711", user[2], ids["mailpoller"])
    assert seen("var/lib/mailpoller/queue") == ("0o2770", user[2], ids["mailpoller-queue"])
    assert seen("etc/mailpoller") == ("0o750", "0", ids["mailpoller"])
    assert seen("etc/mailpoller/credentials") == ("0o700", "0", "0")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_queue_of_the_service_is_writable_for_its_readers_group_and_nobody_else() -> None:
    """What the set-group-id bit is for, whatever the umask, seen with a user and a group that every system has."""
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    user, readers = pwd.getpwnam("nobody"), grp.getgrnam("mail")
    # Not tmp_path: nobody but its owner may pass through pytest's directory.
    with tempfile.TemporaryDirectory(prefix="mailpoller-test-") as name:
        Path(name).chmod(0o711)
        queue = Path(name) / "queue"
        queue.mkdir()
        os.chown(queue, user.pw_uid, readers.gr_gid)
        queue.chmod(0o2770)
        if (child := os.fork()) == 0:
            code = 1
            try:
                os.setgroups([readers.gr_gid])
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
                os.umask(0o077)
                asyncio.run(_deliver_one(queue / "support.db"))
                code = 0
            finally:
                # Without closing: the write-ahead log stays, as in a running service.
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        made = {file.name: file.stat() for file in queue.iterdir() if file.is_file()}
        assert {"support.db", "support.db-wal"} <= made.keys()
        assert {name: stat.S_IMODE(found.st_mode) for name, found in made.items()} == dict.fromkeys(made, 0o660)
        assert {found.st_gid for found in made.values()} == {readers.gr_gid}


def test_back_up_of_the_install_page_copies_what_is_in_use(tmp_path: Path) -> None:
    (script,) = re.findall(
        r"^```sh\n(#!/bin/sh\n.*?)^```$",
        (SYSTEMD.parent / "docs/install.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    state, backups, configuration = tmp_path / "state", tmp_path / "backups", tmp_path / "etc"
    (state / "queue").mkdir(parents=True)
    configuration.mkdir()
    (configuration / "mailpoller.yaml").write_text("mailboxes: {}\n")
    for place, path in (("/var/lib", state), ("/var/backups", backups), ("/etc", configuration)):
        script = script.replace(f"{place}/mailpoller", str(path))
    assert "/var/" not in script.replace(str(tmp_path), "")

    # One that a writer has open, with everything still in its write-ahead log.
    with contextlib.closing(sqlite3.connect(state / "ledger.db")) as writer:
        writer.executescript("pragma journal_mode = wal; create table claims (uid); insert into claims values (7);")
        asyncio.run(_back_up_in_use(state / "queue" / "support.db", script))

    (copy,) = backups.iterdir()
    assert {file.name for file in copy.iterdir()} == {"etc", "ledger.db", "support.db"}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    with contextlib.closing(sqlite3.connect(copy / "ledger.db")) as restored:
        assert restored.execute("select uid from claims").fetchall() == [(7,)]


async def _back_up_in_use(path: Path, script: str) -> None:
    sink = await _deliver_one(path)
    await asyncio.to_thread(subprocess.run, ["sh", "-c", script], check=True, timeout=120)
    await sink.close()


async def _deliver_one(path: Path) -> Sink:
    runtime = Runtime(clock=SystemClock(), spool=Spool(path.parent), state_directory=path.parent)
    sink = SqliteQueueConfig(type="sqlite", path=path).build("support", runtime)
    folder = Folder("support", "INBOX", "epoch")
    raw = RawMessage(Claim(MessageRef(folder, "1"), "mid"), Octets.of(b""))
    (receipt,) = await sink.deliver([Delivery("delivery", "mid", "support", Event(b"{}", (b"{}",)), raw)])
    assert isinstance(receipt, Receipt)
    return sink
