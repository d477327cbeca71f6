"""A program under the unit's settings, as far as the kernel lets a test have them: no memory that is writable and
executable (MemoryDenyWriteExecute), no new privileges."""

from __future__ import annotations

import asyncio
import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.command import CommandQueueConfig
from mailpoller.testing.deliveries import make_delivery
from servers import programs

_NO_NEW_PRIVS, _MDWE = 38, 65
_SCRIPT = "require('fs').writeFileSync(process.argv[1], require('fs').readFileSync(0))"


async def _deliver(directory: Path, words: list[str]) -> str:
    """What a queue in this process answers, and what its block has to say."""
    block = CommandQueueConfig(type="command", command=words, directory=directory)
    sink = block.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))
    (answer,) = await sink.deliver([make_delivery(1, b"Subject: x\r\n\r\nx\r\n")])
    await sink.close()
    return json.dumps([type(answer).__name__, getattr(answer, "reason", ""), [one.text for one in block.findings()]])


def _confined(directory: Path, words: list[str]) -> list[object]:
    """The same from a process that is confined as the unit confines it."""
    command = [sys.executable, __file__, str(directory), *words]
    environment = {"PATH": "/usr/bin:/bin", "INVOCATION_ID": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    if done.returncode == 3:
        pytest.skip("this kernel knows no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, list)
    return found


def test_node_is_killed_under_the_unit_which_check_knows_and_goes_on_without_its_compiler(tmp_path: Path) -> None:
    node = programs.found("node")
    if node is None:
        pytest.skip("no node")
    answer, reason, findings = _confined(tmp_path, [node, "-e", _SCRIPT, "got"])
    assert answer == "Refusal"
    assert "killed by SIG" in str(reason)
    assert "MemoryDenyWriteExecute" in str(findings)
    assert not (tmp_path / "got").exists()
    answer, reason, findings = _confined(tmp_path, [node, "--jitless", "-e", _SCRIPT, "got"])
    assert (answer, reason, findings) == ("SealedReceipt", "", [])
    assert (tmp_path / "got").read_bytes() == b"Subject: x\r\n\r\nx\r\n"


def test_a_shell_is_at_home_under_the_unit(tmp_path: Path) -> None:
    answer, reason, findings = _confined(tmp_path, ["sh", "-c", "cat > got"])
    assert (answer, reason, findings) == ("SealedReceipt", "", [])
    assert (tmp_path / "got").read_bytes() == b"Subject: x\r\n\r\nx\r\n"


if __name__ == "__main__":
    prctl = ctypes.CDLL(None).prctl
    if prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or prctl(_MDWE, 1, 0, 0, 0):
        sys.exit(3)
    print(asyncio.run(_deliver(Path(sys.argv[1]), sys.argv[2:])))
