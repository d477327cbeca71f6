"""What a configuration may cost, and what it may wait for: numbers, patterns, files that are none."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.config import ConfigErrors, files, load
from mailpoller.config.document import MAX_SCALAR
from mailpoller.core import literals
from mailpoller.core.errors import ConfigError
from mailpoller.core.literals import Secret, parse_duration, parse_size
from mailpoller.core.regular import read_regular
from mailpoller.wire.oauth.assertion import load_certificate
from mailpoller.wire.tls import TlsPolicy

QUEUE = "queues: {q: {type: sqlite, path: /q/q.db}}\n"
MAILBOX = "mailboxes: {m: {type: imap, host: imap.example.com, username: a, %s}}\n"


def written(place: Path, mailbox: str = "password: x", more: str = "") -> Path:
    path = place / "mailpoller.yaml"
    path.write_text(QUEUE + MAILBOX % mailbox + more)
    path.chmod(0o600)
    return path


@contextmanager
def at_once() -> Iterator[None]:
    """Whoever waits for a FIFO is let go, and has failed."""
    waited: list[str] = []

    def let_go() -> None:
        waited.append("it waited")
        for path in fifos:
            os.close(os.open(path, os.O_RDWR))

    timer = threading.Timer(10, let_go)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        fifos.clear()
    assert not waited


fifos: list[Path] = []


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    fifos.append(path)
    return path


# --- files -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "read",
    [
        lambda path: Secret(f"file:{path}").reveal(),
        lambda path: load(path),
        lambda path: TlsPolicy(ca_file=path).context(),
        lambda path: TlsPolicy(client_certificate=path).context(),
        load_certificate,
    ],
    ids=["secret", "configuration", "ca_file", "client certificate", "certificate"],
)
def test_what_is_no_regular_file_is_refused_at_once(read: Callable[[Path], object], tmp_path: Path) -> None:
    with at_once():
        for path in (fifo(tmp_path / "fifo"), Path("/dev/zero"), Path("/dev/tty")):
            with pytest.raises(ConfigError, match="not a regular file"):
                read(path)


def test_a_fifo_among_the_drop_ins_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    fifo(tmp_path / "conf.d" / "a.yaml")
    for pattern in ("conf.d/*.yaml", "conf.d/a.yaml"):
        with at_once(), pytest.raises(ConfigErrors, match="not a regular file"):
            load(written(tmp_path, more=f"include: {pattern}\n"))


def test_what_became_a_fifo_meanwhile_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fifo(tmp_path / "fifo")
    monkeypatch.setattr("mailpoller.core.regular.require_regular", lambda path, most: None)
    with at_once(), pytest.raises(OSError, match="not a regular file"):
        read_regular(path, 10)


def test_a_secret_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x" * literals.LARGEST_SECRET)
    assert len(Secret(f"file:{path}").reveal()) == literals.LARGEST_SECRET
    path.write_text("x" * (literals.LARGEST_SECRET + 1))
    with pytest.raises(ConfigError, match="larger than 64 KiB"):
        Secret(f"file:{path}").reveal()
    with pytest.raises(ConfigError, match="not a usable name"):
        Secret("file:a\0b").reveal()


def test_a_secret_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    path = written(tmp_path, f"password: 'file:{secret}'")
    tmp_path.chmod(0o700)
    assert load(path).warnings == ()  # nobody else comes that far
    for above in (tmp_path, *tmp_path.parents):
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o111)
    (warning,) = load(path).warnings
    assert (warning.path, "may read" in warning.message) == ("mailboxes.m.password", True)
    secret.chmod(0o640)
    assert load(path).warnings == ()


def test_check_names_the_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "here.pem").touch()
    auth = "{type: oauth2, grant: client_credentials, token_url: 'https://x.example/', client_id: a, certificate: %s}"
    keys = f"ca_file: {tmp_path}/here.pem, client_certificate: {tmp_path}/c.pem, client_key: {tmp_path}, auth: {auth}"
    found = load(written(tmp_path, keys % f"{tmp_path}/o.pem")).missing_files()
    assert [(one.path.removeprefix("mailboxes.m."), one.message) for one in found] == [
        ("client_certificate", f"{tmp_path}/c.pem: No such file or directory"),
        ("client_key", f"{tmp_path}: Is a directory"),
        ("auth.certificate", f"{tmp_path}/o.pem: No such file or directory"),
    ]


# --- numbers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["hold_above", "max_message_size", "poll_interval", "port"])
@pytest.mark.parametrize(
    "number",
    [
        "1" + "0" * 30, "0x" + "f" * 200_000, "1.0e+400", "1e400", ".inf", "-.inf", ".nan", "9" * 5000,
        "1" + ":59" * 200_000, "9999999d", "9" * 400 + "d", "99999999999GB", "9" * 400 + "GB", "-1",
    ],
    ids=lambda number: number[:12],
)  # fmt: skip
def test_a_number_without_measure_is_an_error_in_words(key: str, number: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as refused:
        load(written(tmp_path, f"password: x, {key}: {number}"))
    (problem,) = refused.value.problems
    assert problem.path == f"mailboxes.m.{key}"
    assert len(problem.message) < 300


def test_every_duration_and_size_that_is_taken_can_be_counted_with() -> None:
    assert parse_duration("36525d") == timedelta(days=36525)
    assert parse_size("8000000GB") == 8 * 10**15 and parse_size(8 * 10**18) < 2**63
    for written_ in ("36526d", "1" + "0" * 400 + "s"):
        with pytest.raises(ValueError, match="hundred years"):
            parse_duration(written_)
    for written_ in (2**63, f"{10**12}GB"):
        with pytest.raises(ValueError, match="at most"):
            parse_size(written_)
    assert math.isinf(float("9" * 400))
    assert len(str(2**63)) < MAX_SCALAR


# --- includes --------------------------------------------------------------------------------------------------------
def test_drop_ins_are_bounded_in_number_size_and_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf.d").mkdir()
    for number in range(4):
        (tmp_path / "conf.d" / f"{number}.yaml").write_text(f"mailboxes: {{x{number}: {{enabled: false}}}}\n")
    path = written(tmp_path, more="include: conf.d/*.yaml\n")
    assert len(load(path).mailboxes) == 5
    monkeypatch.setattr(files, "MAX_FILES", 3)
    with pytest.raises(ConfigErrors, match="include: more than 3 drop-ins"):
        load(path)
    monkeypatch.setattr(files, "MAX_FILES", 4)
    monkeypatch.setattr(files, "MAX_OCTETS", 100)
    with pytest.raises(ConfigErrors, match="include: drop-ins of more than"):
        load(path)
    with pytest.raises(ConfigErrors, match="wildcards in more than 2 parts"):
        load(written(tmp_path, more="include: /*/*/*.yaml\n"))
    with pytest.raises(ConfigErrors, match="more than 100 patterns"):
        load(written(tmp_path, more=f"include: [{', '.join(['conf.d/*.yaml'] * 101)}]\n"))
