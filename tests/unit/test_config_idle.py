"""What is written and has no effect is told, and told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailpoller.config import ConfigErrors, load
from mailpoller.config.problems import by_cause
from servers.command import mailpoller

QUEUES = "queues: {support: {type: jsonl, path: /q/s}}\n"
BOX = "type: imap, host: mail.example.com, username: u, password: 'env:S'"


def warned(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [f"{one.path}: {one.message}" for one in load(path).warnings]


def test_queues_and_rules_that_nobody_names_are_told(tmp_path: Path) -> None:
    text = f"""
queues: {{support: {{type: jsonl, path: /q/s}}, lost: {{type: jsonl, path: /q/l}}}}
rules:
  - {{name: asked, when: {{subject: a}}, then: {{discard: true}}}}
  - {{name: used, when: {{rule: asked}}, then: {{discard: true}}}}
  - {{name: idle, when: {{subject: a}}, then: {{discard: true}}}}
rule_sets: {{some: {{rules: [used]}}, none: {{rules: [used]}}}}
mailboxes: {{support: {{{BOX}, default_queue: support, rule_sets: [some]}}}}
"""
    assert warned(tmp_path / "m.yaml", text) == [
        "queues.lost: nobody names this queue: nothing is brought to it",
        "rules[2]: nobody names this rule: it judges nothing",
        "rule_sets.none: nobody names this rule set: it judges nothing",
    ]


def test_a_file_beside_the_drop_ins_that_is_not_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.yaml").write_text(f"mailboxes: {{a: {{{BOX}}}}}\n")
    for name in ("b.yml", "c.yaml.bak", ".d.yaml", "e.test.yaml"):
        (tmp_path / "conf.d" / name).write_text("")
    (tmp_path / "m.yaml").write_text(QUEUES + "include: conf.d/a.yaml\n")
    (found,) = load(tmp_path / "m.yaml").warnings
    assert (found.file.name, found.line) == ("b.yml", 1)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("hush #1", True), ("hush # from the vault", True), ("hush#1", False), ("'hush #1'", False),
        ("env:S  # from the vault", False), ("hush", False),
    ],
)  # fmt: skip
def test_a_secret_that_is_cut_off_at_its_number_sign_is_told(tmp_path: Path, written: str, told: bool) -> None:
    text = (
        QUEUES
        + f"mailboxes:\n  a:\n    type: imap\n    host: h.example.com\n    username: u\n    password: {written}\n"
    )
    found = [one for one in warned(tmp_path / "m.yaml", text) if "quote it" in one]
    assert bool(found) is told
    assert "hush" not in str(found)


@pytest.mark.parametrize(
    ("name", "host", "environment", "told"),
    [
        ("support-test", "mail.example.com", "production", True), ("support", "dev.example.com", "production", True),
        ("contest", "latest.example.com", "production", False), ("support-test", "h.example.com", "staging", False),
    ],
)  # fmt: skip
def test_a_trial_that_runs_in_production_is_told(
    tmp_path: Path, name: str, host: str, environment: str, told: bool
) -> None:
    box = BOX.replace("mail.example.com", host)
    box += f", environment: {environment}"
    text = f"service: {{environment: {environment}}}\n{QUEUES}mailboxes: {{{name}: {{{box}}}}}\n"
    assert bool([one for one in warned(tmp_path / "m.yaml", text) if "a slip" in one]) is told


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("ssl: true", "tls: tls"), ("server: x", "host"), ("delete: true", "disposition: delete"),
        ("user: x", "username"), ("pasword: x", 'did you mean "password"?'),
    ],
)  # fmt: skip
def test_a_word_of_another_program_is_answered_with_ours(tmp_path: Path, written: str, told: str) -> None:
    (tmp_path / "m.yaml").write_text(QUEUES + f"mailboxes: {{a: {{{BOX}, {written}}}}}\n")
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "m.yaml")
    (problem,) = caught.value.problems
    assert problem.message.endswith(told)


def test_one_cause_is_one_line_and_the_last_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    boxes = ", ".join(f"m{number}: {{{BOX}, poll_interval: 1s, folders: [F{number}]}}" for number in range(20))
    path.write_text(QUEUES + f"mailboxes: {{{boxes}}}\n")
    slow = [(one, count) for one, count in by_cause(load(path).warnings) if one.path.endswith("poll_interval")]
    assert [count for _, count in slow] == [20]
    said = mailpoller("check", str(path))
    assert said.code == 0
    assert "(and 19 more of this kind)" in said.err
    assert said.out.startswith(f"{path}: no errors, ") and "20 mailboxes (20 polled here), 1 queue" in said.out
    assert mailpoller("check", "--strict", str(path)).code == 78
    path.write_text(QUEUES + f"mailboxes: {{{boxes}, wrong: {{{BOX}, port: x}}, other: {{{BOX}, tls: x}}}}\n")
    said = mailpoller("check", str(path))
    assert said.code == 78
    assert said.out.startswith(f"{path}: 2 errors, ") and said.out.endswith("22 mailboxes\n")
