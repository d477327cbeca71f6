"""What happens to stores of mail: they are filled, copied, put back; and what must hold of the queues afterwards,
whatever happened."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.dovecot import Dovecot

_numbers = itertools.count()


def letters(word: str, count: int, *, text: str = "All of the same length.") -> list[bytes]:
    """Mails of one size, with a Message-ID each: ``word 0`` and so on."""
    return [
        plain(subject=f"{word} {number}", text=text, headers={"Message-ID": f"<{next(_numbers):08}@customer.example>"})
        for number in range(count)
    ]


def numbered(word: str, count: int) -> Counter[str]:
    """The subjects of as many :func:`letters`."""
    return Counter(f"{word} {number}" for number in range(count))


def deliver(
    dovecot: Dovecot, user: str, word: str, count: int, *, text: str = "All of the same length."
) -> Counter[str]:
    """Letters, each received in another second, as on a common day: their subjects."""
    began = datetime.now(UTC) - timedelta(minutes=10)
    for octets in letters(word, count, text=text):
        dovecot.deliver(user, octets, date=began + timedelta(seconds=next(_numbers) % 500))
    return numbered(word, count)


def copied(source: Path, target: Path) -> None:
    """A copy with every file's owner and dates, as a back-up makes it."""

    def copy(one: str, other: str) -> str:
        shutil.copy2(one, other)
        status = Path(one).stat()
        shutil.chown(other, status.st_uid, status.st_gid)
        return other

    shutil.copytree(source, target, copy_function=copy)
    for directory in [source, *(path for path in source.rglob("*") if path.is_dir())]:
        status = directory.stat()
        shutil.chown(target / directory.relative_to(source), status.st_uid, status.st_gid)


def put_back(copy: Path, place: Path) -> None:
    """What is there is lost, and the copy stands in its place."""
    place.rename(copy.with_name(f"lost {next(_numbers)}"))  # at once, for a server may be writing there
    copied(copy, place)


def blocked(site: Site, name: str) -> Path:
    """A further queue, to which nothing can be brought until the directory in its place is removed."""
    path = site.directory / name / "queue.db"
    path.mkdir(parents=True)
    path.parent.chmod(0o755)
    site.settings["queues"][name] = {"type": "sqlite", "path": str(path), "payload": "raw", "retry_interval": "200ms"}
    return path


def to_both(site: Site, word: str, other: str) -> None:
    """Mail with ``word`` in its subject goes to ``support`` and to ``other``."""
    site.settings["rules"] = [
        {"name": "both", "when": {"subject": {"contains": word}}, "then": {"queue": ["support", other]}}
    ]
    site.settings["mailboxes"]["support"]["rules"] = ["both"]


def finish(site: Site, turns: int = 3, apart_s: float = 100) -> int:
    """As from cron: so many runs, time passing between them. The last exit code."""
    code = -1
    for _ in range(turns):
        site.pass_time(apart_s)
        code = site.once()
    return code


def told(site: Site, event: str, **keys: Any) -> int:
    """How often all processes of the site have logged an event."""
    return sum(
        line.get("event") == event and all(line.get(key) == value for key, value in keys.items())
        for log in site.directory.glob("log-*.jsonl")
        for line in map(json.loads, filter(lambda text: text.startswith("{"), log.read_text().splitlines()))
    )


def assert_recognisable(site: Site, expected: Counter[str]) -> None:
    """All is there and nothing else; and what is there once more says of which event it is a repeat."""
    bearers: dict[str, list[dict[str, Any]]] = {}
    for event in site.events():
        bearers.setdefault(event["data"]["subject"], []).append(event)
    assert set(bearers) == set(expected)
    for subject, events in bearers.items():
        plainly = {event["deliveryid"] for event in events if event["data"]["repeat_of"] is None}
        assert len(plainly) == expected[subject], (subject, events)
