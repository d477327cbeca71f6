"""What ``erase`` asks the daemon for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mailpoller.cli import erase, service

IDS_AT_ONCE = 10


@pytest.mark.parametrize(("stubborn", "told"), [(0, (25, 0)), (1, (24, 1))])
def test_all_of_a_flood_is_given_up_however_few_the_daemon_tells_of_at_once(
    monkeypatch: pytest.MonkeyPatch, stubborn: int, told: tuple[int, int]
) -> None:
    held = [str(number) for number in range(25)]
    kept = held[:stubborn]

    def carry_out(_: object, request: Mapping[str, Any]) -> Mapping[str, Any]:
        if request["do"] == "quarantine-ids":
            return {"ids": held[:IDS_AT_ONCE]}
        results = []
        for one in request["ids"]:
            if one not in kept:
                held.remove(one)
            results.append({"id": one, "outcome": "held" if one in kept else "discarded"})
        return {"results": results}

    monkeypatch.setattr(service, "carry_out", carry_out)

    def others() -> list[str]:
        return erase._held(None, "ada@x.example", None)  # type: ignore[arg-type]

    assert erase._from_quarantine(None, others(), others) == told  # type: ignore[arg-type]


def test_erase_goes_on_until_nothing_is_left_and_each_piece_leaves_the_queues_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [SimpleNamespace(mid=str(number), state="settled") for number in range(25)]
    steps: list[tuple[str, list[str]]] = []

    def carry_out(_: object, request: Mapping[str, Any]) -> Mapping[str, Any]:
        steps.append(("ledger", request["mids"]))
        rows[:] = [row for row in rows if row.mid not in request["mids"]]
        return {"notes": 1}

    def from_queues(_: object, mids: list[str], *, dry_run: bool) -> tuple[dict[str, int], list[str]]:
        steps.append(("queues", mids))
        return {"support": len(mids)}, ["queue other: is busy"]

    monkeypatch.setattr(service, "carry_out", carry_out)
    monkeypatch.setattr(erase, "_from_queues", from_queues)
    monkeypatch.setattr(erase, "AT_ONCE", 5)
    told: dict[str, Any] = {"queues": {}, "notes": 0, "messages": 0}

    def others() -> list[Any]:
        return rows[:10]

    mids = [row.mid for row in others()]
    failed = erase._from_queues_and_ledger(None, mids, others, "ada@x.example", told)  # type: ignore[arg-type]
    assert failed == ["queue other: is busy"]
    assert (rows, told) == ([], {"queues": {"support": 25}, "notes": 5, "messages": 25})
    assert [what for what, _ in steps] == ["queues", "ledger"] * 5
    assert all(steps[at][1] == steps[at + 1][1] for at in range(0, 10, 2))
