"""``run --dry-run``: the real daemon on a copy of the ledger, with queues that hold nothing and mailboxes that are
only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from sqlite3 import Connection, connect
from tempfile import TemporaryDirectory
from typing import Any, Literal

from mailpoller.assembly.parts import Bystander
from mailpoller.cli.service import denied, reader
from mailpoller.config import Config
from mailpoller.config.sections import OUTBOX
from mailpoller.core.component import LedgerConfig, Runtime, SinkConfig
from mailpoller.core.delivery import LEAVE, Delivery, Disposition, Outcome, OutcomeKind, Receipt
from mailpoller.core.errors import ConfigError
from mailpoller.core.literals import write_disposition
from mailpoller.core.message import Claim
from mailpoller.core.ports import Clock, OctetsPlace, Sink, Story
from mailpoller.core.record import record
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.observer import Observer

_AHEAD = timedelta(days=365)
"""How far the rehearsal's clock is ahead, so that what was put off is due in it."""


@record
class Fate:
    """What would become of one message. ``put_off_until`` and ``put_off_for``: it waits, and why, so it would not be
    now.

    ``kind`` is the outcome, or ``deferred`` for a message that could not be had; ``disposition`` what would then be
    done on the server, as the configuration writes it.
    """

    mailbox: str
    folder: str
    uid: str
    mid: str
    size: int | None
    kind: OutcomeKind | Literal["deferred"]
    queues: tuple[str, ...] = ()
    topic: str = ""
    priority: str = ""
    tags: tuple[str, ...] = ()
    reason: str = ""
    rules: tuple[str, ...] = ()
    disposition: str | dict[str, Any] = "leave"
    put_off_until: datetime | None = None
    put_off_for: str = ""


class _Ahead(SystemClock):
    def now(self) -> datetime:
        return super().now() + _AHEAD


@contextmanager
def rehearsal(config: Config, tell: Callable[[Fate], None]) -> Iterator[tuple[Config, Clock, Bystander]]:
    """A configuration, with its clock and its bystander, that does all but change anything.

    ``tell`` hears of each message.

    Files of its own lie in a temporary directory that is gone afterwards. A daemon may be running meanwhile. Raises
    :class:`ConfigError` for a ledger that cannot be copied.
    """
    with TemporaryDirectory(prefix="mailpoller-dry-run-") as name:
        directory = Path(name)
        ledger, waiting = _copied(config, directory / "ledger.db")
        recorder = _Recorder(config, waiting, tell)
        service = config.service.model_copy(
            update={"state_directory": directory, "control_socket": directory / "control.sock"}
        )
        yield (
            replace(
                config,
                overrides={},
            ).but(
                service=service,
                ledger=ledger,
                queues={name: _nowhere(block, recorder) for name, block in config.queues.items()},
                outgoing={},
                intakes={},
                outbox=config.of(OUTBOX).model_copy(update={"witness": None}),
                alerts=None,
                quarantine=None,  # nobody is told
                mailboxes={
                    name: block.model_copy(update={"mode": "shadow"}) for name, block in config.mailboxes.items()
                },
            ),
            _Ahead(),
            _Bystander(recorder),
        )


def _copied(config: Config, target: Path) -> tuple[LedgerConfig, dict[str, Story]]:
    """A copy of the ledger as of now, also while a daemon writes to it, and what waits in it, by mid."""
    block = config.ledger
    if block.type != "sqlite":
        raise ConfigError(f"a ledger of type {block.type} cannot be copied, so there is no dry run with it")
    path: Path = block.path  # type: ignore[attr-defined]
    waiting: dict[str, Story] = {}
    if denied(path) or path.exists():
        with reader(config) as ledger, closing(connect(target)) as copy:
            ledger.connection.backup(copy)
            _forget_the_real_one(copy)
            waiting = {story.mid: story for story in ledger.deferred()}
    return block.model_copy(update={"path": target}), waiting


def _forget_the_real_one(copy: Connection) -> None:
    """What tells a copy from the ledger, and how late it was: this is a copy, and its clock is ahead, on purpose."""
    tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table in ("outbox_mark", "belief"):
        if table in tables:
            copy.execute(f"DELETE FROM {table}")  # noqa: S608
    copy.commit()


def _nowhere(block: SinkConfig, recorder: _Recorder) -> SinkConfig:
    return _Nowhere(type="rehearsal", payload=block.payload, raw=block.raw, recorder=recorder)


class _Nowhere(SinkConfig):
    """A queue that says that it holds what it is given, and holds nothing."""

    recorder: Any

    def build(self, name: str, runtime: Runtime) -> Sink:
        return _NowhereSink(self.recorder)


class _NowhereSink:
    octets_place: OctetsPlace = "beside"

    def __init__(self, recorder: _Recorder) -> None:
        self._recorder = recorder

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt]:
        return [self._recorder.delivered(delivery) for delivery in batch]

    async def check(self) -> None:
        pass

    async def close(self) -> None:
        pass


class _Bystander(Bystander):
    """Hears what becomes of each message."""

    def __init__(self, recorder: _Recorder) -> None:
        self._recorder = recorder

    def observer(self, mailbox: str, observer: Observer) -> Observer:
        return _Listener(observer, self._recorder)


class _Listener:
    """A mailbox's :class:`~mailpoller.engine.observer.Observer`, which passes all on."""

    def __init__(self, observer: Observer, recorder: _Recorder) -> None:
        self._recorder = recorder
        self.progressed = observer.progressed
        self.listed = observer.listed
        self.unfetched = observer.unfetched
        self.disposed = observer.disposed
        self.absence = observer.absence
        self.replaced = observer.replaced
        self.questioned = observer.questioned
        self.fault = observer.fault
        self._observer = observer

    def settled(self, outcome: Outcome) -> None:
        self._observer.settled(outcome)
        self._recorder.settled(outcome)

    def skipped(self, outcomes: Sequence[Outcome]) -> None:
        self._observer.skipped(outcomes)
        for outcome in outcomes:
            self._recorder.settled(outcome)

    def deferred(self, claims: Sequence[Claim], reason: str) -> None:
        self._observer.deferred(claims, reason)
        for claim in claims:
            self._recorder.deferred(claim, reason)


class _Recorder:
    """Puts together what the queues and the ledger were told about a message."""

    def __init__(self, config: Config, waiting: Mapping[str, Story], tell: Callable[[Fate], None]) -> None:
        self._config = config
        self._waiting = waiting
        self._tell = tell
        self._wishes: dict[str, dict[str, Any]] = {}

    def delivered(self, delivery: Delivery) -> Receipt:
        self._wishes[delivery.mid] = {
            "topic": delivery.attributes.topic,
            "priority": delivery.attributes.priority,
            "tags": delivery.attributes.tags,
        }
        return SealedReceipt(delivery.delivery_id)

    def settled(self, outcome: Outcome) -> None:
        self._say(
            outcome.claim,
            kind=outcome.kind,
            size=outcome.size,
            queues=tuple(outcome.receipts),
            reason=outcome.reason,
            rules=outcome.rules,
            disposition=write_disposition(
                _disposition(self._config.mailboxes[outcome.claim.ref.folder.mailbox], outcome)
            ),
        )

    def deferred(self, claim: Claim, reason: str) -> None:
        self._say(claim, kind="deferred", size=claim.ref.size, reason=reason)

    def _say(self, claim: Claim, **known: Any) -> None:
        ref = claim.ref
        waits = self._waiting.get(claim.mid)
        if waits is not None:
            known |= {"put_off_until": waits.due_at, "put_off_for": waits.reason}
        wishes = self._wishes.pop(claim.mid, {})
        self._tell(Fate(ref.folder.mailbox, ref.folder.name, ref.uid, claim.mid, **known, **wishes))


def _disposition(mailbox: SourceConfig, outcome: Outcome) -> Disposition:
    if outcome.kind == "gone":
        return LEAVE
    wanted = mailbox.disposition_for(outcome.kind)
    if wanted.delete and outcome.fingerprint is None:
        # The dispatcher's own exception: a truncated message is never deleted.
        return Disposition(seen=True, flags=wanted.flags)
    return wanted
