"""Root at the command line: it reads what root alone may read, and then is the service's user."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from mailpoller.cli import exits, identity
from mailpoller.cli.identity import owner_of, work_as_owner
from mailpoller.cli.program import program
from mailpoller.config import load
from mailpoller.core.errors import ConfigError
from mailpoller.wire.oauth import login
from mailpoller.wire.oauth.endpoint import Grant

SERVICE = 54321
"""A user and a group that no system has."""
ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
CHILD = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may pass through, as pytest's is not."""
    with tempfile.TemporaryDirectory(prefix="mailpoller-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def configured(place: Path, state: Path) -> Path:
    secret = place / "secret"
    secret.write_text("root-alone\n")
    secret.chmod(0o600)
    mailbox = {"type": "imap", "host": "127.0.0.1", "port": 1, "tls": "none", "username": "ada@example.com"}
    auth = {
        "type": "oauth2", "grant": "device_code", "client_id": "app", "client_secret": f"file:{secret}",
        "token_url": "http://127.0.0.1:1/token", "device_url": "http://127.0.0.1:1/device", "scopes": ["mail"],
    }  # fmt: skip
    settings = {
        "service": {"state_directory": str(state), "control_socket": str(state / "control")},
        "queues": {"q": {"type": "sqlite", "path": str(state / "q.db")}},
        "mailboxes": {
            "support": {**mailbox, "auth": auth},
            "plain": {**mailbox, "username": "bob", "password": f"file:{secret}"},
        },
    }
    path = place / "mailpoller.yaml"
    path.write_text(yaml.safe_dump(settings))
    path.chmod(0o600)
    return path


def verb(words: list[str]) -> int:
    sys.argv = ["mailpoller", *words]
    try:
        return exits.exit_code(program)
    finally:
        structlog.reset_defaults()  # the tests after this one want to hear what is logged


def in_a_child(work: Callable[[], int]) -> int:
    """The work in a process of its own, since root does not come back. It must have been done here before: what is
    imported for the first time in the child might not be readable for the service's user."""
    if (child := os.fork()) == 0:
        code = 99
        try:
            code = work()
        except AssertionError as error:
            os.write(2, f"{error}\n".encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who says yes, and a program that everybody may read, wherever this one lies."""

    async def said(*_: Any, **__: Any) -> Grant:
        return Grant("a", timedelta(hours=1), "refresh")

    monkeypatch.setattr(login, "log_in", said)
    monkeypatch.setattr(identity, "_require_program", lambda name: None)


def state_of_the_service(place: Path) -> Path:
    state = place / "state"
    state.mkdir(mode=0o711)
    os.chown(state, SERVICE, SERVICE)
    return state


def logged_in(place: Path, state: Path) -> int:
    """Log in once as root for root's own directory, so that all is imported, and once for that of the service."""
    assert verb(["oauth", "login", "support", "-c", str(configured(place, place / "warm"))]) == 0
    path = configured(place, state)
    return in_a_child(lambda: verb(["oauth", "login", "support", "-c", str(path)]))


@ONLY_ROOT
@CHILD
def test_what_a_login_by_root_makes_is_the_services_from_the_start(place: Path, yes: None) -> None:
    state = state_of_the_service(place)
    assert logged_in(place, state) == 0
    made = [state / "tokens", *(state / "tokens").iterdir()]
    assert {(found.stat().st_uid, found.stat().st_gid) for found in made} == {(SERVICE, SERVICE)}
    (kept,) = (state / "tokens").glob("*.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@ONLY_ROOT
@CHILD
def test_no_link_of_the_services_user_is_followed_by_root(place: Path, yes: None) -> None:
    state, treasure = state_of_the_service(place), place / "treasure"
    treasure.mkdir(mode=0o700)
    (state / "tokens").symlink_to(treasure)
    os.chown(state / "tokens", SERVICE, SERVICE, follow_symlinks=False)
    assert logged_in(place, state) != 0
    assert list(treasure.iterdir()) == [] and treasure.stat().st_uid == 0


@ONLY_ROOT
@CHILD
def test_root_reads_its_secrets_and_is_then_the_service_in_every_thread(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_require_program", lambda name: None)
    config = load(configured(place, state_of_the_service(place)))
    password = config.mailboxes["plain"].password  # type: ignore[attr-defined]

    def work() -> int:
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(os.geteuid()) if go.wait(5) else None)
        go = threading.Event()
        other.start()
        work_as_owner(config)
        go.set()
        other.join()
        assert (os.geteuid(), os.getegid(), os.getgroups(), seen) == (SERVICE, SERVICE, [SERVICE], [SERVICE])
        assert password.reveal() == "root-alone"
        with pytest.raises(PermissionError):
            (place / "secret").read_text()
        with pytest.raises(PermissionError):
            (place / "made").touch()
        return 0

    assert in_a_child(work) == 0


@ONLY_ROOT
def test_what_is_roots_in_somebodys_directory_is_somebodys(place: Path) -> None:
    state = state_of_the_service(place)
    assert owner_of(place / "none" / "yet") == (0, 0)
    assert owner_of(state) == owner_of(state / "tokens" / "none yet") == (SERVICE, SERVICE)
    (state / "roots").mkdir()
    assert owner_of(state / "roots") == (SERVICE, SERVICE)
    (state / "link").symlink_to(place)
    os.chown(state / "link", SERVICE, SERVICE, follow_symlinks=False)
    assert owner_of(state / "link") == (SERVICE, SERVICE)
    (place / "by-root").symlink_to("state")
    assert owner_of(place / "by-root") == owner_of(place / "by-root" / "x") == (SERVICE, SERVICE)
    (place / "round").symlink_to("round")
    assert owner_of(place / "round") == (0, 0)


WRITING = [
    ["run"], ["run", "--once"], ["run", "--dry-run"], ["check", "--live"], ["status"], ["errors"],
    ["errors", "--clear"], ["trace", "x"], ["poll", "support"], ["redeliver", "x"],
    ["accept", "support", "--baseline"], ["forget", "gone", "--yes"], ["oauth", "login", "support"],
    ["queue", "adopt", "q"], ["queue", "list", "q"], ["queue", "peek", "q"], ["queue", "show", "q", "1"],
    ["queue", "take", "q"], ["queue", "ack", "q", "x"], ["queue", "return", "q", "x"],
    ["queue", "list", "{state}/q.db"],
    ["health"], ["reload"], ["messages"], ["reconcile", "support"], ["changes"], ["erase", "--mid", "x", "--yes"],
    ["backfill", "support", "--since", "1d"], ["pause", "support"], ["resume", "support"], ["outbox", "list"],
    ["outbox", "accept"],
    ["outbox", "show", "x"], ["outbox", "retry", "x"], ["outbox", "cancel", "x"], ["quarantine", "list"],
    ["quarantine", "show", "x"], ["quarantine", "export", "x"], ["quarantine", "release", "x"],
    ["quarantine", "retry", "x"], ["quarantine", "discard", "x", "--yes"],
]  # fmt: skip
HARMLESS = {
    "check",
    "explain",
    "test",
    "send",
    "config",
    "schema",
    "channels",
    "demo",
    "conversation mint",
    "queue create",
    "outbox intake",
}
"""They open nothing of the service's (``check`` only with ``--live``); ``send`` asks as its caller, whom the intake
must know."""


def test_every_verb_that_opens_what_is_the_services_is_known_here() -> None:
    groups = {group.name: group.typer_instance for group in program.registered_groups}
    verbs = {command.name for command in program.registered_commands} | {
        f"{group} {command.name or getattr(command.callback, '__name__', '')}"
        for group, typer in groups.items()
        for command in typer.registered_commands
    }
    known = {" ".join(words[: 2 if words[0] in groups else 1]) for words in WRITING}
    assert verbs == known | HARMLESS


@pytest.mark.parametrize("words", WRITING, ids=" ".join)
def test_root_is_somebody_else_before_anything_of_the_service_is_opened(
    words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = place / "state"
    state.mkdir()
    opened: list[str] = []

    def become(uid: int, gid: int, path: Path) -> None:
        raise ConfigError(f"becoming {uid}")

    monkeypatch.setattr(identity, "owner_of", lambda path: (SERVICE, SERVICE))
    monkeypatch.setattr(identity, "_become", become)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: opened.append("socket"))
    monkeypatch.setattr(asyncio, "run", lambda *_, **__: opened.append("loop"))
    ended = verb([word.format(state=state) for word in words] + ["-c", str(configured(place, state))])
    assert ended == (3 if words == ["health"] else 78)  # to a monitor it is unknown
    said = capsys.readouterr()
    assert f"becoming {SERVICE}" in said.err + said.out
    assert (opened, list(state.iterdir())) == ([], [])
