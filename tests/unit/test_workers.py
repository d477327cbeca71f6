"""What may be slow or dangerous is read in processes of their own, and harms nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.body import Body
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.spool import Octets, Spool
from mailpoller.mail.parser import parse
from mailpoller.workers import pool, worker
from mailpoller.workers.frames import answer, found_in
from mailpoller.workers.pool import NoWorker, Unread, Workers
from waiting import until

MAIL = (
    b"From: a@example.org\r\nSubject: hello\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: c@example.org\r\nDate: Mon, 2 Mar 2026 10:00:00 +0100\r\n"
    b"Subject: inner\r\n\r\nwithin\r\n"
    b"--b\r\nContent-Type: application/pdf; name=x.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n"
)
HANGS = "import sys, time\nsys.stdin.buffer.read(4)\ntime.sleep(60)\n"
DIES = "import os\nos.abort()\n"

Begin = Callable[..., Awaitable[asyncio.subprocess.Process]]


def raw(octets: bytes | Octets = MAIL, *, mailbox: str = "support") -> RawMessage:
    held = Octets.of(octets) if isinstance(octets, bytes) else octets
    ref = MessageRef(Folder(mailbox, "INBOX", "1"), "1", held.size)
    return RawMessage(Claim(ref, "mid"), held)


async def read(workers: Workers, message: RawMessage) -> Body:
    return await workers.read(message)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    found = Workers(1, deadline=timedelta(seconds=10))
    yield found
    await found.close()


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], list[int]]:
    """Have the next ``count`` workers be other programs; the pids of all workers that are begun."""

    def replace(program: str, count: int) -> list[int]:
        real: Begin = asyncio.create_subprocess_exec
        pids: list[int] = []

        async def begin(*words: str, **how: object) -> asyncio.subprocess.Process:
            found = await (real(sys.executable, "-c", program, **how) if len(pids) < count else real(*words, **how))
            pids.append(found.pid)
            return found

        monkeypatch.setattr(pool.asyncio, "create_subprocess_exec", begin)
        return pids

    return replace


async def test_a_worker_reads_what_a_thread_would(workers: Workers) -> None:
    message = raw()
    body = await read(workers, message)
    assert body == parse(message).body
    assert body.text.strip() == "Grüße"
    assert body.forwarded is not None and body.forwarded.date is not None


async def test_a_spooled_message_is_read_where_it_lies(workers: Workers, tmp_path: Path) -> None:
    spool = Spool(tmp_path, threshold=0)
    spool.prepare()
    intake = spool.begin(len(MAIL))
    intake.write(MAIL)
    message = raw(intake.finish())
    assert message.octets.path is not None
    assert await read(workers, message) == parse(raw()).body


async def test_the_header_alone_may_be_parsed(workers: Workers) -> None:
    assert await workers.read(raw(), header=True) == Body("", "", ())


async def test_one_worker_reads_many(workers: Workers, instead: Callable[[str, int], list[int]]) -> None:
    pids = instead("", 0)
    for number in range(5):
        assert "x" * number in (await read(workers, raw(b"Subject: x\r\n\r\n" + b"x" * number))).text
    assert len(pids) == 1


async def test_what_hangs_is_killed_and_named_and_the_next_is_read(
    instead: Callable[[str, int], list[int]],
) -> None:
    workers = Workers(1, deadline=timedelta(milliseconds=300))
    pids = instead(HANGS, 1)
    with pytest.raises(Unread, match="timed-out"):
        await read(workers, raw())
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    slow = Workers(1)
    assert await read(slow, raw()) == parse(raw()).body
    await workers.close()
    await slow.close()


async def test_a_worker_that_somebody_killed_costs_the_message_nothing(
    workers: Workers, instead: Callable[[str, int], list[int]]
) -> None:
    pids = instead(DIES, 1)
    assert await read(workers, raw()) == parse(raw()).body
    assert len(pids) == 2


async def test_a_message_that_kills_two_workers_is_to_blame(
    workers: Workers, instead: Callable[[str, int], list[int]]
) -> None:
    instead(DIES, 2)
    with pytest.raises(Unread, match="died"):
        await read(workers, raw())
    assert await read(workers, raw(mailbox="other")) == parse(raw()).body


async def test_one_mailbox_that_hangs_workers_holds_up_no_other(
    instead: Callable[[str, int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "IMPATIENT", timedelta(milliseconds=100))
    workers = Workers(1, deadline=timedelta(seconds=30))
    pids = instead(HANGS, 1)
    hanging = [asyncio.create_task(read(workers, raw(mailbox="bad"))) for _ in range(3)]
    await until(lambda: pids)
    async with asyncio.timeout(10):
        assert await read(workers, raw(mailbox="good")) == parse(raw()).body
    assert len(pids) == 2  # the other two wait for the first: a mailbox has one worker at a time
    for one in hanging:
        one.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    await workers.close()


async def test_a_machine_without_processes_is_not_the_message_s_fault(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin(*words: str, **how: object) -> asyncio.subprocess.Process:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(pool.asyncio, "create_subprocess_exec", begin)
    with pytest.raises(NoWorker, match="temporarily unavailable"):
        await read(workers, raw())


def ignored(pid: int) -> set[int]:
    """The signals that a process ignores."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return {number for number in range(1, 32) if mask >> (number - 1) & 1}


async def test_a_worker_heeds_no_stop_and_ends_with_the_daemon() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", worker.__name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    await until(lambda: ignored(process.pid) >= {signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
    process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert process.returncode is None
    process.stdin.close()
    assert await process.wait() == 0


async def test_a_worker_has_no_secret_of_our_environment_and_says_nothing_of_a_mail(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "s3cr3t-sentinel")
    await read(workers, raw())
    (worker_process,) = workers._idle
    assert b"s3cr3t-sentinel" not in Path(f"/proc/{worker_process.pid}/environ").read_bytes()
    assert Path(f"/proc/{worker_process.pid}/fd/2").readlink() == Path("/dev/null")


async def test_memory_that_a_message_wants_beyond_measure_is_refused_in_a_word(
    workers: Workers, instead: Callable[[str, int], list[int]]
) -> None:
    greedy = (
        "import mailpoller.workers.worker as worker\n"
        "def read(octets, **_):\n    return [bytearray(1 << 27) for _ in range(40)]\n"
        "worker.read = read\nworker.main()\n"
    )
    instead(greedy, 1)
    with pytest.raises(Unread, match="out-of-memory"):
        await read(workers, raw())


def test_an_answer_is_what_was_read() -> None:
    body = parse(raw()).body
    assert found_in(answer(body)[4:]) == body
    for nonsense in (b"[]", b"{}", b'{"body": 3}', b"nonsense"):
        with pytest.raises(ValueError):
            found_in(nonsense)
