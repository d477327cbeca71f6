"""The real command on real servers whose names come to stand for other messages, and on stores that are away for a
while."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.dovecot import Dovecot

BEFORE, AFTER = "%08Xu%08Xv", "%v.%u"
_numbers = itertools.count()


@pytest.fixture
def dovecot() -> Iterator[Dovecot]:
    with Dovecot(pop3=True, extra=f"protocol pop3 {{\n  pop3_uidl_format = {BEFORE}\n}}\n") as server:
        yield server


@pytest.fixture
def user() -> str:
    return f"borne{next(_numbers)}"


def letters(word: str, count: int) -> list[bytes]:
    return [plain(subject=f"{word} {number}", text="x" * number) for number in range(count)]


def deliver(dovecot: Dovecot, user: str, word: str, count: int) -> Counter[str]:
    dovecot.deliver_all(user, letters(word, count))
    return Counter(f"{word} {number}" for number in range(count))


def copied(source: Path, target: Path) -> None:
    """A copy with every file's owner, as a back-up makes it."""

    def copy(one: str, other: str) -> str:
        shutil.copy2(one, other)
        shutil.chown(other, *owner(Path(one)))
        return other

    shutil.copytree(source, target, copy_function=copy)
    for directory in [source, *(path for path in source.rglob("*") if path.is_dir())]:
        shutil.chown(target / directory.relative_to(source), *owner(directory))


def owner(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


@pytest.mark.parametrize("disposition", ["leave", "delete", {"move": "Done"}], ids=["leave", "delete", "move"])
@pytest.mark.parametrize("start", ["all", "now"])
def test_mail_that_gets_numbers_anew_in_a_store_that_was_put_back_is_delivered_once(
    dovecot: Dovecot, user: str, tmp_path: Path, disposition: Any, start: str
) -> None:
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user, disposition=disposition, start=start)
    dovecot.deliver_all(user, letters("old", 4), date=datetime.now(UTC) - timedelta(days=2))
    old = Counter(f"old {number}" for number in range(4))
    assert site.once() in (0, 75)
    copy = tmp_path / "copy"
    dovecot.stop()
    copied(dovecot.maildir(user), copy)
    dovecot.start()
    lost = deliver(dovecot, user, "delivered before the accident", 5)
    assert site.once() == 0
    dovecot.stop()
    shutil.rmtree(dovecot.maildir(user))
    copied(copy, dovecot.maildir(user))
    dovecot.start()
    new = deliver(dovecot, user, "new", 8)
    for _ in range(3):
        code = site.once()
    assert code == 0
    assert site.subjects() == (old if start == "all" else Counter()) + lost + new


def test_other_names_for_the_same_pop3_mails_bring_none_of_them_again(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    site.imap("support", dovecot.pop3_port, user)
    site.settings["mailboxes"]["support"] |= {"type": "pop3", "hold_above": 10}
    expected = deliver(dovecot, user, "mail", 30)
    assert site.once() == 0
    file = dovecot.directory / "dovecot.conf"
    written = file.read_text("utf-8")
    dovecot.stop()
    file.write_text(written.replace(BEFORE, AFTER), "utf-8")
    dovecot.start()
    try:
        expected += deliver(dovecot, user, "one more", 1)
        assert site.once() == 0
    finally:
        dovecot.stop()
        file.write_text(written, "utf-8")
        dovecot.start()
    assert site.subjects() == expected


def test_a_maildir_that_is_away_while_mail_waits_for_a_queue_loses_none(tmp_path: Path) -> None:
    site = Site(tmp_path)
    place = tmp_path / "Maildir"
    for part in ("new", "cur", "tmp"):
        (place / part).mkdir(parents=True)
    for number, octets in enumerate(letters("waiting", 5)):
        (place / "new" / f"{1_700_000_000 + number}.M{number}P1.host").write_bytes(octets)
    site.settings["mailboxes"]["support"] = {
        "type": "maildir", "path": str(place), "default_queue": "support", "start": "all", "disposition": "delete",
    }  # fmt: skip
    site.queue_path.parent.mkdir()
    site.queue_path.parent.chmod(0o755)
    (site.queue_path).mkdir()  # nothing can be brought there
    assert site.once() == 75
    away = tmp_path / "away"
    place.rename(away)
    for part in ("new", "cur", "tmp"):
        (place / part).mkdir(parents=True)
    site.queue_path.rmdir()
    for _ in range(3):
        assert site.once() == 75
    shutil.rmtree(place)
    away.rename(place)
    assert site.once() in (0, 75)
    assert site.once() == 0
    assert site.subjects() == {f"waiting {number}": 1 for number in range(5)}
    assert not list((place / "new").iterdir())
