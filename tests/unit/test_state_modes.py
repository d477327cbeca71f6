"""What the service makes on the disk for itself alone is nobody else's, whatever umask it was started with."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailpoller.assembly.preparing import prepare_runtime
from mailpoller.config import load
from mailpoller.engine.clock import SystemClock
from mailpoller.wire.oauth.store import Kept, TokenFile


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    former = os.umask(0)
    yield
    os.umask(former)


def modes(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): oct(stat.S_IMODE(path.lstat().st_mode)) for path in directory.rglob("*")}


def test_state_directory_and_those_above_it_are_not_for_everybody_to_write(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(
        f"service: {{environment: test, state_directory: {tmp_path}/a/b/state}}\nledger: {{type: sqlite, path: "
        f"{tmp_path}/ledger.db}}\nqueues: {{q: {{type: sqlite, path: {tmp_path}/q.db}}}}\nmailboxes: {{box: {{type: "
        f"maildir, path: {tmp_path}/in}}}}\nquarantine: {{type: maildir, path: {tmp_path}/quarantine}}\n"
    )
    prepare_runtime(load(file), SystemClock())
    assert modes(tmp_path / "a") == {"b": "0o755", "b/state": "0o750", "b/state/spool": "0o700"}


async def test_refresh_token_is_ours_alone_and_so_is_the_directory_of_it(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "a" / "state", client_id="c", token_url="https://e.example/t", owner="joe")
    async with file.locked():
        file.write(Kept("refresh", datetime.now(UTC)))
    assert sorted(modes(tmp_path / "a").values()) == ["0o600", "0o600", "0o700", "0o750"]


async def test_refresh_token_replaces_a_link_and_does_not_write_through_it(tmp_path: Path) -> None:
    file = TokenFile(tmp_path, client_id="c", token_url="https://e.example/t", owner="joe")
    (tmp_path / "elsewhere").write_text("precious")
    file.path.parent.mkdir()
    file.path.symlink_to(tmp_path / "elsewhere")
    file.write(Kept("refresh", datetime.now(UTC)))
    assert (tmp_path / "elsewhere").read_text() == "precious" and not file.path.is_symlink()
