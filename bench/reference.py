"""The limit: how fast a bare pipeline brings a mailbox into a durable table, and nothing else.

One Python process, IMAP with several FETCH commands under way, header blocks parsed, SQLite (WAL, synchronous=FULL),
marked seen after the commit. What mailpoller reaches is a share of this; see drain.py, which runs both in turn. The
pipeline itself is rig/bare.py.

    reference.py                     20,000 small messages and 4,000 of the standard mix
    reference.py --mix small --tls   the same over TLS
    reference.py --rtt 30            the same over a line of 30 ms round trip
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from rig import contest
from rig.letters import letters
from rig.line import Line
from rig.options import heading, reader, rounds, say
from rig.server import Master, dovecot
from rig.table import table


def main() -> None:
    arguments = reader(__doc__)
    arguments.add_argument("--mix", choices=["small", "standard", "both"], default="both")
    arguments.add_argument("--tls", action="store_true", help="over TLS")
    arguments.add_argument("--rtt", type=float, default=0, metavar="MS", help="over a line of this round trip")
    options = arguments.parse_args()
    heading("the bare pipeline", "dovecot")
    rows = []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(dovecot())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        port = server.imaps_port if options.tls else server.imap_port
        if options.rtt:
            port = stack.enter_context(Line(port, options.rtt)).port
        road = contest.Road(port, server.ca_file if options.tls else None, far=bool(options.rtt))
        for mix in ("small", "standard") if options.mix == "both" else (options.mix,):
            count = {"small": 20_000, "standard": 4_000}[mix] // (10 if options.quick else 1)
            master = Master(server, mix, letters(mix, count, user=mix))
            found = contest.interleaved(
                [contest.reference("bare", road)], master, server, directory, rounds(options), say
            )["bare"]
            rows.append([mix, count, *found.row, found.rate * master.octets / count / 1e6])
    print(table(["mix", "messages", "messages/s", "least to greatest", "CPU s", "peak RSS MB", "MB/s"], rows))


if __name__ == "__main__":
    main()
