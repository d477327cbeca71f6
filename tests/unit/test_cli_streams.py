"""What the command line does when its standard streams cannot be used, and when files are not its to read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailpoller.cli.service import denied, reader
from mailpoller.config import load
from mailpoller.core.errors import LedgerUnavailable
from servers.command import PROGRAM, environment

NOBODY = 65534


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mailpoller.yaml"
    path.write_text(
        f"service: {{state_directory: {tmp_path}/state, control_socket: {tmp_path}/control.sock}}\n"
        f"queues: {{support: {{type: sqlite, path: {tmp_path}/support.db}}}}\n"
        f"mailboxes: {{box: {{type: maildir, path: {tmp_path}/box}}}}\n"
    )
    return path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["schema"], ["config"], ["check"], ["explain", "FILE"]])
def test_output_that_cannot_be_written_is_no_bug(words: list[str], config: Path) -> None:
    given = [str(config) if word == "FILE" else word for word in words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, *given], stdout=full, stderr=subprocess.PIPE, env=environment({"MAILPOLLER_CONFIG": str(config)})
        )
    assert (done.returncode, done.stderr) == (74, b"mailpoller: standard output: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_has_closed_lead_nowhere(closed: str, config: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "check", str(config)], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert ("no errors" in done.stdout) is (">&-" not in closed.replace("2>&-", ""))


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user whom rights bind, which they do not bind root."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(me)


def test_ledger_behind_a_door_is_told_with_who_may_pass(tmp_path: Path, config: Path) -> None:
    found = load(config)
    state = tmp_path / "state"
    state.mkdir()
    (state / "ledger.db").touch()
    state.chmod(0)
    try:
        with as_nobody():
            assert denied(state / "ledger.db")
            with (
                pytest.raises(LedgerUnavailable, match="permission denied; members of the service's group"),
                reader(found),
            ):
                pass
    finally:
        state.chmod(0o700)
    assert not denied(state / "ledger.db")
    assert not denied(state / "missing.db")
