"""The page about JSON and the program agree: every key that a verb prints is on the page, under the verb's own
heading."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from scenarios.harness import Site
from servers.command import mailpoller
from servers.dovecot import Dovecot

PAGE = Path(__file__).parents[2] / "docs/json.md"


def documented(heading: str) -> set[str]:
    """The words in backticks below a heading of the page."""
    section = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert section is not None, heading
    return set(re.findall(r"`([^`]+)`", section[1]))


def keys(value: Any, opaque: tuple[str, ...] = ()) -> set[str]:
    """Every key in the value, but for what is below ``opaque`` ones, whose keys are names."""
    if isinstance(value, list):
        return set().union(*(keys(one, opaque) for one in value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(keys(one, opaque) for key, one in value.items() if key not in opaque))


def test_every_key_that_is_printed_is_on_the_page(tmp_path: Path, dovecot: Dovecot, user: str) -> None:
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user, rules=["greetings"])
    site.imap("locked", dovecot.imap_port, user, password="wrong", folders=["Other"])
    site.settings["rules"] = [{"name": "greetings", "when": {"subject": "hello"}, "then": {"tags": ["kind"]}}]
    dovecot.deliver(user, b"From: ada@customer.example\r\nSubject: hello\r\n\r\ntext\r\n")
    mail = tmp_path / "mail.eml"
    mail.write_bytes(b"Auto-Submitted: auto-replied\r\n\r\ntext\r\n")

    def said(*words: str) -> Any:
        answer = mailpoller(*words, "--config", str(site.config))
        assert answer.out, answer.err
        documents = [json.loads(line) for line in answer.out.splitlines()]
        return documents[0] if len(documents) == 1 else documents

    assert keys(said("run", "--dry-run", "--json"), ("disposition",)) <= documented("run --dry-run")
    with site.run() as daemon:
        daemon.until_said("mailbox.refused")
        daemon.until(lambda: daemon.count("message.delivered") == 1)
        daemon.until(lambda: said("trace", "ada@customer.example", "--json")[0]["disposed_at"])
        status = said("status", "--json")
        assert keys(status, ("failing_folders",)) <= documented("status")
        assert {box["condition"] for box in status["mailboxes"]} <= documented("status")
        assert (status["ok"], status["level"]) == (False, "critical")
        health = said("health", "--json")
        assert keys(health) <= documented("health")
        assert (health["ok"], health["pid"]) == (False, daemon.process.pid)
        assert "mailbox locked" in [one["subject"] for one in health["findings"]]
        assert daemon.stop() == 0
    assert keys(said("health", "--json")) <= documented("health")
    assert keys(said("status", "--json")) <= documented("status")
    assert keys(said("errors", "--json")) <= documented("errors")
    assert keys(said("reconcile", "support", "--json"), ("outcomes",)) <= documented("reconcile")
    assert keys(said("backfill", "support", "--since", "1d", "--dry-run", "--json")) <= documented("backfill")
    assert keys(said("messages", "--json"), ("receipts",)) <= documented("trace")
    assert keys(said("messages", "--histogram", "--json"), ("outcomes",)) <= documented("messages")
    assert keys(said("changes", "--json")) <= documented("changes")
    assert keys(said("errors", "--clear", "--json")) <= documented("errors")
    mid = said("trace", "ada@customer.example", "--json")[0]["mid"]
    assert mailpoller("redeliver", mid, "--config", str(site.config)).code == 0
    (story,) = said("trace", mid, "--json")
    assert story["former"]
    assert keys(story, ("receipts",)) <= documented("trace")
    assert keys(said("check", "--live", "--json")) <= documented("check")
    for file in (mail, Path("/dev/null")):
        assert keys(said("explain", str(file), "--mailbox", "support", "--json"), ("event",)) <= documented("explain")
    assert keys(said("queue", "list", "support", "--json")) <= documented("queue")
    assert keys(said("queue", "show", "support", "1", "--json"), ("event",)) <= documented("queue")
    assert keys(said("queue", "take", "support"), ("event",)) <= documented("queue")
    site.settings["mailboxes"]["support"]["pasword"] = "x"
    assert keys(said("check", "--json")) <= documented("check")
