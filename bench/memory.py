"""What mailpoller keeps in memory while it drains: anonymous resident octets (RssAnon), looked at every 20 ms.

Anonymous memory is what the process holds itself; pages of its files and of the SQLite databases, which the kernel
takes back as it likes, are not in it. A full mailbox must not cost more than a small one, and large messages must not
be held whole.

    memory.py                 10,000 and 100,000 small messages; ten of 50 MB with max_message_size 60MB
    memory.py --only small
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rig import contest
from rig.letters import large, letters
from rig.options import heading, reader, say
from rig.server import Master, dovecot
from rig.table import table

LIMIT_MB = 120


def main() -> None:
    arguments = reader(__doc__, repeat=0)
    arguments.add_argument("--only", choices=["small", "large"], help="one of the two")
    arguments.add_argument("--payload", choices=["raw", "parsed"], default="raw", help="of the queue (raw)")
    options = arguments.parse_args()
    heading(f"memory while draining, payload {options.payload}", "dovecot")
    boxes: list[tuple[str, Iterable[bytes]]] = []
    if options.only != "large":
        counts = (2_000, 10_000) if options.quick else (10_000, 100_000)
        boxes += [(f"{count:,} small", letters("small", count, user="small")) for count in counts]
    if options.only != "small":
        count = 3 if options.quick else 10
        boxes.append((f"{count} of 50 MB", large(50_000_000, count, user="large")))
    rows = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(dovecot())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        for number, (name, messages) in enumerate(boxes):
            master = Master(server, f"box{number}", messages)
            one = contest.mailpoller(name, contest.Road(server.imap_port), options.payload)
            figures = contest.interleaved([one], master, server, directory, 1, say)[name]
            cost = figures.costs[0]
            rows.append([name, cost.peak_anonymous / 1e6, cost.peak_rss / 1e6, LIMIT_MB, figures.rate])
            master.remove(master.name)
    print(table(["mailbox", "peak RssAnon MB", "peak RSS MB", "RssAnon limit MB", "messages/s"], rows))


if __name__ == "__main__":
    main()
