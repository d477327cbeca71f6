"""Many mailboxes with little in each: how many a second are connected to, drained and settled.

Counted from the moment at which the ledger is open (ledger.opened in the log, shortly before the first connection) to
the last logout (session.closed, after the last disposition). The whole process, with its start and its exit, stands
beside it.

    many.py                    200 mailboxes with 20 small messages each
    many.py --tls --mailboxes 500
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from rig.letters import letters
from rig.options import heading, reader, rounds, say
from rig.process import Failed, measure
from rig.server import Master, dovecot, unseen
from rig.service import Service
from rig.table import median, spread, table

TARGET = 80


def main() -> None:
    arguments = reader(__doc__, repeat=3)
    arguments.add_argument("--mailboxes", type=int, default=0, metavar="N", help="how many (200; quick 40)")
    arguments.add_argument("--messages", type=int, default=20, metavar="N", help="in each (20)")
    arguments.add_argument("--payload", choices=["raw", "parsed"], default="raw", help="of the queue (raw)")
    arguments.add_argument("--tls", action="store_true", help="over TLS")
    options = arguments.parse_args()
    boxes = options.mailboxes or (40 if options.quick else 200)
    heading(f"{boxes} mailboxes with {options.messages} small messages each{', TLS' * options.tls}", "dovecot")
    rates, wholes, cpus, peaks = [], [], [], []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(dovecot(2 * boxes + 100))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        master = Master(server, "many", letters("small", options.messages, user="many"))
        for round_ in range(rounds(options)):
            site = Service(directory / "site", payload=options.payload)
            users = [master.copy() for _ in range(boxes)]
            for user in users:
                port, ca_file = (server.imaps_port, server.ca_file) if options.tls else (server.imap_port, None)
                site.imap(user, port, ca_file)
            cost = measure(site.command("run", "--once"), site.log)
            if (held := site.held()) != boxes * options.messages:
                raise Failed(f"{held} of {boxes * options.messages} messages are held")
            if left := sum(unseen(server, user) for user in users[:: max(1, boxes // 20)]):
                raise Failed(f"{left} messages are unseen")
            elapsed = max(site.instants("session.closed")) - min(site.instants("ledger.opened"))
            rates.append(boxes / elapsed)
            wholes.append(boxes / cost.wall_s)
            cpus.append(cost.cpu_s)
            peaks.append(cost.peak_anonymous / 1e6)
            say(f"{round_ + 1}: {rates[-1]:.0f} mailboxes/s")
            shutil.rmtree(site.directory)
            for user in users:
                master.remove(user)
    row = [median(rates), spread(rates), TARGET, median(wholes), median(cpus), median(peaks)]
    columns = ["mailboxes/s", "least to greatest", "target", "whole process, mailboxes/s", "CPU s", "peak RssAnon MB"]
    print(table(columns, [row]))


if __name__ == "__main__":
    main()
