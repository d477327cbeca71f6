"""What people who work on many quarantined messages at once are told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from mailpoller.cli import quarantine
from mailpoller.core.errors import TransientError


def test_a_slow_queue_is_waited_for_by_one_message_and_what_is_done_is_told_before_the_trouble(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def answer(config: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        if request["do"] == "quarantine-ids":
            return {"ids": ["3"]} if request["beyond"] else {"ids": ["1", "2"], "beyond": ["then", "2"]}
        if request["do"] == "quarantine-list":
            return {"messages": [], "more": False}
        asked.append(request["ids"])
        if len(asked) == 3:
            raise TransientError("it hung up")
        return {"results": [{"id": one, "outcome": "delivered", "detail": "other"} for one in request["ids"]]}

    monkeypatch.setattr(quarantine, "_ask", answer)
    what: dict[str, Any] = {"do": "quarantine-release"}
    with pytest.raises(TransientError):
        quarantine._act(None, what, {"ids": ["1", "2", "3"]}, dry_run=False, as_json=True)  # type: ignore[arg-type]
    assert asked == [["1"], ["2"], ["3"]]
    assert [one["id"] for one in json.loads(capsys.readouterr().out)["results"]] == ["1", "2"]
