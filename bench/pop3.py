"""Draining a maildrop by POP3: mailpoller beside a raw client that throws everything away, and beside mpop.

Every contender drains its own copy of the same maildrop in turn (A B C, C B A, ...) and leaves it as it is. A run
counts only if afterwards every message is held. Rates are of the whole process, from its start to its exit.

    pop3.py                     20,000 small messages: the table of docs/performance.md
    pop3.py --mix standard      another mix
    pop3.py --rtt 30            here and over a line of 30 ms round trip in turn
    pop3.py --tls               plain and TLS in turn

contenders
  raw         32 RETRs under way, octets framed and dropped: the ceiling of one connection
  mailpoller  mailpoller run --once into an SQLite queue with payload raw (headers and octets)
  mpop        mpop with pipelining into a Maildir, if it is installed
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rig import contest
from rig.contest import Contender, Figures, Road
from rig.letters import letters
from rig.line import Line
from rig.options import heading, reader, rounds, say
from rig.server import Dovecot, Master, programs
from rig.service import Service
from rig.table import percent, table

COUNTS = {"small": 20_000, "standard": 4_000}
IN_FLIGHT = 32
END = b"\r\n.\r\n"


# --- the ceiling -----------------------------------------------------------------------------------------------------
async def drain_raw(port: int, user: str, ca_file: str) -> int:
    """RETR everything, 32 under way, and drop it: how many messages came."""
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 20)

    async def say_line(text: str) -> bytes:
        outgoing.write(text.encode() + b"\r\n")
        return await incoming.readline()

    await incoming.readline()
    await say_line(f"USER {user}")
    await say_line("PASS secret")
    count = int((await say_line("STAT")).split()[1])
    asked = came = 0
    held = b""
    inside = False
    while came < count:
        if (room := min(IN_FLIGHT - (asked - came), count - asked)) > 0:
            outgoing.write(b"".join(b"RETR %d\r\n" % number for number in range(asked + 1, asked + room + 1)))
            asked += room
        data = await incoming.read(1 << 18)
        if not data:
            raise SystemExit("the server hung up")
        buffer, at = held + data, 0
        while True:
            found = buffer.find(END if inside else b"\r\n", at)
            if found < 0:
                break
            # A body's end may begin with the end of the status line.
            at = found + (len(END) if inside else 0)
            came += inside
            inside = not inside
        held = buffer[max(at, len(buffer) - 4) if inside else at :]
    outgoing.write(b"QUIT\r\n")
    outgoing.close()
    return came


def raw(name: str, road: Road) -> Contender:
    def start(user: str, directory: Path) -> tuple[list[str], Callable[[], int]]:
        said = directory / "count"
        argv = [sys.executable, __file__, "--drain-raw", str(road.port), user, str(road.ca_file or ""), str(said)]
        return argv, lambda: int(said.read_text())

    return Contender(name, start, marks=False)


# --- the others ------------------------------------------------------------------------------------------------------
def mailpoller(name: str, road: Road) -> Contender:
    def start(user: str, directory: Path) -> tuple[list[str], Callable[[], int]]:
        site = Service(directory / "site", payload="raw")
        site.pop3(user, road.port, road.ca_file, max_message_size="60MB")
        return site.command("run", "--once"), site.held

    return Contender(name, start, marks=False)


def mpop(name: str, road: Road) -> Contender:
    def start(user: str, directory: Path) -> tuple[list[str], Callable[[], int]]:
        inbox = directory / "inbox"
        for part in ("cur", "new", "tmp"):
            (inbox / part).mkdir(parents=True)
        tls = f"tls on\ntls_starttls off\ntls_trust_file {road.ca_file}\n" if road.ca_file else "tls off\n"
        configuration = directory / "mpoprc"
        configuration.write_text(
            f"account bench\nhost 127.0.0.1\nport {road.port}\nuser {user}\npassword secret\nauth user\n{tls}"
            f"keep on\npipelining on\nreceived_header off\nuidls_file {directory}/uidls\ndelivery maildir {inbox}\n"
        )
        configuration.chmod(0o600)
        return (
            [programs.find("mpop"), "-C", str(configuration), "-Q", "bench"],
            lambda: sum(1 for part in ("cur", "new") for _ in (inbox / part).iterdir()),
        )

    return Contender(name, start, marks=False)


def contenders(roads: dict[str, Road]) -> list[Contender]:
    """Who takes part, in the order of the table."""
    found = []
    for suffix, road in roads.items():
        found += [raw(f"raw{suffix}", road), mailpoller(f"mailpoller{suffix}", road)]
        if programs.found("mpop"):
            found.append(mpop(f"mpop{suffix}", road))
    return found


def shown(figures: dict[str, Figures]) -> str:
    """The table: each with its share of the ceiling and of mpop on the same road."""
    rows = []
    for name, one in figures.items():
        suffix = name.partition(", ")[2]
        others = [f"{other}, {suffix}" if suffix else other for other in ("raw", "mpop")]
        shares = [
            percent(one.rate, figures[other].rate) if other in figures and other != name else "" for other in others
        ]
        rows.append([name, *one.row, *shares])
    return table(["", "messages/s", "least to greatest", "CPU s", "peak RSS MB", "of raw", "of mpop"], rows)


def main() -> None:
    if sys.argv[1:2] == ["--drain-raw"]:
        port, user, ca_file, said = sys.argv[2:]
        Path(said).write_text(str(asyncio.run(drain_raw(int(port), user, ca_file))))
        return
    arguments = reader(__doc__)
    arguments.add_argument("--mix", choices=["small", "standard"], default="small", help="which messages (small)")
    arguments.add_argument("--messages", type=int, metavar="N", help="instead of 20,000 small, 4,000 standard")
    arguments.add_argument("--tls", action="store_true", help="over TLS as well")
    arguments.add_argument("--rtt", type=float, default=0, metavar="MS", help="over a line of this round trip as well")
    options: argparse.Namespace = arguments.parse_args()
    heading("draining by POP3", "dovecot", "mpop")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Dovecot(pop3=True))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        roads = {"": Road(server.pop3_port)}
        if options.tls:
            roads[", TLS"] = Road(server.pop3s_port, server.ca_file)
        if options.rtt:
            roads[f", {options.rtt:g} ms"] = Road(stack.enter_context(Line(server.pop3_port, options.rtt)).port)
        count = options.messages or COUNTS[options.mix] // (10 if options.quick else 1)
        master = Master(server, options.mix, letters(options.mix, count, user=options.mix))
        mean = master.octets / count / 1e3
        print(f"{options.mix}: {count:,} messages, {mean:,.1f} KB in the mean; {rounds(options)} rounds\n")
        figures = contest.interleaved(contenders(roads), master, server, directory, rounds(options), say)
        print(shown(figures) + "\n", flush=True)


if __name__ == "__main__":
    main()
