"""Version 0.1 itself, killed in the middle of its work, and the present version on what it left."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scenarios.harness import PATIENCE_S, Site
from scenarios.stores import assert_recognisable, blocked, copied, deliver, finish, put_back, to_both
from servers.dovecot import Dovecot

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "f61b72a"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot(pop3=True) as server:
        yield server


@pytest.fixture
def user() -> str:
    return f"upgraded{next(_numbers)}"


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working tree of the former version."""
    made = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT, "src", "tests"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("the history is not here")
    place = tmp_path_factory.mktemp("former")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        # Python 3.11 has no filters before 3.11.4.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(place)
    return place


def once(former: Path, site: Site, kill: tuple[str, str, int] | None = None) -> int:
    """``mailpoller run --once`` of the former version: its exit code."""
    program = ["mailpoller"] if kill is None else ["scenarios.killer", *map(str, kill)]
    return subprocess.run(
        [sys.executable, "-m", *program, "run", "--once", "--config", str(site.config)],
        env={**os.environ, "PYTHONPATH": f"{former}/src:{former}/tests"}, cwd=former / "tests",
        capture_output=True, timeout=PATIENCE_S, check=False,
    ).returncode  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "kill", "how"),
    [
        ("imap", ("after", "sink.deliver", 1), "as it was"),
        ("imap", ("after", "ledger.settle", 1), "as it was"),
        ("pop3", ("after", "sink.deliver", 1), "as it was"),
        ("imap", ("after", "sink.deliver", 1), "put back"),
        ("imap", ("after", "ledger.settle", 1), "put back"),
        ("pop3", ("after", "ledger.settle", 1), "put back"),
    ],
    ids=str,
)
def test_what_the_former_version_was_killed_with_is_finished_once(
    former: Path, dovecot: Dovecot, user: str, tmp_path: Path, kind: str, kill: Any, how: str
) -> None:
    site = Site(tmp_path)
    site.settings["service"]["batch_messages"] = 3
    del site.settings["service"]["log_rate"]  # the former version has no such key
    site.imap("support", dovecot.imap_port if kind == "imap" else dovecot.pop3_port, user, disposition="delete")
    site.settings["mailboxes"]["support"]["type"] = kind
    second = blocked(site, "second")
    to_both(site, "both", "second")
    both = deliver(dovecot, user, "both", 2)
    assert once(former, site) == 75, "one queue is down"
    assert site.subjects() == both
    dovecot.flags(user)
    copied(dovecot.maildir(user), tmp_path / "copy")
    expected = deliver(dovecot, user, "more", 5)
    assert once(former, site, kill) == (75 if kill is None else -signal.SIGKILL)
    if how == "put back":
        expected = Counter(site.subjects() - both)
        put_back(tmp_path / "copy", dovecot.maildir(user))
        expected += deliver(dovecot, user, "anew", 6, text="Longer than what bore these numbers before.")
    second.rmdir()
    assert finish(site, 3, 400) == 0
    assert_recognisable(site, both + expected)
    assert site.subjects(second) == both
    assert dovecot.flags(user) == {}
