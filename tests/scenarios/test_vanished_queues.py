"""A queue that vanished is down until it is back or adopted; what happens to queues every day is no such event."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from scenarios.harness import Daemon, Site
from servers.command import Said, mailpoller

NUMBERS = iter(range(1_000_000))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A mailbox that is a Maildir, and a queue of each local kind, of which ``support`` is the default one."""
    site = Site(tmp_path)
    for folder in ("new", "cur", "tmp"):
        (tmp_path / "box" / folder).mkdir(parents=True)
    site.settings["mailboxes"]["support"] = {
        "type": "maildir", "path": str(tmp_path / "box"), "start": "all", "default_queue": "support",
        "poll_interval": "1s",
    }  # fmt: skip
    for queue in (
        {"type": "sqlite", "path": str(tmp_path / "queue" / "support.db"), "payload": "raw"},
        {"type": "maildir", "path": str(tmp_path / "queue" / "md")},
        {"type": "jsonl", "path": str(tmp_path / "queue" / "lines" / "events.jsonl")},
    ):
        site.settings["queues"]["support" if queue["type"] == "sqlite" else queue["type"]] = {
            **queue, "retry_interval": "1s", "min_free": 0,
        }  # fmt: skip
    return site


def bring(site: Site, subject: str) -> None:
    name = f"{next(NUMBERS)}.x.host"
    draft = site.directory / "box" / "tmp" / name
    draft.write_bytes(f"From: a@customer.example\r\nSubject: {subject}\r\n\r\ntext\r\n".encode())
    draft.rename(site.directory / "box" / "new" / name)


def ask(site: Site, *words: str) -> Said:
    return mailpoller(*words, "--config", str(site.config))


def alarms(site: Site) -> list[str]:
    return [alarm["key"] for alarm in ask(site, "status", "--json").json["alarms"]]


def standing(site: Site, queue: str = "support") -> dict[str, Any]:
    (found,) = (one for one in ask(site, "status", "--json").json["queues"] if one["queue"] == queue)
    assert isinstance(found, dict)
    return found


def place(site: Site, kind: str) -> Path:
    """What vanishes with a queue of this kind: the file, or the directory."""
    return {
        "support": site.queue_path,
        "maildir": site.directory / "queue" / "md",
        "jsonl": site.directory / "queue" / "lines",
    }[kind]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        return
    for file in path.parent.glob(path.name + "*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()


def assert_adopted(site: Site, daemon: Daemon, kind: str) -> None:
    """Told everywhere, nothing made anew; and the command lets the mail go on."""
    daemon.until_said("queue.failed")  # the alarm stands since the run before
    found = standing(site, kind)
    assert (found["state"], found["vanished"]) == ("down", True)
    assert f"mailpoller queue adopt {kind}" in found["reason"]
    assert f"queue-vanished:{kind}" in alarms(site)
    daemon.until(
        lambda: any(
            fault["event"] == "queue.vanished" and "queue adopt" in fault["detail"]
            for fault in ask(site, "errors", f"queue:{kind}", "--json").json
        )
    )
    said = ask(site, "queue", "adopt", kind)
    assert said.code == 0, said
    assert "1 receipt of the one before" in said.out
    assert "redeliver" in said.out
    daemon.until(lambda: daemon.count("message.delivered") >= 1)
    daemon.until(lambda: standing(site, kind)["state"] == "up")
    daemon.until_said("alarm.ended", kind="queue-vanished")
    assert ask(site, "queue", "adopt", kind).code == 65, "there is nothing to adopt any more"


KINDS = ("support", "maildir", "jsonl")


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_that_vanished_while_we_were_down_is_not_begun_anew(site: Site, kind: str) -> None:
    site.settings["mailboxes"]["support"]["default_queue"] = kind
    bring(site, "one")
    assert site.once() == 0
    remove(place(site, kind))
    bring(site, "two")
    assert site.once() == 75, "its mail waits"
    assert not place(site, kind).exists(), "nothing was made anew"
    live = ask(site, "check", "--live", "--json")
    assert live.code == 69
    (stage,) = (stage for stage in live.json["stages"] if stage["part"] == f"queue {kind}")
    assert f"queue adopt {kind}" in stage["detail"]
    assert f"queue-vanished:{kind}" in alarms(site), "without a daemon the ledger tells it"
    with site.run() as daemon:
        assert_adopted(site, daemon, kind)
        assert daemon.stop() == 0
    bring(site, "three")
    assert site.once() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_that_vanished_while_we_run_is_not_begun_anew(site: Site, kind: str) -> None:
    site.settings["mailboxes"]["support"]["default_queue"] = kind
    bring(site, "one")
    with site.run() as daemon:
        daemon.until_said("message.delivered")
        remove(place(site, kind))
        bring(site, "two")
        daemon.until_said("queue.failed")
        assert not place(site, kind).exists(), "nothing was made anew"
        daemon.until_said("alarm.raised", kind="queue-vanished")
        said = ask(site, "queue", "adopt", kind)
        assert said.code == 0, said
        daemon.until(lambda: daemon.count("message.delivered") == 2)
        daemon.until_said("alarm.ended", kind="queue-vanished")
        assert daemon.stop() == 0
    if kind == "support":
        assert list(site.subjects()) == ["two"], "what was delivered is not brought again by itself"


def test_a_queue_that_vanished_and_is_put_back_goes_on_by_itself(site: Site) -> None:
    bring(site, "one")
    assert site.once() == 0
    site.queue_path.rename(site.directory / "aside.db")
    bring(site, "two")
    with site.run() as daemon:
        daemon.until_said("alarm.raised", kind="queue-vanished")
        assert not site.queue_path.exists()
        shutil.copy(site.directory / "aside.db", site.directory / "copied.db")  # another inode, the same queue
        (site.directory / "copied.db").rename(site.queue_path)
        daemon.until_said("message.delivered")
        assert daemon.stop() == 0
    assert sorted(site.subjects()) == ["one", "two"]


def test_a_file_that_is_replaced_by_its_own_copy_while_we_run_is_the_same_queue(site: Site) -> None:
    bring(site, "one")
    with site.run() as daemon:
        daemon.until_said("message.delivered")
        with closing(sqlite3.connect(site.queue_path)) as queue:
            queue.execute("VACUUM INTO ?", (str(site.directory / "copy.db"),))
        site.queue_path.unlink()
        for end in ("-wal", "-shm"):
            site.queue_path.with_name(site.queue_path.name + end).unlink(missing_ok=True)
        (site.directory / "copy.db").rename(site.queue_path)
        bring(site, "two")
        daemon.until(lambda: daemon.count("message.delivered") == 2)
        assert daemon.count("alarm.raised") == 0
        assert daemon.stop() == 0
    assert sorted(site.subjects()) == ["one", "two"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_an_older_copy_is_not_the_queue(site: Site, kind: str, killed: bool) -> None:
    site.settings["mailboxes"]["support"]["default_queue"] = kind
    bring(site, "one")
    assert site.once() == 0
    copy = site.directory / "copy"
    if place(site, kind).is_dir():
        shutil.copytree(place(site, kind), copy)
    else:
        with closing(sqlite3.connect(site.queue_path)) as queue:
            queue.execute("VACUUM INTO ?", (str(copy),))
    bring(site, "two")
    with site.run() as daemon:
        daemon.until_said("message.delivered")
        daemon.kill() if killed else daemon.stop()
    remove(place(site, kind))
    copy.rename(place(site, kind))
    bring(site, "three")
    assert site.once() == 75
    assert f"queue-vanished:{kind}" in alarms(site)
    assert "older copy" in ask(site, "check", "--live").out
    said = ask(site, "queue", "adopt", kind, "--json")
    assert said.code == 0, said
    assert said.json["receipts"] == 2
    assert site.once() == 0
    if kind == "support":
        assert sorted(site.subjects()) == ["one", "three"]


def test_how_far_a_queue_got_is_known_at_the_end_of_a_run(site: Site) -> None:
    with site.run() as daemon:
        for number, subject in enumerate(("one", "two"), 1):
            bring(site, subject)
            daemon.until(lambda number=number: daemon.count("message.delivered") == number)
            if number == 1:
                with closing(sqlite3.connect(site.queue_path)) as queue:
                    queue.execute("VACUUM INTO ?", (str(site.directory / "copy"),))
        assert daemon.stop() == 0
    remove(site.queue_path)
    (site.directory / "copy").rename(site.queue_path)
    bring(site, "three")
    assert site.once() == 75


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_directory_in_the_place_of_a_mount_is_not_written_to(site: Site, kind: str) -> None:
    site.settings["mailboxes"]["support"]["default_queue"] = kind
    bring(site, "one")
    assert site.once() == 0
    mounted = site.directory / "queue"
    mounted.rename(site.directory / "unmounted")
    mounted.mkdir()
    bring(site, "two")
    assert site.once() == 75
    assert list(mounted.iterdir()) == [], "nothing was made beneath the mount point"
    mounted.rmdir()
    (site.directory / "unmounted").rename(mounted)
    assert site.once() == 0, "mounted again, it goes on by itself"


def with_blobs(site: Site) -> Path:
    """The queue refers to the octets of all that is brought, which lie on a disk of their own."""
    mounted = site.directory / "disk"
    mounted.mkdir()
    site.settings["blobs"] = {"type": "filesystem", "path": str(mounted / "blobs"), "min_free": 0}
    site.settings["queues"]["support"].update({"payload": "raw", "blobs_above": "1B"})
    return mounted


def octets_are_there(site: Site) -> list[bool]:
    return [Path(urlsplit(event["data"]["raw_blob"]["href"]).path).is_file() for event in site.events()]


def test_blobs_that_are_not_mounted_are_not_begun_anew_beneath_the_mount_point(site: Site) -> None:
    mounted = with_blobs(site)
    bring(site, "one")
    assert site.once() == 0
    mounted.rename(site.directory / "unmounted")
    mounted.mkdir()
    bring(site, "two")
    assert site.once() == 75, "its mail waits"
    assert list(mounted.iterdir()) == [], "nothing was made beneath the mount point"
    (stage,) = (one for one in ask(site, "check", "--live", "--json").json["stages"] if one["part"] == "blobs")
    assert "queue adopt blobs:" in stage["detail"]
    assert "queue-vanished:support" in alarms(site)
    mounted.rmdir()
    (site.directory / "unmounted").rename(mounted)
    assert site.once() == 0, "mounted again, it goes on by itself"
    assert octets_are_there(site) == [True, True]


def test_blobs_that_vanish_while_we_run_hold_their_queue_until_an_operator_adopts(site: Site) -> None:
    mounted = with_blobs(site)
    bring(site, "one")
    with site.run() as daemon:
        daemon.until_said("message.delivered")
        shutil.rmtree(mounted / "blobs")
        bring(site, "two")
        daemon.until_said("queue.failed")
        found = standing(site)
        assert (found["state"], found["vanished"]) == ("down", True)
        assert "where its blobs lay" in found["reason"]
        assert "mailpoller queue adopt blobs:" in found["reason"]
        assert not (mounted / "blobs").exists(), "nothing was made anew"
        said = ask(site, "queue", "adopt", "blobs:")
        assert said.code == 0, said
        assert "1 receipt of the one before" in said.out
        daemon.until(lambda: daemon.count("message.delivered") == 2)
        daemon.until(lambda: standing(site)["state"] == "up")
        assert ask(site, "queue", "adopt", "blobs:").code == 65, "there is nothing to adopt any more"
        assert daemon.stop() == 0
    assert octets_are_there(site) == [False, True]


def test_an_older_copy_of_the_blobs_is_not_them(site: Site) -> None:
    mounted = with_blobs(site)
    bring(site, "one")
    assert site.once() == 0
    shutil.copytree(mounted / "blobs", site.directory / "copy")
    bring(site, "two")
    assert site.once() == 0
    shutil.rmtree(mounted / "blobs")
    (site.directory / "copy").rename(mounted / "blobs")
    bring(site, "three")
    assert site.once() == 75
    assert "an older copy" in standing_reason(site)


def standing_reason(site: Site) -> str:
    return str(ask(site, "errors", "queue:support", "--json").json[0]["detail"])


def test_lines_that_logrotate_moved_away_are_no_vanished_queue(site: Site) -> None:
    site.settings["mailboxes"]["support"]["default_queue"] = "jsonl"
    lines = site.directory / "queue" / "lines"
    bring(site, "one")
    assert site.once() == 0
    (lines / "events.jsonl").rename(lines / "events.jsonl.1")
    bring(site, "two")
    assert site.once() == 0
    with site.run() as daemon:
        daemon.until_said("service.started")
        (lines / "events.jsonl").rename(lines / "events.jsonl.2")
        bring(site, "three")
        daemon.until_said("message.delivered")
        assert daemon.stop() == 0
    files = sorted(path.name for path in lines.iterdir() if not path.name.startswith("."))
    assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    assert [len((lines / file).read_text().splitlines()) for file in files] == [1, 1, 1]
    assert alarms(site) == []


def test_lines_that_we_moved_away_are_no_vanished_queue(site: Site) -> None:
    site.settings["mailboxes"]["support"]["default_queue"] = "jsonl"
    site.settings["queues"]["jsonl"]["rotate"] = "1B"
    for subject in ("one", "two", "three"):
        bring(site, subject)
        assert site.once() == 0
    assert len(list((site.directory / "queue" / "lines").glob("events*.jsonl"))) == 3


@pytest.mark.parametrize("whole", [False, True], ids=["messages", "folders too"])
def test_a_maildir_that_its_reader_emptied_is_no_vanished_queue(site: Site, whole: bool) -> None:
    site.settings["mailboxes"]["support"]["default_queue"] = "maildir"
    maildir = site.directory / "queue" / "md"
    for subject in ("one", "two"):
        bring(site, subject)
        assert site.once() == 0
        assert len(list((maildir / "new").iterdir())) == 1
        for folder in ("new", "cur", "tmp"):
            shutil.rmtree(maildir / folder)
            if not whole:
                (maildir / folder).mkdir()


def test_rows_that_a_consumer_took_are_no_vanished_queue(site: Site) -> None:
    for subject in ("one", "two"):
        bring(site, subject)
        assert site.once() == 0
        with closing(sqlite3.connect(site.queue_path, isolation_level=None)) as queue:
            queue.execute("DELETE FROM message")
            queue.execute("DELETE FROM acknowledged")
            queue.execute("VACUUM")
    assert alarms(site) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_without_a_mark_that_the_ledger_does_not_know_is_taken_as_it_is(site: Site, kind: str) -> None:
    """What 0.1 left: the ledger has receipts of it, and neither knows a mark."""
    site.settings["mailboxes"]["support"]["default_queue"] = kind
    bring(site, "one")
    assert site.once() == 0
    with closing(sqlite3.connect(site.directory / "ledger.db", isolation_level=None)) as ledger:
        assert [name for (name,) in ledger.execute("SELECT name FROM queue")] == [kind]
        ledger.execute("DELETE FROM queue")
    if kind == "support":
        with closing(sqlite3.connect(site.queue_path, isolation_level=None)) as queue:
            queue.execute("DROP TABLE mark")
    else:
        (mark,) = (path for path in place(site, kind).iterdir() if path.name.startswith(".") and path.is_file())
        assert json.loads(mark.read_text())["queue"]
        mark.unlink()
    bring(site, "two")
    assert site.once() == 0
    assert alarms(site) == []
    remove(place(site, kind))
    bring(site, "three")
    assert site.once() == 75, "from now on it is known"


def test_a_vanished_queue_stops_no_mail_for_another(site: Site) -> None:
    bring(site, "one")
    assert site.once() == 0
    remove(site.queue_path)
    bring(site, "two")
    shutil.copytree(site.directory / "box", site.directory / "other")
    other = {**site.settings["mailboxes"]["support"], "path": str(site.directory / "other"), "default_queue": "jsonl"}
    site.settings["mailboxes"]["other"] = other
    assert site.once() == 75
    assert len((site.directory / "queue" / "lines" / "events.jsonl").read_text().splitlines()) == 2


def test_a_queue_for_notices_that_vanished_is_adopted_by_the_name_that_the_alert_gives_it(site: Site) -> None:
    site.settings["quarantine"] = {"type": "maildir", "path": str(site.directory / "bad"), "min_free": 0}
    site.settings["mailboxes"]["support"]["oversize"] = "quarantine"
    site.settings["mailboxes"]["support"]["max_message_size"] = "1KB"
    bring(site, "large" + "x" * 3000)
    assert site.once() == 0
    assert len(list((site.directory / "bad" / "new").iterdir())) == 1
    shutil.rmtree(site.directory / "bad")
    bring(site, "larger" + "x" * 3000)
    assert site.once() == 0
    assert not (site.directory / "bad").exists()
    assert len(site.quarantined()) == 2
    name = f"quarantine at {site.directory / 'bad'}"
    said = ask(site, "queue", "adopt", name)
    assert said.code == 0, said
    assert site.once() == 0
    assert len(list((site.directory / "bad" / "new").iterdir())) == 1


def test_the_quarantine_itself_that_vanished_is_not_begun_anew_until_it_is_adopted(site: Site) -> None:
    site.settings["mailboxes"]["support"]["oversize"] = "quarantine"
    site.settings["mailboxes"]["support"]["max_message_size"] = "1KB"
    bring(site, "large" + "x" * 3000)
    assert site.once() == 0
    place = site.directory / "state" / "quarantine"
    shutil.rmtree(place)
    bring(site, "larger" + "x" * 3000)
    assert site.once() == 75
    assert not place.exists()
    assert ask(site, "queue", "adopt", f"quarantine at {place}").code == 0
    assert site.once() == 0
    assert len(site.quarantined()) == 1


def test_adopt_without_a_daemon_says_when_there_is_nothing_to_adopt(site: Site) -> None:
    bring(site, "one")
    assert site.once() == 0
    assert ask(site, "queue", "adopt", "jsonl").code == 65
    assert ask(site, "queue", "adopt", "nosuch").code == 64


# --- one process at a time
# -----------------------------------------------------------------------------------------------
def test_a_second_instance_empties_nobody_s_spool(site: Site) -> None:
    with site.run() as daemon:
        daemon.until_said("service.started")
        in_hand = site.directory / "state" / "spool" / "octets-in-hand"
        in_hand.write_bytes(b"a message of the first instance")
        assert ask(site, "run").code == 75
        assert ask(site, "run", "--once").code == 75
        assert in_hand.exists()
        site.settings["ledger"]["path"] = str(site.directory / "another.db")
        said = ask(site, "run", "--once")
        assert said.code == 75, "another ledger, and the same state directory"
        assert "in use by another process" in said.err
        assert in_hand.exists()
        assert daemon.stop() == 0
    assert site.once() == 0
    assert not in_hand.exists(), "what a process left that is gone is removed"


def test_a_second_instance_does_not_take_the_control_socket_of_a_living_one(site: Site) -> None:
    with site.run() as daemon:
        daemon.until_said("service.started")
        first = daemon.process.pid
        site.settings["ledger"]["path"] = str(site.directory / "another.db")
        site.settings["service"]["state_directory"] = str(site.directory / "another")
        with site.run() as second:
            second.until_said("control.unavailable")
            assert ask(site, "status", "--json").json["pid"] == first
            assert second.stop() == 0
        assert ask(site, "status", "--json").json["pid"] == first
        assert daemon.stop() == 0


def test_the_unit_leaves_a_living_holder_alone_and_tries_a_ledger_again(site: Site) -> None:
    unit = Path(__file__).parents[2] / "systemd" / "mailpoller.service"
    (line,) = (line for line in unit.read_text().splitlines() if line.startswith("RestartPreventExitStatus="))
    left_alone = {int(code) for code in line.partition("=")[2].split()}
    with site.run() as daemon:
        daemon.until_said("service.started")
        said = ask(site, "run")
        assert said.code in left_alone
        assert f"process {daemon.process.pid} on " in said.err
        assert daemon.stop() == 0
    os.rename(site.directory / "ledger.db", site.directory / "aside.db")
    (site.directory / "ledger.db").write_bytes(b"this is no ledger, nor was it ever one" * 100)
    assert ask(site, "run").code not in {0, *left_alone}, "systemd tries again"
