"""What was receipted survives a kill."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mailpoller.core.delivery import Receipt
from mailpoller.testing.sink.ground import SinkGround

KILLED_SIZES = (300, 9_000, 200_000)
"""Octets of the messages, in turn, that the process which is killed delivers."""

_MARK = "receipt "
"""What tells a receipt from a line of the log in the output of the process that is killed."""


class KillPromises(SinkGround):
    """What was receipted survives a kill."""

    def test_what_was_receipted_survives_a_kill_at_the_next_instant(self, tmp_path: Path) -> None:
        with self._process(tmp_path, first=0) as process:
            receipts = _lines(process, at_least=1)
            process.kill()
            receipts += _lines(process)
        assert receipts, "the process delivered nothing"
        assert set(receipts) <= set(self.held(tmp_path))

    def test_kills_at_random_lose_nothing_that_was_receipted(self, tmp_path: Path) -> None:
        chance = random.Random(4)
        receipts: list[str] = []
        for number in range(self.kills):
            # Every process starts where the one before was, and so repeats what that one may have delivered.
            with self._process(tmp_path, first=max(0, len(set(receipts)) - 5)) as process:
                found = _lines(process, at_least=1)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.random() * 0.15)
                process.kill()
                receipts += found + _lines(process)
            assert found, f"process {number} delivered nothing"
        held = list(self.held(tmp_path))
        assert set(receipts) <= set(held)
        if self.exactly_once:
            assert len(held) == len(set(held))
        if self.holds_octets:
            for delivery_id in chance.sample(held, min(20, len(held))):
                octets = self.octets_of(tmp_path, delivery_id)
                assert len(octets) in KILLED_SIZES
                assert octets == octets[:1] * len(octets)

    @contextlib.contextmanager
    def _process(self, directory: Path, first: int) -> Iterator[subprocess.Popen[str]]:
        module = sys.modules[type(self).__module__].__file__
        command = [sys.executable, "-m", __name__, str(module), type(self).__name__, str(directory), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGKILL)


def _lines(process: subprocess.Popen[str], at_least: int | None = None) -> list[str]:
    """Delivery ids from the process: so many, or all until its end. A line that the kill tore is none."""
    assert process.stdout is not None
    lines: list[str] = []
    while (at_least is None or len(lines) < at_least) and (line := process.stdout.readline()):
        if line.startswith(_MARK) and line.endswith("\n"):
            lines.append(line.removeprefix(_MARK).strip())
    return lines


async def _deliver_for_ever(suite: SinkGround, directory: Path, uid: int) -> None:
    """Deliver batch after batch and print each delivery id when its receipt is there."""
    sink = suite.make_sink(directory)
    while True:
        batch = []
        for _ in range(3):
            octets = bytes([uid % 256]) * KILLED_SIZES[uid % len(KILLED_SIZES)]
            batch.append(suite.order(sink, uid, octets=octets))
            uid += 1
        for answer in await sink.deliver(batch):
            if isinstance(answer, Receipt):
                sys.stdout.write(f"{_MARK}{answer.delivery_id}\n")
        sys.stdout.flush()


def _main(file: str, name: str, directory: str, first: str) -> None:
    spec = importlib.util.spec_from_file_location("suite", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["suite"] = module
    spec.loader.exec_module(module)
    asyncio.run(_deliver_for_ever(getattr(module, name)(), Path(directory), int(first)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
