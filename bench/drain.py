"""Draining a mailbox: the whole process, from its start to its exit, beside the limit and beside mbsync.

Every contender drains its own copy of the same mailbox in turn (A B C, C B A, ...). A run counts only if afterwards
every message is held and, but for mbsync, which never does that, marked seen. Rates are of the whole process; the
interpreter's start, the opening of the ledger and the log are part of them.

    drain.py                              both mixes, payload raw and parsed: the tables of docs/performance.md
    drain.py --mix small --payload raw    one of them drain.py --mix small --tls            plain and TLS in turn
    drain.py --mix small --rtt 30         here and over a line of 30 ms round trip in turn drain.py --mix small
    --payload raw --profile small.txt    where the time goes, by area (needs py-spy) drain.py --mix small --against
    f61b72a                    this tree and that commit in turn, by this Python, and nobody else

contenders
  reference   the bare pipeline of rig/bare.py: headers only, no claims, rules or logs
  raw         mailpoller run --once into an SQLite queue with payload raw (headers and octets)
  parsed      the same with payload parsed (text, HTML, attachment digests)
  mbsync      mbsync with FSync yes into a Maildir, if it is installed
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rig import contest, stacks
from rig.contest import Contender, Figures, Road
from rig.letters import letters
from rig.line import Line, ceiling
from rig.options import heading, reader, rounds, say
from rig.process import Failed
from rig.server import Dovecot, Master, dovecot, programs
from rig.table import median, percent, spread, table

import mailpoller

COUNTS = {"small": 20_000, "standard": 4_000}


def contenders(options: argparse.Namespace, near: Road, tls: Road, far: Road | None) -> list[Contender]:
    """Who takes part, in the order of the table."""
    roads = {"": near}
    if options.tls:
        roads[", TLS"] = tls
    if far:
        roads[f", {options.rtt:g} ms"] = far
    found = []
    for suffix, road in roads.items():
        found.append(contest.reference(f"reference{suffix}", road))
        found += [contest.mailpoller(f"{payload}{suffix}", road, payload) for payload in options.payload]
        if programs.found("mbsync") and not options.no_mbsync:
            found.append(contest.mbsync(f"mbsync{suffix}", road))
    return found


def shown(figures: dict[str, Figures]) -> str:
    """The table: each with its share of the reference on the same road, of itself on the plain one, and of mbsync."""
    rows = []
    for name, one in figures.items():
        what, _, road = name.partition(", ")
        suffix = f", {road}" if road else ""
        others = [f"reference{suffix}", what if road else "", f"mbsync{suffix}"]
        shares = [
            percent(one.rate, figures[other].rate) if other in figures and other != name else "" for other in others
        ]
        rows.append([name, *one.row, *shares])
    columns = ["", "messages/s", "least to greatest", "CPU s", "peak RSS MB", "of reference", "of plain", "of mbsync"]
    return table(columns, rows)


def profile(mix: str, count: int, payload: str, server: Dovecot, directory: Path, to: Path) -> None:
    """One run beneath py-spy: its stacks in ``to``, and where they were, on standard output."""
    master = Master(server, f"{mix}-profile", letters(mix, count, user=mix))
    one = contest.mailpoller(payload, Road(server.imap_port), payload, profile=to.absolute())
    figures = contest.interleaved([one], master, server, directory, 1, say)[payload]
    print(f"profile of {payload}, {mix}, {count:,} messages, at {figures.rate:,.0f} messages/s beneath py-spy\n")
    print(stacks.summary(to.read_text(), count) + "\n", flush=True)


HERE = Path(mailpoller.__file__).parents[2]
"""The checkout that this command measures."""


@contextlib.contextmanager
def checkout(commit: str, directory: Path) -> Iterator[Path]:
    """The tree of a commit of ours, compiled as an installation would have it; gone at the end."""
    tree = directory / "against"
    git = ["git", "-C", str(HERE)]
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(tree), commit], check=True)
    try:
        compileall.compile_dir(tree / "src", quiet=2)
        yield tree
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def runs_from(tree: Path) -> None:
    """Raise :class:`Failed` unless a process that is told to run this tree's code does."""
    said = subprocess.run(
        [sys.executable, "-c", "import mailpoller; print(mailpoller.__file__)"],
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(said).resolve().is_relative_to(tree.resolve()):
        raise Failed(f"{said} would be measured, and not {tree}")


def compare(
    options: argparse.Namespace, road: Road, tree: Path, master: Master, server: Dovecot, directory: Path
) -> str:
    """The table of two commits that drain in turn: what counts is the ratio within each round, for a machine drifts."""
    contenders = []
    for payload in options.payload:
        contenders.append(contest.mailpoller(f"{payload}, new", road, payload, tree=HERE))
        contenders.append(contest.mailpoller(f"{payload}, old", road, payload, tree=tree))
    figures = contest.interleaved(contenders, master, server, directory, rounds(options), say)
    rows = []
    for payload in options.payload:
        new, old = figures[f"{payload}, new"], figures[f"{payload}, old"]
        ratios = [one / other for one, other in zip(new.rates, old.rates, strict=True)]
        cpu = [one.cpu_s / other.cpu_s for one, other in zip(new.costs, old.costs, strict=True)]
        print(f"{payload}, new/old of each round: {', '.join(f'{ratio:.3f}' for ratio in ratios)}\n", flush=True)
        rows.append([payload, new.rate, old.rate, median(ratios), spread(ratios), median(cpu)])
    columns = ["", "new messages/s", "old messages/s", "new/old", "least to greatest", "new/old CPU"]
    return table(columns, rows)


def main() -> None:
    arguments = reader(__doc__)
    arguments.add_argument("--mix", choices=["small", "standard", "both"], default="both", help="which messages (both)")
    arguments.add_argument(
        "--payload", action="append", choices=["raw", "parsed", "summary"], help="may be repeated (raw and parsed)"
    )
    arguments.add_argument("--messages", type=int, metavar="N", help="instead of 20,000 small, 4,000 standard")
    arguments.add_argument("--tls", action="store_true", help="over TLS as well")
    arguments.add_argument("--rtt", type=float, default=0, metavar="MS", help="over a line of this round trip as well")
    arguments.add_argument("--no-mbsync", action="store_true", help="leave mbsync out")
    arguments.add_argument(
        "--profile", type=Path, metavar="FILE", help="one run beneath py-spy instead; stacks into FILE"
    )
    arguments.add_argument("--against", metavar="COMMIT", help="drain in turn with this commit of ours instead")
    options = arguments.parse_args()
    options.payload = options.payload or ["raw", "parsed"]
    heading("draining", "dovecot", *([] if options.against else ["mbsync"]))
    if options.rtt:
        trip, octets = ceiling(options.rtt)
        print(f"the line: {trip:.1f} ms round trip as measured, {octets / 1e6:,.0f} MB/s at most\n", flush=True)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(dovecot())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        near, tls = Road(server.imap_port), Road(server.imaps_port, server.ca_file)
        far = Road(stack.enter_context(Line(near.port, options.rtt)).port, far=True) if options.rtt else None
        tree = stack.enter_context(checkout(options.against, directory)) if options.against else None
        for one in (HERE, tree) if tree else ():
            runs_from(one)
        for mix in ("small", "standard") if options.mix == "both" else (options.mix,):
            count = options.messages or COUNTS[mix] // (10 if options.quick else 1)
            if options.profile:
                for payload in options.payload:
                    profile(mix, count, payload, server, directory, options.profile)
                continue
            master = Master(server, mix, letters(mix, count, user=mix))
            print(
                f"{mix}: {count:,} messages, {master.octets / count / 1e3:,.1f} KB in the mean; {rounds(options)} "
                f"rounds\n"
            )
            if tree:
                print(compare(options, near, tree, master, server, directory) + "\n", flush=True)
                continue
            figures = contest.interleaved(
                contenders(options, near, tls, far), master, server, directory, rounds(options), say
            )
            print(shown(figures) + "\n", flush=True)


if __name__ == "__main__":
    main()
