"""Many mailboxes that wait: what they cost, and how soon new mail in one of them is in the queue.

One mailpoller polls N mailboxes over TLS on a Dovecot, each waiting with IDLE (poll_interval 15m). Shown are the time
from the start of the process until every mailbox is logged in and listed once, the memory then, and the processor
time of a quiet stretch. Then mail comes to random mailboxes at a steady rate, to none of them twice while there are
others. Its latency is counted from the moment at which a bare second IDLE client of that mailbox (plain, in this
process) is told, until a reader of the queue's database sees the row, at a look every millisecond.

    idle.py                        2,000 mailboxes, a minute of quiet, 25 mails a second for 20 seconds
    idle.py --mailboxes 500 --no-tls

Dovecot has a process for each connection: 2,000 mailboxes take some 5 GB of memory, and an inotify instance each, for
which root is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from rig.arrivals import Queue, id_of
from rig.letters import letters
from rig.options import heading, reader, say
from rig.process import Failed, memory, processor
from rig.server import Dovecot, dovecot, make_maildir
from rig.service import Service
from rig.table import percentile, table
from rig.watchers import watch

CONNECT_LIMIT_S = 300
SETTLE_S = 5


def _await_all(process: subprocess.Popen[bytes], site: Service, count: int) -> float:
    """Wait until every mailbox is logged in and listed once; when that was, by time.time."""
    end = time.monotonic() + CONNECT_LIMIT_S
    opened: list[float] = []
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Failed(f"mailpoller ended with {process.returncode}:\n{site.log.read_text()[-1500:]}")
        opened, listed = site.instants("session.opened"), site.instants("folder.started")
        if len(opened) >= count and len(listed) >= count:
            return max(opened + listed)
        time.sleep(0.5)
    raise Failed(f"only {len(opened)} of {count} mailboxes are connected after {CONNECT_LIMIT_S} s")


async def latencies(server: Dovecot, site: Service, users: list[str], rate: float, seconds: float) -> list[float]:
    """Deliver to random mailboxes; milliseconds from the watcher's news to the row, of each mail."""
    # Each mailbox in its turn: Dovecot gathers news for half a second, counted for each client by itself, so of two
    # mails soon after each other one client hears half a second before the other, whoever they are.
    order = random.Random(7).sample(users, len(users))
    count = round(rate * seconds)
    chosen = [order[number % len(order)] for number in range(count)]
    told: dict[str, list[float]] = {user: [] for user in chosen}
    server.deliver(users[0], next(letters("small", 1, user="first", seed=2)))  # the first one makes the queue's file
    while not site.queue.exists():
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    watchers = await watch(server.imap_port, told, lambda user, instant: told[user].append(instant))
    queue = Queue(site.queue)
    queue.start()
    await asyncio.sleep(SETTLE_S)
    delivered: dict[str, list[str]] = {user: [] for user in told}
    began = time.monotonic()
    for number, (user, octets) in enumerate(zip(chosen, letters("small", count, user="news"), strict=True)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        while len(told[user]) < len(delivered[user]):  # one at a time to a mailbox, so that each news is about one mail
            await asyncio.sleep(0.005)
        delivered[user].append(id_of(octets))
        await asyncio.to_thread(server.deliver, user, octets)
    expected = {one for ids in delivered.values() for one in ids}
    for _ in range(300):
        if expected <= queue.seen.keys() and all(len(told[user]) >= len(ids) for user, ids in delivered.items()):
            break
        await asyncio.sleep(0.1)
    queue.done.set()
    for watcher in watchers:
        watcher.transport.abort()
    if missing := expected - queue.seen.keys():
        raise Failed(f"{len(missing)} of {count} mails are not in the queue after 30 s")
    return [
        (queue.seen[one] - instant) * 1000
        for user, ids in delivered.items()
        for one, instant in zip(ids, told[user], strict=False)
    ]


def measured(options: argparse.Namespace, count: int, quiet_s: float, mail_s: float, directory: Path) -> list[float]:
    """The row of the table."""
    with dovecot(count * 3 // 2 + 600) as server:
        site = Service(directory / "site")
        users = [f"idle-{number}" for number in range(count)]
        for user in users:
            make_maildir(server.maildir(user))
            port, ca_file = (server.imap_port, None) if options.no_tls else (server.imaps_port, server.ca_file)
            site.imap(user, port, ca_file, poll_interval="15m")
        argv = site.command("run")
        with site.log.open("wb") as log:
            began = time.time()
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            connected = _await_all(process, site, count) - began
            connect_cpu = processor(process.pid)
            say(f"{count} mailboxes are waiting after {connected:.1f} s")
            time.sleep(SETTLE_S)
            size = memory(process.pid)
            cpu, since = processor(process.pid), time.monotonic()
            time.sleep(quiet_s)
            minute = (processor(process.pid) - cpu) / (time.monotonic() - since) * 60
            say(f"{minute:.2f} s of processor a minute; {size['VmRSS'] / 1e6:.0f} MB")
            found = asyncio.run(latencies(server, site, users, options.rate, mail_s))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if options.keep_log:
                shutil.copy(site.log, options.keep_log)
    return [
        count,
        connected,
        connect_cpu,
        size["VmRSS"] / 1e6,
        size["RssAnon"] / 1e6,
        minute,
        len(found),
        percentile(found, 0.5),
        percentile(found, 0.99),
        max(found),
    ]


def main() -> None:
    arguments = reader(__doc__, repeat=0)
    arguments.add_argument("--mailboxes", type=int, default=0, metavar="N", help="how many (2,000; quick 200)")
    arguments.add_argument("--no-tls", action="store_true", help="plain")
    arguments.add_argument("--rate", type=float, default=25, metavar="R", help="mails a second (25)")
    arguments.add_argument("--keep-log", type=Path, metavar="FILE", help="copy mailpoller's log there")
    options = arguments.parse_args()
    count = options.mailboxes or (200 if options.quick else 2_000)
    heading(f"{count:,} mailboxes that wait{'' if options.no_tls else ' over TLS'}", "dovecot")
    quiet_s, mail_s = (15.0, 5.0) if options.quick else (60.0, 20.0)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        row = measured(options, count, quiet_s, mail_s, Path(directory))
    limits = ["limit", 60, None, 300, None, 2, None, None, 100, None]
    columns = ["mailboxes", "all listed after s", "CPU s till then", "RSS MB", "RssAnon MB", "CPU s a minute"]
    columns += ["mails", "told to committed p50 ms", "p99 ms", "worst ms"]
    print(table(columns, [[f"{count:,}", *row[1:]], limits]))


if __name__ == "__main__":
    main()
