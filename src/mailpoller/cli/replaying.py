"""What today's rules would make of mail that is still at hand: in the quarantine, and in queues that hold octets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mailpoller.cli.explaining import Explainer
from mailpoller.config import Config
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import LedgerUnavailable, MessageGone, TransientError
from mailpoller.core.record import record
from mailpoller.core.removal import ATTACHMENTS
from mailpoller.core.spool import Spool

_OTHERS = frozenset(("refused", "refused-by-queue", "poison", "unprocessable", "octets-doubtful", "flood"))
"""Why a message is quarantined that no rule has decided about, so that none can decide otherwise."""
_NO_QUEUES = frozenset((QUARANTINE, "last-resort"))
MOST = 100_000
"""Messages of one queue that are looked at."""


@record
class Kept:
    """A message that is at hand, and what was decided about it. ``place``: the queue that holds it, or
    ``quarantine``."""

    mid: str
    mailbox: str
    place: str
    subject: str
    octets: bytes
    announced: int
    received: datetime | None
    before: Mapping[str, Any]


class Replay:
    """``passed_over``: why, of those that cannot be judged, and how many; filled while they are gone through."""

    def __init__(self, config: Config, since: datetime, mailbox: str | None) -> None:
        self._config = config
        self._since = since
        self._mailbox = mailbox
        self._explainers: dict[str, Explainer] = {}
        self._told: set[str] = set()
        self.passed_over: Counter[str] = Counter()
        self.judged = 0

    def differing(self) -> Iterator[dict[str, Any]]:
        """Each that today's rules would decide about otherwise, with ``before`` and ``after`` of what differs.

        Raises :class:`~mailpoller.core.errors.ConfigError` if a rule cannot be built,
        :class:`~mailpoller.core.errors.TransientError` if a place cannot be read."""
        for kept in self._at_hand():
            if kept.mid in self._told:
                continue
            self._told.add(kept.mid)
            if self._mailbox not in (None, kept.mailbox):
                continue
            if kept.mailbox not in self._config.mailboxes:
                self.passed_over["their mailbox is not in this configuration"] += 1
                continue
            self.judged += 1
            story = self._explainer(kept.mailbox).explain(kept.octets, kept.received, announced=kept.announced)
            before, after = dict(kept.before), _decision(story)
            if differing := _differing(before, after):
                yield {
                    "mid": kept.mid,
                    "mailbox": kept.mailbox,
                    "place": kept.place,
                    "subject": kept.subject,
                    "before": {key: before.get(key) for key in differing},
                    "after": {key: after.get(key) for key in differing},
                    "rules": [one["rule"] for one in story["rules"] if one["matched"]],
                }

    def _explainer(self, mailbox: str) -> Explainer:
        if mailbox not in self._explainers:
            self._explainers[mailbox] = Explainer(self._config, mailbox, events=False)
        return self._explainers[mailbox]

    def _at_hand(self) -> Iterator[Kept]:
        yield from self._held()
        for name, block in self._config.queues.items():
            path = getattr(block, "path", None)
            if block.type == "sqlite" and isinstance(path, Path) and path.exists():
                yield from self._queued(name, path)

    def _held(self) -> Iterator[Kept]:
        """What is in the quarantine."""
        from mailpoller.cli.service import denied
        from mailpoller.quarantine.files import Files
        from mailpoller.quarantine.form import Damaged

        state = self._config.service.state_directory
        files = Files(state / QUARANTINE)
        if denied(files.path / "held"):
            raise TransientError(f"{files.path}: permission denied; root and the service's user may look into it")
        if not (files.path / "held").is_dir():
            return
        for name in sorted(name for name, _ in files.names()):
            try:
                held = files.described(name)
                if held is None or held.held_at < self._since:
                    continue
                if not held.parsed or held.reason in _OTHERS:
                    self.passed_over["no rule has decided about them (poison, refused, flood …)"] += 1
                    continue
                octets = files.octets(name, Spool(state / "spool"))
            except Damaged:
                self.passed_over["their file is damaged"] += 1
                continue
            if octets is None:
                continue
            try:
                content = bytes(octets.view())
            finally:
                octets.close()
            before: dict[str, Any] = {"verdict": "quarantine", "reason": held.reason}
            if held.reason == ATTACHMENTS:
                before = {"verdict": "deliver", "queues": self._receipts(held.mid)}
            announced = max(held.announced or 0, len(content) + held.truncated)
            yield Kept(
                held.mid, held.mailbox, QUARANTINE, held.subject, content, announced, held.received, before
            )  # fmt: skip

    def _queued(self, name: str, path: Path) -> Iterator[Kept]:
        """What is in an SQLite queue."""
        from mailpoller.cli.service import denied
        from mailpoller.sinks.sqlite.consumer import open_queue

        if denied(path):
            raise TransientError(f"{path}: permission denied; members of the queue's group may look into it")
        with open_queue(path) as queue:
            entries = queue.list(MOST)
            if len(entries) == MOST:
                self.passed_over[f"more than {MOST:,} are in the queue {name}"] += 1
            for entry in entries:
                if entry.arrived_at < self._since or entry.mid in self._told:
                    continue
                if entry.octets_size is None:
                    self.passed_over[f"the queue {name} does not hold their octets"] += 1
                    continue
                try:
                    held = queue.show(entry.delivery_id)
                    octets = held.octets()
                except MessageGone:
                    continue
                if octets is None:
                    continue
                data = _data(held.event)
                before = {
                    "verdict": "deliver",
                    "queues": self._receipts(entry.mid) or [name],
                    "topic": entry.topic,
                    "priority": entry.priority,
                    "tags": sorted(entry.tags),
                }
                announced = max(int(data.get("announced_size") or 0), len(octets) + bool(data.get("truncated")))
                received = _instant(data.get("received"))
                mailbox, subject = str(data.get("mailbox")), str(data.get("subject"))
                yield Kept(entry.mid, mailbox, name, subject, octets, announced, received, before)

    def _receipts(self, mid: str) -> list[str]:
        """The queues that have it, by today's names; none if the ledger does not know."""
        from mailpoller.cli.service import reader

        now = {block.formerly: name for name, block in self._config.queues.items() if block.formerly}
        with suppress(LedgerUnavailable), reader(self._config) as ledger:
            for story in ledger.trace(mid, limit=1):
                return sorted(now.get(name, name) for name in story.receipts if name not in _NO_QUEUES)
        return []


def _decision(story: Mapping[str, Any]) -> dict[str, Any]:
    if story["verdict"] != "deliver":
        return {"verdict": story["verdict"], "reason": story["reason"]}
    found = {key: story[key] for key in ("verdict", "topic", "priority")}
    return found | {"queues": sorted(story["queues"]), "tags": sorted(story["tags"])}


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys of what differs. Of another verdict all that it says; else what both say."""
    if before["verdict"] != after["verdict"]:
        return sorted({"verdict", *(before.keys() | after.keys()) & {"queues", "reason"}})
    return sorted(key for key in before.keys() & after.keys() if before[key] != after[key])


def _data(event: str | bytes) -> Mapping[str, Any]:
    import json

    try:
        found = json.loads(event)["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _instant(written: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(written).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
