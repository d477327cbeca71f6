"""What ``redeliver`` means by all that was delivered since then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from mailpoller.cli import redeliver, service
from mailpoller.core.errors import MessageGone, TransientError
from mailpoller.core.ports import Wanted

BEGIN = datetime(2026, 12, 1, tzinfo=UTC)


class Ledger:
    """Several messages are settled in each instant, as a commit does it."""

    def __init__(self, count: int, together: int) -> None:
        self.rows = [
            SimpleNamespace(mid=str(number), settled_at=BEGIN + timedelta(seconds=number // together))
            for number in range(count)
        ]

    def messages(self, wanted: Wanted, *, limit: int) -> Sequence[Any]:
        assert wanted.until is not None
        found = [row for row in self.rows if wanted.since <= row.settled_at < wanted.until]
        return sorted(found, key=lambda row: row.settled_at, reverse=True)[:limit]


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    made = Ledger(25, 3)

    @contextmanager
    def reader(_: object) -> Iterator[Ledger]:
        yield made

    monkeypatch.setattr(service, "reader", reader)
    monkeypatch.setattr(redeliver, "AT_ONCE", 10)
    return made


WANTED = Wanted(BEGIN, BEGIN + timedelta(days=1))


def test_however_many_there_are_each_is_meant_once(ledger: Ledger) -> None:
    found = [story.mid for story in redeliver._all(None, WANTED)]  # type: ignore[arg-type]
    assert len(found) == 25
    assert set(found) == {row.mid for row in ledger.rows}


def test_ended_in_the_middle_it_says_how_to_go_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def carry_out(_: object, request: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        if len(asked) == 7:
            raise TransientError("no daemon answers")
        asked.append(request["mid"])
        if len(asked) == 2:
            raise MessageGone("it is not there")
        return {"mailbox": "support", "folder": "INBOX", "uid": "1"}

    monkeypatch.setattr(service, "carry_out", carry_out)
    with pytest.raises(TransientError):
        redeliver._several(None, [], WANTED, dry_run=False, yes=True)  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert "6 messages to be brought at the next poll" in said.out
    assert "ended after 7 of 25 messages" in said.err
    until = datetime.fromisoformat(said.err.partition("--until ")[2].split()[0])
    rest = redeliver._all(None, Wanted(BEGIN, until))  # type: ignore[arg-type]
    assert {story.mid for story in rest} >= {row.mid for row in ledger.rows} - set(asked)
