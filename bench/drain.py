"""Draining a mailbox: the whole process, from its start to its exit, beside the limit and beside mbsync.

Every contender drains its own copy of the same mailbox in turn (A B C, C B A, ...). A run counts only if afterwards every message is held
and, but for mbsync, which never does that, marked seen. Rates are of the whole process; the interpreter's start, the opening of the
ledger and the log are part of them.

    drain.py                              both mixes, payload raw and parsed: the tables of docs/performance.md
    drain.py --mix small --payload raw    one of them
    drain.py --mix small --tls            plain and TLS in turn
    drain.py --mix small --rtt 30         here and over a line of 30 ms round trip in turn
    drain.py --mix small --payload raw --profile small.txt    where the time goes, by area (needs py-spy)

contenders
  reference   the bare pipeline of rig/bare.py: headers only, no claims, rules or logs
  raw         mailpoller run --once into an SQLite queue with payload raw (headers and octets)
  parsed      the same with payload parsed (text, HTML, attachment digests)
  mbsync      mbsync with FSync yes into a Maildir, if it is installed
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from rig import contest, stacks
from rig.contest import Contender, Figures, Road
from rig.letters import letters
from rig.line import Line, ceiling
from rig.options import heading, reader, rounds, say
from rig.server import Dovecot, Master, dovecot, programs
from rig.table import percent, table

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
    options = arguments.parse_args()
    options.payload = options.payload or ["raw", "parsed"]
    heading("draining", "dovecot", "mbsync")
    if options.rtt:
        trip, octets = ceiling(options.rtt)
        print(f"the line: {trip:.1f} ms round trip as measured, {octets / 1e6:,.0f} MB/s at most\n", flush=True)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(dovecot())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        near, tls = Road(server.imap_port), Road(server.imaps_port, server.ca_file)
        far = Road(stack.enter_context(Line(near.port, options.rtt)).port, far=True) if options.rtt else None
        for mix in ("small", "standard") if options.mix == "both" else (options.mix,):
            count = options.messages or COUNTS[mix] // (10 if options.quick else 1)
            if options.profile:
                for payload in options.payload:
                    profile(mix, count, payload, server, directory, options.profile)
                continue
            master = Master(server, mix, letters(mix, count, user=mix))
            print(
                f"{mix}: {count:,} messages, {master.octets / count / 1e3:,.1f} KB in the mean; {rounds(options)} rounds\n"
            )
            figures = contest.interleaved(
                contenders(options, near, tls, far), master, server, directory, rounds(options), say
            )
            print(shown(figures) + "\n", flush=True)


if __name__ == "__main__":
    main()
