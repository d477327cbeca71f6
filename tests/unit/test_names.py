"""Names: one look-up a host, in threads of their own, and literal addresses in none."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.wire import names as names_module
from mailpoller.wire.names import resolve


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often the resolver was asked for each name; those that begin with "hangs" hang until the test is over."""
    counts, gate, true = Counter[str](), threading.Event(), socket.getaddrinfo

    def look_up(host: str, port: object, **how: Any) -> Any:
        if how.get("flags"):
            return true(host, port, **how)
        counts[host] += 1
        if host.startswith("hangs"):
            gate.wait(30)
        if host.startswith("missing"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(names_module, "_names", names_module._Names())
    yield counts
    gate.set()


async def test_a_healthy_name_is_resolved_at_once_beside_sixty_that_hang(asked: Counter[str]) -> None:
    waiting = [asyncio.create_task(resolve(f"hangs{number}.test", 993, seconds=5)) for number in range(60)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    found = await resolve("well.test", 993, seconds=5)
    assert time.monotonic() - began < 1
    assert [address for _, _, address in found] == [("::1", 993, 0, 0), ("127.0.0.1", 993)]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_host_has_one_look_up_however_many_wait_for_it_and_ask_again(asked: Counter[str]) -> None:
    for _ in range(3):
        answers = await asyncio.gather(
            *(resolve("hangs.test", port, seconds=0.05) for port in range(1, 21)), return_exceptions=True
        )
        assert all(isinstance(one, TransientError) and "no answer about hangs.test" in str(one) for one in answers)
    assert asked["hangs.test"] == 1
    assert sum(thread.name.startswith("names") for thread in threading.enumerate()) >= 1
    for _ in range(2):  # what was answered is asked for anew
        with pytest.raises(TransientError, match=r"missing\.test is not found"):
            await resolve("missing.test", 1, seconds=5)
    assert asked["missing.test"] == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "192.0.2.7", "2001:db8::1"])
async def test_a_literal_address_needs_no_resolver(asked: Counter[str], host: str) -> None:
    ((_, _, address),) = await resolve(host, 143, seconds=1)
    assert address[:2] == (host, 143)
    assert not asked


async def test_names_that_end_in_a_digit_are_names(asked: Counter[str]) -> None:
    assert len(await resolve("mail1", 143, seconds=1)) == 2
    assert asked == {"mail1": 1}


@pytest.mark.parametrize(
    "trouble", [RuntimeError("can't start new thread"), socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure")]
)
async def test_a_name_that_no_thread_or_memory_is_left_to_ask_for_is_this_machines_trouble(
    trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> NoReturn:
        raise trouble

    monkeypatch.setattr(names_module._names, "ask", none_left)
    with pytest.raises(MachineTrouble, match="cannot be asked for now"):
        await resolve("mail.example", 143, seconds=5)
