"""What is released from the quarantine: each message's trouble is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.message import RawMessage
from mailpoller.core.quarantined import Selection
from mailpoller.engine import custody as custodies
from mailpoller.engine import release
from mailpoller.engine.custody import Custody
from mailpoller.engine.release import Releases
from mailpoller.mail.parser import parse
from mailpoller.testing.builders import plain
from unit.test_notices import Site, quarantined


class Stories:
    async def trace(self, term: str, *, limit: int) -> list[Any]:
        return []

    async def brought(self, mid: str, receipts: Mapping[str, str]) -> bool:
        return True


class Journal:
    async def record(self, event: str, who: str, detail: str) -> None:
        return None


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.store.close()


async def test_a_message_that_upsets_our_code_stays_held_and_the_others_are_released(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(raw: RawMessage) -> Any:
        if b"n 1" in bytes(raw.octets.view()):
            raise LookupError("a bug")
        return parse(raw)

    sink, place = site.queue("other"), site.queues["other"]
    assert place is not None
    await site.store.deliver([quarantined(uid, plain(subject=f"n {uid}")) for uid in (1, 2)])
    monkeypatch.setattr(release, "parse", fragile)
    custody = Custody(site.store, Journal())  # type: ignore[arg-type]
    releases = Releases(custody, site.store, Stories(), lambda mailbox: None, {"other": place}, None)  # type: ignore[arg-type]
    ids = [one.delivery_id for one in await site.store.find(Selection(), limit=9)]
    answer = await releases.release({"ids": ids, "queue": "other", "who": "ada"})
    assert sorted(one["outcome"] for one in answer["results"]) == ["delivered", "held"]
    (left,) = await site.store.find(Selection(), limit=9)
    assert left.subject == "n 1" and len(sink.held) == 1


async def test_however_many_are_held_an_operator_is_told_of_all(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custodies, "IDS_AT_ONCE", 3)
    await site.store.deliver([quarantined(uid, plain(subject=f"n {uid}")) for uid in range(1, 8)])
    custody = Custody(site.store, Journal())  # type: ignore[arg-type]
    told: list[str] = []
    beyond: object = None
    for _ in range(3):
        answer = await custody.ids({"beyond": beyond})
        told += answer["ids"]
        beyond = answer["beyond"]
    assert beyond is None
    assert told == [one.delivery_id for one in await site.store.find(Selection(), limit=9)]
