"""Queues on this machine: a sync stands before each receipt, counted where the kernel sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from servers import programs

_DELIVERS = """
import asyncio, sys
from pathlib import Path
from mailpoller.core.component import Runtime
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.config.registry import load_plugin
from mailpoller.testing.deliveries import make_delivery
kind, path = sys.argv[1], Path(sys.argv[2])
async def main():
    block = load_plugin("sinks", kind).model_validate({"type": kind, "path": path})
    here = path.parent
    sink = block.build("q", Runtime(clock=SystemClock(), spool=Spool(here / "spool"), state_directory=here))
    await sink.deliver([make_delivery(99)])
    for number in range(20):
        sys.stderr.write(f"begun {number}\\n"); sys.stderr.flush()
        await sink.deliver([make_delivery(number)])
        sys.stderr.write(f"held {number}\\n"); sys.stderr.flush()
    await sink.close()
asyncio.run(main())
"""


@pytest.mark.skipif(programs.found("strace") is None, reason="there is no strace")
@pytest.mark.parametrize("kind", ["sqlite", "maildir", "jsonl"])
def test_a_sync_stands_before_each_receipt(kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    words = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=fdatasync,fsync,write", "-s", "16"]
    subprocess.run([*words, sys.executable, "-c", _DELIVERS, kind, str(tmp_path / "queue" / "q")], check=True)
    syncs, counted = 0, []
    for line in trace.read_text().splitlines():
        if '"begun ' in line:
            syncs = 0
        elif '"held ' in line:
            counted.append(syncs)
        elif "sync(" in line:
            syncs += 1
    assert len(counted) == 20
    assert min(counted) >= 1
