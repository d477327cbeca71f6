"""A mistake in one mailbox costs that mailbox, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailpoller.config import ConfigErrors, effective, load

HEAD = "queues: {support: {type: jsonl, path: /q/s}}\n"
BOX = "type: imap, host: mail.example.com, username: u, password: 'env:S'"


def written(path: Path, mailboxes: str, head: str = HEAD) -> Path:
    path.write_text(f"{head}mailboxes:\n  good: {{{BOX}}}\n{mailboxes}")
    return path


@pytest.mark.parametrize(
    "bad",
    [
        f"{{{BOX}, pasword: x}}", f"{{{BOX}, rules: [none]}}", f"{{{BOX}, default_queue: none}}", "{type: none}",
        f"{{{BOX}, port: x, environment: production}}", "{extends: nobody}", f"{{{BOX}, disposition: {{move: INBOX}}}}",
    ],
)  # fmt: skip
def test_a_mailbox_with_an_error_is_known_to_have_it_and_all_others_are_as_ever(tmp_path: Path, bad: str) -> None:
    path = written(tmp_path / "m.yaml", f"  bad: {bad}\n")
    with pytest.raises(ConfigErrors) as caught:
        load(path)
    config = load(path, sparing=True)
    errors = {str(one) for one in caught.value.problems if one.severity == "error"}
    assert {str(one) for one in config.wrong["bad"]} == errors
    assert set(config.wrong) == {"bad"}
    assert set(config.mailboxes) == {"good", "bad"}
    assert config.runs("good") and config.runs("bad")
    assert config.require("good").default_queue == "support"
    with pytest.raises(ConfigErrors):
        config.require("bad")
    assert set(effective(config)["mailboxes"]) == {"good", "bad"}


def test_who_extends_a_mailbox_with_an_error_has_it_too(tmp_path: Path) -> None:
    path = written(tmp_path / "m.yaml", f"  base: {{{BOX}, enabled: false, port: x}}\n  heir: {{extends: base}}\n")
    config = load(path, sparing=True)
    assert set(config.wrong) == {"base", "heir"}
    assert "mailboxes.base.port" in str(config.wrong["heir"][0])
    assert not config.runs("base") and config.runs("heir")


@pytest.mark.parametrize(
    ("mailboxes", "head"),
    [
        ("", "queues: {support: {type: none}}\n"), ("", f"{HEAD}defaults: {{poll_interval: x}}\n"),
        (f"  bad: {{{BOX}, port: x}}\n", f"{HEAD}rules: [{{name: a, when: x}}]\n"), ("  bad: {port: [}\n", HEAD),
        ("  bad: 7\n", HEAD),
        (f"  bad: {{{BOX}, port: x}}\n", f"{HEAD}include: missing.yaml\n"), ("", f"{HEAD}service: {{workers: x}}\n"),
    ],
)  # fmt: skip
def test_an_error_of_anything_else_is_everybody_s(tmp_path: Path, mailboxes: str, head: str) -> None:
    with pytest.raises(ConfigErrors):
        load(written(tmp_path / "m.yaml", mailboxes, head), sparing=True)


def test_where_no_mailbox_is_right_nothing_runs(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(f"{HEAD}mailboxes: {{a: {{{BOX}, port: x}}, off: {{{BOX}, enabled: false}}}}\n")
    with pytest.raises(ConfigErrors):
        load(path, sparing=True)
