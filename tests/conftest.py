"""What all tests share: one Dovecot, users that nobody else has, and the rule that nothing a test started outlives
it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailpoller.storage import thread
from servers import command, programs
from servers.dovecot import Dovecot

pytest.register_assert_rewrite("mailpoller.testing", "scenarios.suite")

thread._IDLE_S = 0.02  # an idle thread ends with the test that began it

HERE = Path(__file__).parent

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    """A Dovecot that is started once; tests keep apart by their :func:`user`. A test that stops it starts its own."""
    with Dovecot() as server:
        yield server


@pytest.fixture
def user() -> str:
    """The name of a user whose mailbox is empty."""
    return f"user{next(_numbers)}"


@pytest.fixture(scope="module", autouse=True)
def nothing_of_other_files_is_collected() -> None:
    """Thousands of tests in one process leave a heap whose collection takes seconds, which would be counted to whatever
    is measured next."""
    gc.collect()
    gc.freeze()


LONG = ("unit/test_engine_storms.py", "unit/test_cli.py", "unit/test_mail_odd.py", "unit/test_programs.py",
        "unit/test_reload.py", "unit/test_engine_fairness.py", "unit/test_cli_streams.py")  # fmt: skip
"""The files that take the most processor time begin, so that no process is left alone with one at the end."""
DEALT_OUT = ("tests/unit/test_engine_storms.py", "tests/unit/test_mail_odd.py")
"""So long that the tests of one file are for several processes; they share nothing."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also the tests that take minutes: programs of others")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--all"):
        for item in items:
            if item.get_closest_marker("takes_minutes"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: scripts/test --all"))
    places = {HERE / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As ``--dist loadfile`` has it, but for the files that are dealt out."""
    from xdist.scheduler import LoadFileScheduling

    class Dealer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return nodeid if file in DEALT_OUT else file

    return Dealer(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """What is made anew by each process, octets with an instant in them or a random number, is no name for a test: all
    processes have to call it the same."""
    anew = (isinstance(val, bytes) and len(val) > 16) or (isinstance(val, int) and val > 1 << 40)
    return argname if anew else None


_strangers: set[str] = set()


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    """Note a program that is started and that the table ``scripts/programs`` lacks; a start cannot hide from this."""
    if event not in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        return
    words = arguments[1] if event == "subprocess.Popen" and not arguments[0] else arguments[0]
    first = words if isinstance(words, str | bytes | os.PathLike) else words[0]  # type: ignore[index]
    name = os.path.basename(os.fsdecode(first)).split()[0]
    # The same Python may have another name, in an environment that a test made.
    ours = name == "mailpoller" or os.path.realpath(os.fsdecode(first)) == os.path.realpath(sys.executable)
    if name not in programs.PROGRAMS and not ours:
        _strangers.add(name)


sys.addaudithook(_hear)


@pytest.fixture(autouse=True)
def every_program_is_in_the_table() -> Iterator[None]:
    """Fail the test that starts a program of which ``scripts/programs`` knows nothing."""
    _strangers.clear()
    yield
    assert not _strangers, "scripts/programs lacks these"


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Fail the test that leaves a process or a thread behind, and not whichever comes next.

    What was there before stays, such as the servers of a whole module. What is about to end may take its time.
    """
    before = _running()
    yield
    deadline = time.monotonic() + 30
    while (left := _running() - before) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not left, "the test leaves these running"


def _running() -> set[str]:
    """Our threads, and our child processes by their number, also those that have ended and were not waited for."""
    children: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ends just now
            children.update((task / "children").read_text().split())
    return {thread.name for thread in threading.enumerate()} | children - command.lasting()
