"""Fetching a few messages at a time: what is told, what is left alone, and that nobody leaves anything behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, RawMessage
from mailpoller.core.spool import Spool
from mailpoller.remote.fetching import FetchingAbreast
from mailpoller.remote.throttle import Busy

FOLDER = Folder("support", "INBOX", "epoch")


def claims(count: int) -> list[Claim]:
    return [Claim(MessageRef(FOLDER, str(number)), f"mid-{number}") for number in range(count)]


class Service(FetchingAbreast):
    """Answers as ``troubles`` says: uid -> the error."""

    def __init__(self, spool: Spool, wanted: Sequence[Claim], troubles: dict[str, Callable[[], Exception]]) -> None:
        super().__init__(wanted, 3)
        self.spool = spool
        self.troubles = troubles
        self.asked: list[str] = []
        self.given: list[RawMessage] = []

    async def _fetch(self, claim: Claim) -> RawMessage | Gone:
        uid = claim.ref.uid
        self.asked.append(uid)
        await asyncio.sleep(0)
        if uid in self.troubles:
            raise self.troubles[uid]()
        intake = self.spool.begin(100)
        intake.write(b"Subject: x\r\n\r\n")
        self.given.append(RawMessage(claim, intake.finish()))
        return self.given[-1]


async def test_what_cannot_be_had_is_told_after_all_that_can(tmp_path: Path) -> None:
    troubles = {"3": lambda: TransientError("not now", retry_after=timedelta(seconds=9))}
    service = Service(Spool(tmp_path), claims(8), troubles)
    found: set[str] = set()
    with pytest.raises(TransientError, match="1 of 8 messages cannot be fetched: not now") as caught:
        async for answer in service.answers("fetch"):
            found.add(answer.claim.ref.uid)
    assert found == set("0124567")
    assert caught.value.retry_after == timedelta(seconds=9)


async def test_who_is_busy_is_asked_for_nothing_more(tmp_path: Path) -> None:
    service = Service(Spool(tmp_path), claims(50), {"4": lambda: Busy("leave me alone")})
    with pytest.raises(TransientError, match="leave me alone"):
        async for _ in service.answers("fetch"):
            pass
    assert len(service.asked) < 10
    assert len(service.failed) + len(service.given) == 50


async def test_a_lost_session_is_the_reason_whatever_else_failed_beside_it(tmp_path: Path) -> None:
    troubles: dict[str, Callable[[], Exception]] = {
        "0": lambda: CredentialsRefused("no"), "1": lambda: SessionLost("gone"), "2": lambda: CredentialsRefused("no")
    }  # fmt: skip
    with pytest.raises(SessionLost, match="gone"):
        async for _ in Service(Spool(tmp_path), claims(3), troubles).answers("fetch"):
            pass


async def test_who_leaves_early_leaves_neither_task_nor_octets(tmp_path: Path) -> None:
    service = Service(Spool(tmp_path, threshold=0), claims(20), {})
    before = asyncio.all_tasks()
    async with aclosing(service.answers("fetch")) as answers:
        async for first in answers:
            assert isinstance(first, RawMessage)
            first.octets.close()
            break
        while len(service.given) < 20:  # reading does not wait for who consumes
            await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert list(tmp_path.iterdir()) == []
