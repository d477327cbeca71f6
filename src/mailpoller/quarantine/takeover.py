"""The last resort of earlier versions, a Maildir in the quarantine's place, is taken over with its mails."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import structlog

from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import TransientError, machine_trouble
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import Ledger, Story
from mailpoller.core.quarantined import Quarantined
from mailpoller.core.spool import Octets, Spool
from mailpoller.mail.parser import parse
from mailpoller.quarantine.store import Store
from mailpoller.storage.disk import transient

log = structlog.get_logger(__name__)

FORMER_NAME = "last-resort"
"""What the ledger's receipts call it; where no quarantine was configured they call it that."""
_FOLDERS = ("new", "cur")
_OURS = re.compile(r"(\d{1,12})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.[^:/]+(?::.*)?")
_AT_ONCE = 20
_PIECE = 1 << 20
_LATEST = 1 << 37
"""Seconds since 1970 that a date can say (RFC 3339: four digits of a year)."""


async def take_over(place: Path, store: Store, ledger: Ledger, spool: Spool) -> int:
    """Hold every mail of the Maildir at ``place`` in the store, and remove it there; how many there were.

    Whose each was the ledger says, by the digest of its octets and the name of its receipt; where it does not know,
    the mail is held as nobody's. Its notice is not owed: it was refused, or nobody was to be told. Killed at any
    moment, the next call goes on. ``quarantine.keep`` begins now: until now nothing was ever removed there.

    Raises :class:`~mailpoller.core.errors.TransientError`; a file that cannot be read keeps no other from it.
    """
    paths = await asyncio.to_thread(_listed, place)
    trouble: TransientError | None = None
    taken = 0
    for start in range(0, len(paths), _AT_ONCE):
        opened: list[tuple[Path, Octets]] = []
        try:
            for path in paths[start : start + _AT_ONCE]:
                try:
                    octets = await asyncio.to_thread(_read, path, spool)
                except TransientError as error:
                    trouble = trouble or error
                    continue
                opened += [] if octets is None else [(path, octets)]
            stories = await _stories(ledger, opened)
            for path, octets in opened:
                await store.take_over(await asyncio.to_thread(_described, path, octets, stories.get(path.name)), octets)
        finally:
            for _, octets in opened:
                octets.close()
        await asyncio.to_thread(_remove, [path for path, _ in opened])
        taken += len(opened)
    if taken:
        log.info("quarantine.taken_over", messages=taken)
    await asyncio.to_thread(_tidy, place)
    if trouble is not None:
        raise trouble
    return taken


def _listed(place: Path) -> list[Path]:
    found: list[Path] = []
    with transient(f"list {place}"):
        for folder in _FOLDERS:
            if (place / folder).is_dir() and not (place / folder).is_symlink():
                found += [path for path in (place / folder).iterdir() if path.is_file() and not path.is_symlink()]
    return sorted(found)


def _read(path: Path, spool: Spool) -> Octets | None:
    with transient(f"read {path}"), suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
        intake = spool.begin(1 << 62)
        try:
            while chunk := file.read(_PIECE):
                intake.write(chunk)
        except BaseException:
            intake.abort()
            raise
        return intake.finish()
    return None


async def _stories(ledger: Ledger, opened: Sequence[tuple[Path, Octets]]) -> Mapping[str, Story]:
    """The name of a file -> the story of its message, of those that the ledger knows."""
    found: dict[str, Story] = {}
    with suppress(TransientError):
        digests = [octets.digest for _, octets in opened]
        for mailbox in await ledger.mailboxes():
            mids = await ledger.repeats(mailbox, digests)
            for path, octets in opened:
                for story in await ledger.trace(mids[octets.digest]) if octets.digest in mids else ():
                    words = (story.receipts.get(name) for name in (FORMER_NAME, QUARANTINE))
                    if any(word in (path.name, path.name.partition(":")[0]) for word in words):
                        found[path.name] = story
    return found


def _described(path: Path, octets: Octets, story: Story | None) -> Quarantined:
    ours = _OURS.fullmatch(path.name)
    since = datetime.fromtimestamp(min(int(ours[1]) if ours else path.stat().st_mtime, _LATEST), UTC)
    delivery_id = ours[2] if ours else str(uuid5(NAMESPACE_OID, f"{path.name}\0{octets.digest.hex()}"))
    held = Quarantined(
        delivery_id=delivery_id,
        mid=delivery_id,
        mailbox="",
        folder="",
        epoch="",
        uid="",
        reason=FORMER_NAME,
        detail=f"it was in the directory of last resort of an earlier version, since {since:%Y-%m-%d}",
        rules=(),
        held_at=since,
        size=octets.size,
        digest=octets.digest,
        notice_owed=False,
        # Nobody knows whether it was ever understood.
        parsed=False,
    )
    if story is None:
        return held
    ref = MessageRef(Folder(story.mailbox, story.folder, story.epoch), story.uid, story.size)
    held = replace(
        held,
        mid=story.mid,
        mailbox=story.mailbox,
        folder=story.folder,
        epoch=story.epoch,
        uid=story.uid,
        reason=story.reason or FORMER_NAME,
        rules=tuple(story.rules),
        sender=story.sender,
        message_id=story.message_id,
        repeat_of=story.repeat_of,
        parsed=story.reason not in ("poison", "unprocessable", "octets-doubtful"),
    )
    if not held.parsed:
        return held
    try:
        message = parse(RawMessage(Claim(ref, story.mid), octets))
    except Exception as error:
        if machine_trouble(error) is not None:
            raise
        return replace(held, parsed=False)
    return replace(held, subject=message.subject[:1000])


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        with transient(f"remove {path}"):
            path.unlink(missing_ok=True)


def _tidy(place: Path) -> None:
    """Remove what is empty now. Something that is not ours may lie there: then it stays."""
    for folder in ("new", "cur"):
        with suppress(OSError):
            (place / folder).rmdir()
