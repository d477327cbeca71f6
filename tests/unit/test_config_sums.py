"""A changed configuration is known, and nothing of it is kept."""

from __future__ import annotations

from pathlib import Path

from mailpoller.config import load
from mailpoller.config.sums import differences, sums

TEXT = """
queues: {{q: {{type: sqlite, path: q.db}}}}
mailboxes:
  support: {{type: imap, host: imap.example.com, username: support, password: hunter2, default_queue: q{more}}}
{others}
"""


def summed(tmp_path: Path, more: str = "", others: str = "") -> dict[str, dict[str, str]]:
    (tmp_path / "mailpoller.yaml").write_text(TEXT.format(more=more, others=others), "utf-8")
    return sums(load(tmp_path / "mailpoller.yaml"))


def test_blocks_and_keys_that_differ_are_named_and_no_value_is(tmp_path: Path) -> None:
    before = summed(tmp_path)
    assert differences(before, summed(tmp_path)) == []
    after = summed(tmp_path, ", poll_interval: 5m, start: all", "  sales: {extends: support, username: sales}")
    assert differences(before, after) == ["mailboxes.sales added", "mailboxes.support: poll_interval, start"]
    assert differences(after, before) == ["mailboxes.sales removed", "mailboxes.support: poll_interval, start"]
    assert "hunter2" not in repr(before)
    assert "imap.example.com" not in repr(before)
