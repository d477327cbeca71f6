"""What outages are made of: relays that may be dead, small disks, locked files, and ways to wait for a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mailpoller.testing.builders import plain
from scenarios.harness import PATIENCE_S, Daemon, Site
from servers.dovecot import Dovecot
from servers.smtp import Relay


def outgoing(site: Site, name: str, port: int, **settings: Any) -> None:
    """An outgoing through a relay on ``port``."""
    site.settings.setdefault("outgoing", {})[name] = {
        "type": "smtp",
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "sender": "mailpoller@example.com",
        **settings,
    }


def ring(site: Site, relay: Relay) -> None:
    """Alerts go by a relay of their own, which lives."""
    outgoing(site, "bell", relay.port)
    site.settings["alerts"] = {"outgoing": "bell", "to": ["ops@example.com"]}


def rung(relay: Relay) -> list[str]:
    """The subjects of the alerts that came, in order."""
    return [subject_of(mail.octets) for mail in relay.received if "ops@example.com" in mail.recipients]


def subject_of(octets: bytes) -> str:
    return str(email.message_from_bytes(octets, policy=email.policy.default)["Subject"])


def message_id_of(octets: bytes) -> str:
    return str(email.message_from_bytes(octets, policy=email.policy.default)["Message-ID"])


def sqlite_queue(site: Site, name: str, path: Path, **settings: Any) -> Path:
    """A further queue: its path."""
    site.settings["queues"][name] = {"type": "sqlite", "path": str(path), "retry_interval": "100ms", **settings}
    return path


def rule(site: Site, word: str, *queues: str) -> None:
    """Mail of every mailbox with ``word`` in its subject goes to ``queues``."""
    name = f"about-{word}"
    site.settings.setdefault("rules", []).append(
        {"name": name, "when": {"subject": {"contains": word}}, "then": {"queue": list(queues)}}
    )
    for mailbox in site.settings["mailboxes"].values():
        mailbox.setdefault("rules", []).append(name)


def fill(dovecot: Dovecot, user: str, word: str, count: int, *, start: int = 0, size: int = 0) -> Counter[str]:
    """Deliver so many messages of about ``size`` octets: their subjects."""
    subjects = [f"{word} {number}" for number in range(start, start + count)]
    text = ("x" * 70 + "\n") * (1 + size // 72)
    for subject in subjects:
        dovecot.deliver(user, plain(subject=subject, text=text))
    return Counter(subjects)


async def until(daemon: Daemon, true: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
    """Wait for something while the servers of this test go on."""
    await asyncio.to_thread(daemon.until, true, seconds)


async def said(daemon: Daemon, event: str, least: int = 1, seconds: float = PATIENCE_S, **keys: Any) -> None:
    """Wait until the daemon has said something so often."""
    await until(daemon, lambda: daemon.count(event, **keys) >= least, seconds)


async def stopped(daemon: Daemon, seconds: float = PATIENCE_S) -> int:
    """SIGTERM, and the exit code."""
    return await asyncio.to_thread(daemon.stop, seconds)


async def command(site: Site, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A short command of the same site."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "mailpoller", *arguments, "--config", str(site.config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@contextlib.contextmanager
def small_disk(path: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of its own at ``path``."""
    path.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


def remount(path: Path, mode: str) -> None:
    """``ro`` or ``rw``."""
    _mount("-o", f"remount,{mode}", str(path))


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(
            f"this test needs a disk of its own, and the right to mount one (run it as root): {done.stderr.strip()}"
        )


@contextlib.contextmanager
def full(disk: Path, *, left: int = 0) -> Iterator[None]:
    """Not more than ``left`` octets more fit on the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        file.truncate(file.tell() - left)
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes to the database and does not come to an end."""
    holder = sqlite3.connect(path, isolation_level=None, timeout=10)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


def strikes(site: Site) -> tuple[int, int]:
    """(strikes, suspects) that the ledger holds against messages."""
    with sqlite3.connect(f"file:{site.directory / 'ledger.db'}?mode=ro", uri=True, timeout=10) as database:
        row = database.execute("SELECT coalesce(sum(strikes), 0), coalesce(sum(suspect), 0) FROM message").fetchone()
    return int(row[0]), int(row[1])
