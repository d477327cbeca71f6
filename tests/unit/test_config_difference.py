"""What a configuration says otherwise than another."""

from __future__ import annotations

from pathlib import Path

import yaml

from mailpoller.config import Config, load
from mailpoller.config.difference import changes, left_behind, taken_over

BASE = """
queues:
  support: {type: jsonl, path: /q/support.jsonl}
rules:
  - {name: spam, when: {subject: spam}, then: {discard: true}}
mailboxes:
  support: {type: imap, host: mail.test, username: u, password: hush-one, rules: [spam]}
"""


def configured(path: Path, text: str) -> Config:
    path.write_text(text)
    return load(path)


def test_a_secret_that_changed_is_a_change_and_is_not_shown(tmp_path: Path) -> None:
    before = configured(tmp_path / "one.yaml", BASE)
    after = configured(tmp_path / "one.yaml", BASE.replace("hush-one", "hush-two"))
    (change,) = changes(before, after)
    assert (change.part, change.what, change.keys) == ("mailbox support", "changed", ())
    assert "hush" not in repr(change)


def test_a_secret_within_a_mailbox_s_own_quarantine_is_not_shown(tmp_path: Path) -> None:
    own = ", quarantine: {type: webhook, url: 'https://q.test/', token: hush-one}}"
    before = configured(tmp_path / "one.yaml", BASE.replace("rules: [spam]}", "rules: [spam]" + own))
    after = configured(
        tmp_path / "one.yaml", BASE.replace("rules: [spam]}", "rules: [spam]" + own.replace("hush-one", "hush-two"))
    )
    (change,) = changes(before, after)
    assert change.part == "mailbox support"
    assert "hush" not in repr(change)


def test_from_whom_a_mailbox_has_what_it_says_is_no_change(tmp_path: Path) -> None:
    before = configured(tmp_path / "one.yaml", BASE)
    tree = yaml.safe_load(BASE)
    tree["mailboxes"]["base"] = tree["mailboxes"]["support"] | {"enabled": False}
    tree["mailboxes"]["support"] = {"extends": "base"}
    after = configured(tmp_path / "one.yaml", yaml.safe_dump(tree))
    assert [(one.part, one.what) for one in changes(before, after)] == [("mailbox base", "added")]


def test_what_only_a_restart_brings_into_force_stays_and_is_named(tmp_path: Path) -> None:
    before = configured(tmp_path / "one.yaml", BASE)
    after = configured(
        tmp_path / "one.yaml",
        "service: {environment: test, memory: 99MB, quarantine_marker: other}\nledger: {type: sqlite, path: /l}\n"
        + BASE,
    )
    found = changes(before, after)
    named = [(one.part, [key.key for key in one.keys], one.restart) for one in found]
    assert named == [
        ("service", ["quarantine_marker"], False),
        ("service", ["environment", "memory"], True),
        ("ledger", ["path"], True),
    ]
    held = taken_over(before, after)
    assert held.service.environment == "production"
    assert held.service.quarantine_marker == "other"
    assert held.ledger == before.ledger
    assert held.runs("support")
    assert not list(left_behind(held))


def test_values_are_shown_as_the_file_has_them(tmp_path: Path) -> None:
    before = configured(tmp_path / "one.yaml", BASE)
    after = configured(
        tmp_path / "one.yaml", BASE.replace("rules: [spam]", "poll_interval: 2m, disposition: {move: Done}")
    )
    (change,) = changes(before, after)
    shown = {key.key: (key.before, key.after) for key in change.keys}
    assert shown == {
        "rules": ("[spam]", "[]"), "poll_interval": ("1m", "2m"), "disposition": ("seen", "{move: Done}"),
    }  # fmt: skip
