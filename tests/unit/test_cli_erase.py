"""What ``erase`` asks the daemon for."""

from __future__ import annotations

from collections.abc import Mapping
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
