"""Programs that drain the same mailbox in turn: the bare pipeline, mailpoller, mbsync."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rig import bare
from rig.process import Cost, Failed, measure
from rig.server import Dovecot, Master, programs, unseen
from rig.service import Service
from rig.table import spread

FAR_SETS = 24
"""FETCH commands that the bare pipeline keeps under way over a far line: about 600 messages."""


@dataclass(frozen=True, slots=True)
class Road:
    """How a contender reaches the server."""

    port: int
    ca_file: Path | None = None
    far: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """``start`` makes what is needed in an empty directory and returns the command and, for afterwards, how many
    messages it holds."""

    name: str
    start: Callable[[str, Path], tuple[list[str], Callable[[], int]]]
    marks: bool = True
    """It marks what it has taken as seen."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its process gets beside ours."""


@dataclass(slots=True)
class Figures:
    """What one contender reached, a cost a run."""

    messages: int
    costs: list[Cost] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Messages a second of the whole process, each run."""
        return [self.messages / cost.wall_s for cost in self.costs]

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def row(self) -> list[float | str]:
        """messages/s, their spread, processor seconds, peak RSS in MB."""
        cpu = statistics.median(cost.cpu_s for cost in self.costs)
        rss = statistics.median(cost.peak_rss for cost in self.costs)
        return [self.rate, spread(self.rates), cpu, rss / 1e6]


def reference(name: str, road: Road) -> Contender:
    def start(user: str, directory: Path) -> tuple[list[str], Callable[[], int]]:
        argv = [sys.executable, bare.__file__, "--port", str(road.port), "--user", user, "--directory", str(directory)]
        if road.ca_file:
            argv += ["--ca-file", str(road.ca_file)]
        if road.far:
            argv += ["--in-flight", str(FAR_SETS)]
        return argv, lambda: bare.Table(directory).count()

    return Contender(name, start)


def mailpoller(
    name: str, road: Road, payload: str, profile: Path | None = None, tree: Path | None = None, **service: object
) -> Contender:
    """``profile``: where py-spy writes the stacks that it sees, 500 times a second; that costs some speed. ``tree``:
    the checkout whose code runs; None: the one that is installed."""

    def start(user: str, directory: Path) -> tuple[list[str], Callable[[], int]]:
        site = Service(directory / "site", payload=payload, **service)
        # The address that the letters are written to, as a mailbox has one.
        address = f"{user.partition('-')[0]}@example.org"
        site.imap(user, road.port, road.ca_file, max_message_size="60MB", address=address)
        argv = site.command("run", "--once")
        if profile is not None:
            # Beside the interpreter, if it was installed there: requirements/bench.txt
            beside = Path(sys.executable).with_name("py-spy")
            spy = str(beside) if beside.exists() else programs.find("py-spy")
            argv = [spy, "record", "-r", "500", "-f", "raw", "--threads", "-o", str(profile), "--", *argv]
        return argv, site.held

    return Contender(name, start, environment={} if tree is None else {"PYTHONPATH": str(tree / "src")})


def mbsync(name: str, road: Road) -> Contender:
    """mbsync as a careful person runs it: pulls into a Maildir and syncs every file. It marks nothing seen."""

    def start(user: str, directory: Path) -> tuple[list[str], Callable[[], int]]:
        tls = f"SSLType IMAPS\nCertificateFile {road.ca_file}" if road.ca_file else "SSLType None"
        host = "localhost" if road.ca_file else "127.0.0.1"  # it compares certificates with names alone
        configuration = directory / "mbsyncrc"
        configuration.write_text(
            f"FSync yes\n\nIMAPStore far\nHost {host}\nPort {road.port}\nUser {user}\nPass secret\nAuthMechs "
            f"LOGIN\n{tls}\n\nMaildirStore near\nPath {directory}/\nInbox {directory}/inbox\n\nChannel mail\nFar "
            f":far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState {directory}/\n"
        )
        configuration.chmod(0o600)
        inbox = directory / "inbox"
        return (
            [programs.find("mbsync"), "-c", str(configuration), "-q", "mail"],
            lambda: sum(1 for part in ("cur", "new") for _ in (inbox / part).iterdir()),
        )

    return Contender(name, start, marks=False)


def interleaved(
    contenders: Sequence[Contender],
    master: Master,
    server: Dovecot,
    directory: Path,
    repeat: int,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Figures]:
    """Let each contender drain its own copy of the mailbox, all of them in turn, ``repeat`` times over.

    Every second round goes the other way round, so that nobody always follows the same one. Raises
    :class:`~rig.process.Failed` for a contender that does not hold every message, or has not marked every message
    that it should.
    """
    figures = {one.name: Figures(master.count) for one in contenders}
    for round_ in range(repeat):
        for one in contenders if round_ % 2 == 0 else reversed(contenders):
            user = master.copy()
            home = directory / "contender"
            home.mkdir()
            try:
                argv, held = one.start(user, home)
                cost = measure(argv, home / "said", environment=one.environment)
                if (count := held()) != master.count:
                    said = (home / "said").read_text("utf-8", "replace")[-1500:]
                    raise Failed(f"{one.name} holds {count} of {master.count} messages:\n{said}")
                if one.marks and (left := unseen(server, user)):
                    raise Failed(f"{one.name} left {left} messages unseen")
                figures[one.name].costs.append(cost)
                say(f"{round_ + 1}/{repeat} {one.name}: {master.count / cost.wall_s:,.0f} messages/s")
            finally:
                shutil.rmtree(home)
                master.remove(user)
    return figures
