"""What ``check`` can be given: a file, a directory, what comes by standard input, a drop-in that is to be put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.command import Said, mailpoller

MAIN = "include: conf.d/*.yaml\nqueues: {support: {type: jsonl, path: /q/s}}\n"
BOX = "type: imap, host: mail.example.com, username: u, password: 'env:S'"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "mailpoller.yaml").write_text(MAIN)
    (tmp_path / "conf.d" / "sales.yaml").write_text(f"mailboxes: {{sales: {{{BOX}}}}}\n")
    return tmp_path / "mailpoller.yaml"


def drop_in(site: Path, text: str, *words: str) -> Said:
    new = site.parent / "new"
    new.write_text(text)
    return mailpoller("check", "--config", str(site), "--drop-in", *words, str(new))


def test_a_directory_is_checked_by_its_file(site: Path) -> None:
    said = mailpoller("check", str(site.parent))
    assert said.code == 0 and "1 mailbox (1 polled here)" in said.out


def test_what_comes_by_standard_input_is_checked_as_if_it_were_in_place(site: Path) -> None:
    said = mailpoller("check", "--config", str(site), "-", stdin=(MAIN + "rules: 7\n").encode())
    assert said.code == 78
    assert f"{site.parent}/-:3:1: rules: " in said.err
    said = mailpoller("check", "--config", str(site), "-", stdin=MAIN.encode())
    assert said.code == 0 and "1 mailbox (1 polled here)" in said.out, "with its drop-ins"
    assert mailpoller("check", "--config", str(site), "-").code == 78, "nothing is no configuration"


def test_a_drop_in_is_checked_together_with_all_others(site: Path) -> None:
    said = drop_in(site, f"mailboxes: {{support: {{{BOX}}}}}\n")
    assert said.code == 0 and "2 mailboxes" in said.out
    said = drop_in(site, f"mailboxes: {{support: {{{BOX}, rules: [none]}}}}\n")
    assert said.code == 78 and f"{site.parent}/new:1:" in said.err
    said = drop_in(site, f"mailboxes: {{sales: {{{BOX}}}}}\n")
    assert said.code == 78 and "sales" in said.err, "there is one of this name"


def test_a_drop_in_takes_the_place_of_the_one_that_it_is_to_replace(site: Path) -> None:
    said = drop_in(site, f"mailboxes: {{sales: {{{BOX}}}, more: {{{BOX}, folders: [More]}}}}\n", "--as", "sales.yaml")
    assert said.code == 0 and "2 mailboxes" in said.out


@pytest.mark.parametrize("words", [["--drop-in"], ["--drop-in", "-"], ["--as", "x.yaml", "f"]])
def test_options_that_go_together_are_asked_for_together(words: list[str]) -> None:
    assert mailpoller("check", *words).code == 64
