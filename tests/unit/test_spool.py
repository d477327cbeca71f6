"""The spool holds all of a message, or says that it cannot."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from mailpoller.core.spool import Spool


@pytest.mark.parametrize("chunks", [[5, 1500], [400, 400, 400], [1500, 1]], ids=str)
def test_disk_that_takes_only_a_part_cuts_no_message_short(tmp_path: Path, chunks: list[int]) -> None:
    """In a process of its own, whose files may not be larger than 1,000 octets: the system writes up to there, and
    says so without an error."""
    child = os.fork()
    if not child:
        outcome = 2
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            intake = Spool(tmp_path, threshold=10).begin(1 << 20)
            try:
                for size in chunks:
                    intake.write(b"x" * size)
                outcome = 1 if len(intake.finish().view()) < sum(chunks) else 3
            except OSError:
                intake.abort()
                outcome = 0
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_part_that_a_disk_takes_is_followed_by_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, threshold=10)
    file, path = spool.file()

    class Reluctant:
        """Takes seven octets at a time, as a file may."""

        def write(self, octets: bytes) -> int:
            return file.write(octets[:7])

        def close(self) -> None:
            file.close()

    monkeypatch.setattr(spool, "file", lambda: (Reluctant(), path))
    intake = spool.begin(1 << 20)
    octets = bytes(range(256)) * 3
    for start in range(0, len(octets), 100):
        intake.write(octets[start : start + 100])
    held = intake.finish()
    assert bytes(held.view()) == octets and held.size == len(octets)
    held.close()
