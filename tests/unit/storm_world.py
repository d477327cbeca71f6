"""A world in which the engine lives through one history: its mail, what befalls it, and the audit of every promise at
the end.

What happens is decided by the history's seed alone.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulated_time import SimulatedClock

from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.identity import mint_delivery_id
from mailpoller.core.message import Folder, MessageRef, RawMessage
from mailpoller.core.ports import Mark
from mailpoller.core.spool import Octets
from mailpoller.ledgers.sqlite.folders import AGAIN
from mailpoller.mail.parser import parse
from mailpoller.testing.fake_mailbox import INBOX, FakeFolder, FakeMail, FakeMailbox
from mailpoller.testing.fake_source import Lie
from mailpoller.testing.memory_ledger import MemoryMessage, MemoryStore

if TYPE_CHECKING:
    from engine_storm import Process

STRIKES = 3
LARGEST = 5_000
"""Octets of a message that are downloaded at most."""

QUEUES = ("support", "archive")

GUILTY = ("refused", "not now", "crashes the queue", "crashes a rule", "exhausts")
"""Traits of messages that may be quarantined, beside those that kill."""

_TEMPLATE = b"From: erika@example.com\r\nTo: support@example.org\r\nSubject: @\r\n\r\n"
_SUBJECT = re.compile(rb"^Subject: (.*)\r$", re.MULTILINE)


def identity(octets: bytes) -> bytes:
    """What a queue knows the message by, beside its mid."""
    return parse(RawMessage(None, Octets.of(octets))).identity or b""  # type: ignore[arg-type]


# --- what happens ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Climate:
    """How bad the weather may get. Of the ``steps`` each history has only some go wrong, each at a rate of its own."""

    steps: tuple[str, ...] = ()
    deaths: float = 0.0
    """How probable it is that the process dies at a step."""
    renumbering: float = 0.0
    """How probable it is that what happens next is a new numbering of a folder; so ``outages``, of a queue that goes
    down or comes back, and ``rules``, of a route that changes."""
    outages: float = 0.0
    rules: float = 0.0
    stops: float = 0.0
    """How probable it is that a process is stopped in good order some time."""
    changes: float = 0.0
    """How probable it is, every few seconds, that a mailbox or a queue is replaced, or a mailbox removed and added."""
    traits: tuple[str, ...] = ()
    """What may be the matter with a message; see :class:`Mail`."""
    restores: float = 0.0
    """How probable it is that what happens next is that a folder is put back from a copy of it; so ``absences``, a
    store that is not mounted for a while, ``lags``, a replica that answers for a while, ``gaps``, a listing that
    lacks a line, ``vanishing``, of a queue, and ``jumps``, of the machine's date."""
    absences: float = 0.0
    lags: float = 0.0
    gaps: float = 0.0
    vanishing: float = 0.0
    jumps: float = 0.0
    lies: float = 0.0
    """How probable it is that the server says OK to a disposition and does something else."""
    whole: bool = False
    """POP3 servers."""
    once: bool = False
    """In the end it is ``run --once`` that works the mailboxes off, again and again."""
    hangs: bool = False
    """A step that goes wrong may never end."""
    bugs: bool = False
    """A port may raise what it must not."""


SOURCE = ("connect", "folders", "open", "pending", "fetch", "settle", "wait", "close")
LEDGER = (
    "open_folder", "advance", "complete", "claim", "suspects", "due", "at_risk", "cleared", "settle", "defer",
    "release",
    "disposed", "repeats", "raise_alarm", "alarms",
)  # fmt: skip
SINK = ("deliver", "hold", "answer", "check")


@dataclass
class Mail:
    """What is true of one message, whatever number it has. ``text`` is its subject."""

    text: str
    mailbox: str
    octets: bytes
    routes: list[tuple[str, ...]]
    """The queues that the rules want; more than one where they changed meanwhile."""
    trait: str = ""
    times: int = 0
    """How often the trait shows; a large number for always."""
    removed: bool = False
    """Somebody else took it out of the mailbox."""
    downloads: int = 0
    met: int = 0
    """How often its trait showed."""
    identity: bytes = b""
    deaths: int = 0
    """Processes that died while it was marked at risk."""

    @property
    def guilty(self) -> bool:
        """True if there is reason to quarantine it."""
        return self.met > 0 and self.trait in GUILTY

    def shows(self, trait: str) -> bool:
        """True, so many times, if it has this trait."""
        if self.trait != trait or self.met >= self.times:
            return False
        self.met += 1
        return True


@dataclass
class World:
    """Everything that outlives a process. ``broken``: the promises that were; noted, because the engine survives
    whatever is raised."""

    seed: int
    climate: Climate
    directory: Path
    rng: random.Random = field(init=False)
    calm: bool = False
    store: MemoryStore = field(default_factory=MemoryStore)
    servers: dict[str, FakeMailbox] = field(default_factory=dict)
    mails: dict[str, Mail] = field(default_factory=dict)
    held: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    out: set[str] = field(default_factory=set)
    """Queues that are out of order now."""
    faults: Counter[str] = field(default_factory=Counter)
    """What went wrong, by step; without checks, which bring nothing."""
    renumbered: int = 0
    deaths: int = 0
    starts: int = 0
    seen: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(mid, generation) -> how often an observer was told of its outcome, but for those that may be revised."""
    broken: list[str] = field(default_factory=list)
    names: dict[tuple[Folder, str], list[Mail]] = field(default_factory=lambda: defaultdict(list))
    """What each number has stood for, in its epoch; the last is what it stands for now, or stood for last."""
    outages: int = 0
    changed: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    """What befell the mailboxes and the queues, by kind."""
    brought: set[str] = field(default_factory=set)
    """Messages that some queue has taken."""
    places: dict[str, Mark | None] = field(default_factory=dict)
    """What lies where a queue is."""
    moved_away: dict[str, Mark] = field(default_factory=dict)
    """Queues that vanished, and are put back or given up some time."""
    given_up: set[str] = field(default_factory=set)
    incarnations: Counter[str] = field(default_factory=Counter)
    """How often a mailbox's server was put back: no session outlives that."""
    alarms: set[str] = field(default_factory=set)
    """The keys of all alarms that were raised."""

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        random.seed(self.seed)  # the back-offs' jitter
        self.clock = SimulatedClock()
        self.rates = {step: rng.choice((0.01, 0.05, 0.3)) for step in self.climate.steps if rng.random() < 0.5}
        self.pauses = rng.choice((0.0, 0.05, 0.3))
        self.batch = rng.randint(1, 10)
        self.memory = rng.choice((2_000, 20_000, 1_000_000))
        self.connections = rng.choice((0, 0, 1))
        self.reachable = rng.choice((None, frozenset(QUEUES)))
        self.disposition: dict[str, Any] = rng.choice(
            ({}, {"disposition": "delete"}, {"disposition": "delete" if self.climate.whole else {"move": "Done"}})
        )
        self.folders = (INBOX,) if self.climate.whole else rng.choice(((INBOX,), (INBOX,), (INBOX, "Other")))
        self.copies: dict[tuple[str, str], FakeFolder] = {}
        self.by_identity: dict[bytes, Mail] = {}
        self.arrived = asyncio.Event()
        for name in ("north", "south"):
            self.servers[name] = FakeMailbox((*self.folders, "Done"), whole=self.climate.whole)
            self.post(name, rng.randint(0, 15), old=True)

    # --- promises ------------------------------------------------------------------------------------------------
    def promise(self, kept: object, what: str) -> None:
        """Note a promise that was broken."""
        if not kept:
            self.broken.append(f"{what} (at {asyncio.get_running_loop().time():.3f} s)")

    def row(self, ref: MessageRef) -> MemoryMessage | None:
        """What the ledger has committed of a message."""
        return self.store.message(ref.folder, ref.uid)

    def mail(self, octets: bytes) -> Mail:
        """The truth about a message."""
        found = _SUBJECT.search(octets)
        assert found is not None
        return self.mails[found[1].decode()]

    def of(self, row: MemoryMessage) -> Mail:
        """The truth about the message that the ledger has a row of: by what was fetched, else by who bears its name."""
        return self.by_identity[row.identity] if row.identity else self.bearers(row)[-1]

    def bearers(self, row: MemoryMessage) -> list[Mail]:
        """Everybody who has borne a row's name."""
        folder = row.ref.folder
        base = Folder(folder.mailbox, folder.name, folder.epoch.partition(AGAIN)[0])
        return self.names[base, row.ref.uid.partition(" (")[0]]

    def present(self) -> Iterator[tuple[Folder, FakeMail]]:
        """Every message that is in a folder that is polled, in its present numbering."""
        for mailbox, server in self.servers.items():
            for name in self.folders:
                folder = self._folder(mailbox, name)
                for mail in server.folders[name].mails.values():
                    yield folder, mail

    def _folder(self, mailbox: str, name: str) -> Folder:
        return Folder(mailbox, name, f"fake fake.example {mailbox} {self.servers[mailbox].folders[name].validity}")

    def recorded(self, folder: Folder, mail: FakeMail) -> bool:
        """True if the ledger knows of a message: under its name now, or as settled under another."""
        epochs = self.store.folders.get((folder.mailbox, folder.name), ())
        if epochs and (
            mail.uid in self.store.planned(epochs[-1].id) or self.store.message(epochs[-1].id, mail.uid) is not None
        ):
            return True
        return bool(self.outcomes().get(self.mail(mail.octets).text))

    def outcomes(self) -> dict[str, set[str]]:
        """Message -> what has become of it, under whatever name."""
        found: dict[str, set[str]] = defaultdict(set)
        for mailbox, name, epoch, uid, identity, outcome in self.store.connection.execute(
            "SELECT mailbox, name, epoch, uid, identity, outcome FROM message JOIN folder ON folder.id = "
            "message.folder WHERE state = 'settled'"
        ):
            bearers = self.names[Folder(mailbox, name, epoch.partition(AGAIN)[0]), uid.partition(" (")[0]]
            mail = self.by_identity.get(identity) if identity else bearers[-1]
            if mail is not None:
                found[mail.text].add(outcome)
        return found

    def numbered(self) -> None:
        """Remember which message has which number."""
        for folder, mail in self.present():
            bearers, one = self.names[folder, mail.uid], self.mail(mail.octets)
            if not bearers or bearers[-1] is not one:
                bearers.append(one)

    # --- weather -------------------------------------------------------------------------------------------------
    def strikes(self, step: str) -> bool:
        """True if something goes wrong now."""
        if self.calm or self.rng.random() >= self.rates.get(step, 0.0):
            return False
        self.faults[step] += 1
        return True

    async def pause(self, most: float = 30.0) -> None:
        """Take a while, or not."""
        if not self.calm and self.rng.random() < self.pauses:
            await asyncio.sleep(min(most, self.rng.choice((0.0, 0.0, 0.05, 2.0, 30.0))))

    async def at(self, process: Process, step: str, errors: Sequence[Callable[[], Exception]]) -> None:
        """A step of a source or a sink: it may take long, fail, hang, or be the process's last."""
        await self.pause(5.0 if step == "close" else 30.0)
        if not self.calm and not process.dead and self.rng.random() < self.climate.deaths:
            process.die()
        process.alive(errors[0])
        if self.strikes(step):
            if self.climate.hangs and step != "close" and self.rng.random() < 0.1:
                await asyncio.Event().wait()
            raise self.rng.choice(errors)()

    # --- the audit -----------------------------------------------------------------------------------------------
    def unfinished(self) -> list[str]:
        """What is left to do, in words."""
        left = []
        for mailbox in self.servers:
            for name in self.folders:
                known = self.store.folders.get((mailbox, name), ())
                if not known or not known[-1].complete or known[-1].folder != self._folder(mailbox, name):
                    left.append(f"{name} of {mailbox} is not listed")
        outcomes = self.outcomes()
        for _, mail in self.present():
            one = self.mail(mail.octets)
            if not outcomes[one.text] - {"gone", "skipped"}:
                left.append(f"{one.text} is not settled, {outcomes[one.text]}")
        folders = self.store.folders
        for row in self.store.unfinished():
            folder = row.ref.folder
            if folders[folder.mailbox, folder.name][-1].id == folder:
                left.append(f"{self.of(row).text} is {row.state}, {row.reason}, due {row.due_at}")
        return left

    def accept_absences(self) -> None:
        """An operator says that what is absent is gone, where it is: somebody took much at once out of a mailbox."""
        for (mailbox, name), epochs in self.store.folders.items():
            absent = [
                row for row in self.store.unfinished()
                if row.ref.folder == epochs[-1].id and row.absent_at is not None and row.state != "settled"
            ]  # fmt: skip
            if absent and all(any(mail.removed for mail in self.bearers(row)) for row in absent):
                self.store.connection.execute(
                    "UPDATE folder SET absence_accepted_at = 1 WHERE mailbox = ? AND name = ? AND epoch = ?",
                    (mailbox, name, epochs[-1].id.epoch),
                )

    def traffic(self) -> tuple[int, int]:
        """How much was downloaded, and how much is held."""
        return sum(mail.downloads for mail in self.mails.values()), sum(map(len, self.held.values()))

    def audit(self) -> None:
        """Whether every promise was kept, once all is over."""
        for what in self.unfinished():
            self.promise(False, f"not finished: {what}")
        rows: dict[str, list[MemoryMessage]] = defaultdict(list)
        for row in self.store.messages.values():
            rows[self.of(row).text].append(row)
            self.promise(self.seen[row.mid, row.generation] <= 1, "an observer is told twice")
        for queue, held in self.held.items():
            for delivery_id, one in held.items():
                mail = self.mail(one.octets)
                mids = [row.mid for row in rows[mail.text]]
                if one.mid not in mids and (other := self.store.of_mid(one.mid)) and mail in self.bearers(other):
                    mids.append(one.mid)  # it was gone before that was recorded, and another bore its name
                ids = {mint_delivery_id(mid, queue, 0, known) for mid in mids for known in (b"", identity(one.octets))}
                self.promise(delivery_id in ids, "a strange delivery id")
                wanted = {name for route in mail.routes for name in route}
                self.promise(
                    queue in wanted or mail.guilty or mail.deaths >= STRIKES or one.reason == "octets-doubtful",
                    f"{mail.text} {mail.trait} {mail.routes} is in {queue}, {one.reason}: {one.detail}",
                )
        for mail in self.mails.values():
            self._audit(mail, rows[mail.text])
        for (mailbox, name), epochs in self.store.folders.items():
            anew = [one for one in epochs if AGAIN in one.id.epoch]
            just = self.climate.restores or self.climate.absences or self.climate.whole
            self.promise(just or not anew, f"{name} of {mailbox} was begun anew for nothing")
            told = any(key.startswith("numbering-changed") for key in self.alarms)
            self.promise(told or not anew, f"{name} of {mailbox} was begun anew, and nobody was told")
        told = any(key.startswith("octets-doubtful") for key in self.alarms)
        doubtful = any("doubtful" in kinds for kinds in self.outcomes().values())
        self.promise(told or not doubtful, "octets were in doubt, and nobody was told")
        bound = 12 * (self.outages + self.starts)
        self.promise(self.faults["out"] <= bound, f"{self.faults['out']} deliveries were tried while a queue was down")

    def _audit(self, mail: Mail, rows: Sequence[MemoryMessage]) -> None:
        told = f"{mail.text} ({mail.trait} {mail.met}/{mail.times}, {mail.routes})"
        present = any(self.mail(there.octets) is mail for _, there in self.present())
        settled = [row for row in rows if row.state == "settled" and row.outcome is not None]
        kinds = Counter(row.outcome.kind for row in settled if row.outcome is not None)
        done = kinds["delivered"] + kinds["quarantined"] + kinds["discarded"]
        for row in settled:
            assert row.outcome is not None
            for queue in row.receipts or {}:
                ids = {
                    mint_delivery_id(row.mid, queue, row.generation, known) for known in (b"", identity(mail.octets))
                }
                self.promise(ids & self.held[queue].keys(), f"{told} has a false receipt")
            kind, reason = row.outcome.kind, row.outcome.reason
            if kind == "delivered":
                self.promise(
                    set(row.receipts or ()) in [set(route) for route in mail.routes], f"{told} went to {row.receipts}"
                )
            elif kind == "quarantined":
                just = mail.guilty if reason != "poison" else mail.deaths >= STRIKES
                self.promise(just and row.receipts, f"{told} is quarantined: {reason}")
            elif kind == "repeated":
                self.promise(
                    kinds["delivered"] + kinds["quarantined"] + kinds["discarded"],
                    f"{told} counts as a repeat of nothing",
                )
            elif kind == "gone":
                removed = any(one.removed for one in (mail, *self.bearers(row)))
                self.promise(removed or kinds.total() > 1, f"{told} counts as gone")
            elif kind == "doubtful":
                self.promise(mail.trait == "doubtful" and mail.met >= 5, f"{told} counts as doubtful")
            elif kind == "skipped":
                self.promise(done, f"{told} is left out of a new numbering")
            elif kind == "discarded":
                self.promise(mail.trait == "discarded", f"{told} is discarded")
            else:
                self.promise(False, f"{told} is {kind}")
        brought = sorted(
            (row for row in settled if row.receipts and row.outcome.kind != "doubtful"), key=lambda row: row.claimed_at
        )
        for first, second in itertools.pairwise(brought):
            assert first.settled_at is not None
            again = first.settled_at <= second.claimed_at and mail.trait != "large"
            self.promise(not again, f"{told} is brought once more in a new numbering")
        self.promise(done or (kinds["doubtful"] if present else mail.removed), f"{told} is lost, {kinds}")
        faults = self.faults.total() + self.starts + self.renumbered + self.outages + self.happened.total()
        self.promise(
            mail.downloads <= faults + mail.met,
            f"{told} is downloaded {mail.downloads} times, with {faults} faults",
        )

    # --- life ----------------------------------------------------------------------------------------------------
    def post(self, mailbox: str, count: int, *, old: bool = False) -> None:
        """New mail arrives."""
        rng = self.rng
        for _ in range(count):
            text = f"message {len(self.mails)}"
            trait = rng.choice(self.climate.traits) if self.climate.traits and rng.random() < 0.15 else ""
            times = rng.choice((1, 2, 1000))
            size = 2 * LARGEST if trait == "large" else rng.choice((10, 1500))
            octets = _TEMPLATE.replace(b": @", b": " + text.encode()) + b"x" * size + b"\r\n"
            self.mails[text] = mail = Mail(text, mailbox, octets, [self._route()], trait, times)
            mail.identity = identity(octets)
            self.by_identity[mail.identity] = mail
            age = timedelta(days=rng.uniform(0, 30)) if old else timedelta(0)
            server, folder = self.servers[mailbox], rng.choice(self.folders)
            uid = server.deliver(octets, folder, received=self.clock.true() - age)
            if trait == "estimated":
                server.folders[folder].mails[uid].told = len(octets) + rng.choice((-7, 300))
        self.numbered()
        self.arrived.set()
        self.arrived = asyncio.Event()

    def _route(self) -> tuple[str, ...]:
        return self.rng.choice((("support",), ("support",), ("archive",), ("support", "archive")))

    async def live(self, seconds: float) -> None:
        """So many seconds in which things happen to mailboxes, rules and queues."""
        ends = self.clock.monotonic() + seconds
        while self.clock.monotonic() < ends:
            await asyncio.sleep(self.rng.expovariate(1 / 120))
            self._happen()
        self.out.clear()
        self.clear_up()

    def clear_up(self) -> None:
        """The stores are mounted, the replicas have caught up, the clock is right."""
        self.clock.skew = timedelta(0)
        for server in self.servers.values():
            for place in server.folders.values():
                place.away, place.behind = None, 0
                place.gaps.clear()
                for mail in place.mails.values():
                    mail.told = None
        for name in list(self.moved_away):
            self.put_back_queue(name)

    # --- a queue's place -----------------------------------------------------------------------------------------
    def vanish(self, name: str) -> None:
        """The file or directory of a queue goes away; it is put back later, or an operator gives it up."""
        if (place := self.places.get(name)) is not None and name not in self.moved_away:
            self.moved_away[name], self.places[name] = place, None
            self.happened["vanished"] += 1

    def put_back_queue(self, name: str) -> None:
        """It is where it was, unless something was begun there meanwhile."""
        kept = self.moved_away.pop(name)
        if self.places[name] is None:
            self.places[name] = kept

    # --- a mailbox's server --------------------------------------------------------------------------------------
    def put_back(self, mailbox: str, folder: str) -> None:
        """A server is put back from a copy: what came since is gone, and its numbers are given once more."""
        copy = self.copies.pop((mailbox, folder), None)
        server = self.servers[mailbox]
        if copy is None or copy.validity != server.folders[folder].validity:
            self.copies[mailbox, folder] = server.copy(folder)
            return
        kept = {self.mail(one.octets).text for one in copy.mails.values()}
        for one in server.folders[folder].mails.values():
            mail = self.mail(one.octets)
            mail.removed = mail.removed or mail.text not in kept
        server.put_back(copy, folder)
        self.incarnations[mailbox] += 1
        self.happened["restored"] += 1
        self.numbered()
        if self.rng.random() < 0.7:
            self.post(mailbox, self.rng.randint(1, 8))

    def lie(self) -> Lie:
        """What a server does behind its OK."""
        if self.calm or self.rng.random() >= self.climate.lies:
            return ""
        self.happened["lied"] += 1
        return self.rng.choice(("unproven", "unproven", "unheard", "unheard", "nothing"))

    def _happen(self) -> None:
        rng, climate = self.rng, self.climate
        name = rng.choice(tuple(self.servers))
        server, folder = self.servers[name], rng.choice(self.folders)
        mails = list(server.folders[folder].mails.values())
        if rng.random() < climate.renumbering:
            self.renumbered += 1
            server.renumber(folder)
            self.numbered()
        elif rng.random() < climate.restores:
            self.put_back(name, folder)
        elif rng.random() < climate.absences:
            place = server.folders[folder]
            place.away = place.uid_next if place.away is None else None
            self.happened["away"] += place.away is not None
        elif rng.random() < climate.lags:
            place = server.folders[folder]
            place.behind = 0 if place.behind else rng.randint(1, 12)
            self.happened["behind"] += bool(place.behind)
        elif rng.random() < climate.gaps:
            place = server.folders[folder]
            place.gaps = set() if place.gaps else set(rng.sample(list(place.mails), min(2, len(place.mails))))
            self.happened["gaps"] += bool(place.gaps)
        elif rng.random() < climate.jumps:
            jumped = self.clock.skew == timedelta(0)
            self.clock.skew = timedelta(hours=rng.choice((-3, 1, 20, 26, 240))) if jumped else timedelta(0)
            self.happened["jumped"] += jumped
        elif rng.random() < climate.vanishing:
            queue = rng.choice(QUEUES)
            if queue in self.moved_away:
                self.given_up.add(queue) if rng.random() < 0.5 else self.put_back_queue(queue)
            else:
                self.vanish(queue)
        elif rng.random() < climate.outages:
            self.outages += 1
            self.out ^= {rng.choice((*QUEUES, QUARANTINE))}
        elif rng.random() < climate.rules:
            mail = rng.choice(tuple(self.mails.values()))
            mail.routes.append(self._route())
        elif rng.random() < 0.5:
            self.post(name, rng.randint(1, 6))
        elif mails:
            mail = rng.choice(mails)
            if rng.random() < 0.5:
                mail.flags.add("\\Flagged")
            else:
                self.mail(mail.octets).removed = True
                server.remove(mail.uid, folder)
