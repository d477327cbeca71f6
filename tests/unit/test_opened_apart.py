"""Real workers open what is closed, and whatever that is, they stay small and quick."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from base64 import encodebytes
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.body import Contents
from mailpoller.core.message import RawMessage
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.parser import parse
from mailpoller.workers import pool
from mailpoller.workers.pool import Unread, Workers
from unit.test_calendar import BOMBS as CALENDARS
from unit.test_calendar import OUTLOOK
from unit.test_reports import BOMBS as REPORTS
from unit.test_reports import aggregate, bomb
from unit.test_tnef import BOMBS as TNEFS
from unit.test_tnef import WHOLE
from unit.test_workers import raw

REPORT = ("application/gzip; name=x.gz", gzip.compress(aggregate()))


def mail(*parts: tuple[str, bytes]) -> bytes:
    head = b"Subject: Report domain: a.example Submitter: b.example Report-ID: 1\r\n"
    head += b"Content-Type: multipart/mixed; boundary=b\r\n"
    each = [
        f"\r\n--b\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode() + encodebytes(octets)
        for kind, octets in parts
    ]
    return head + b"".join(each) + b"\r\n--b--\r\n"


ALL = mail(REPORT, ("text/calendar", OUTLOOK.encode()), ("application/ms-tnef", WHOLE))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    found = Workers(1, deadline=timedelta(seconds=10))
    yield found
    await found.close()


async def test_a_worker_opens_what_a_thread_would(workers: Workers) -> None:
    message = parse(raw(ALL))
    assert set(message.closed) == {"report", "calendar", "tnef"}
    found = await workers.open(message.raw, message.closed)
    assert found == read_contents(message, message.closed)
    assert found.report is not None
    assert found.calendar is not None
    assert len(found.attachments) == 2
    assert found.undone == ()


async def test_what_hangs_while_it_is_opened_has_a_shorter_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.create_subprocess_exec

    async def begin(*_: str, **how: object) -> asyncio.subprocess.Process:
        return await real(sys.executable, "-c", "import time\ntime.sleep(60)\n", **how)  # type: ignore[arg-type]

    monkeypatch.setattr(pool.asyncio, "create_subprocess_exec", begin)
    monkeypatch.setattr(pool, "OPENING", timedelta(milliseconds=200))
    workers = Workers(1)
    with pytest.raises(Unread, match="timed-out"):
        await workers.open(raw(ALL), ("report",))


async def test_an_answer_to_another_question_is_no_answer(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pool.question_of

    def other(message: RawMessage, **_: object) -> bytes:
        return asked(message)

    monkeypatch.setattr(pool, "question_of", other)
    with pytest.raises(Unread, match="died"):
        await workers.open(raw(ALL), ("report",))


def test_what_is_signed_is_opened_as_if_it_lay_beside_its_signature() -> None:
    inner = b"Content-Type: text/calendar\r\n\r\n" + OUTLOOK.encode()
    signed = sequence(
        bytes.fromhex("06092a864886f70d010702"),
        tagged(0xA0, sequence(
            b"\2\1\1", b"\x31\0", sequence(bytes.fromhex("06092a864886f70d010701"), tagged(0xA0, tagged(4, inner)))
        )),
    )  # fmt: skip
    message = parse(raw(mail(("application/pkcs7-mime; name=smime.p7m", signed))))
    assert message.closed == ("calendar",)
    found = read_contents(message, message.closed).calendar
    assert found is not None
    assert found.method == "request"


def tagged(tag: int, octets: bytes) -> bytes:
    return bytes([tag, 0x82]) + len(octets).to_bytes(2, "big") + octets


def sequence(*each: bytes) -> bytes:
    return tagged(0x30, b"".join(each))


def test_contents_go_there_and_back() -> None:
    message = parse(raw(ALL))
    assert message.body.opened(Contents()).calendar is None


MEASURED = """
import pathlib, sys
from mailpoller.mail.contents.kinds import KINDS
from mailpoller.workers.worker import read
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    read(path.read_bytes(), header=False, closed=KINDS)
status = pathlib.Path("/proc/self/status").read_text()
print(int(status.partition("VmHWM:")[2].split()[0]) >> 10)
"""


def test_bombs_end_within_200_mb(tmp_path: Path) -> None:
    reports = {name: bomb(name) for name in REPORTS}
    kinds = {"application/gzip; name=x.gz": reports, "text/calendar": CALENDARS, "application/ms-tnef": TNEFS}
    for number, (kind, bombs) in enumerate(kinds.items()):
        for name, octets in bombs.items():
            (tmp_path / f"{number} {name}").write_bytes(mail((kind, octets)))
    told = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert int(told.stdout) < 200
