"""How long the commands take that people and scripts wait for: check on a large configuration, and help.

start.py        mailpoller check with 1,000 mailboxes, mailpoller --help, and the interpreter alone
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rig.options import heading, reader, rounds
from rig.process import Cost, measure
from rig.service import Service
from rig.table import median, spread, table


def main() -> None:
    arguments = reader(__doc__, repeat=7)
    arguments.add_argument("--mailboxes", type=int, default=1_000, metavar="N", help="of the configuration (1,000)")
    options = arguments.parse_args()
    heading("starting")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        site = Service(directory / "site")
        for number in range(options.mailboxes):
            site.imap(f"user-{number}", 143, address=f"user-{number}@example.com", poll_interval="5m")
        commands = {
            f"check, {options.mailboxes:,} mailboxes": (site.command("check"), 2.0),
            "--help": ([sys.executable, "-m", "mailpoller", "--help"], 0.5),
            "the interpreter alone": ([sys.executable, "-c", "pass"], None),
        }
        costs: dict[str, list[Cost]] = {what: [] for what in commands}
        for _ in range(rounds(options)):
            for what, (argv, _limit) in commands.items():
                costs[what].append(measure(argv, directory / "said"))
    rows = []
    for what, (_argv, limit) in commands.items():
        walls = [cost.wall_s for cost in costs[what]]
        cpu = median(cost.cpu_s for cost in costs[what])
        rows.append([what, median(walls), spread(walls), limit, cpu, median(c.peak_rss / 1e6 for c in costs[what])])
    print(table(["command", "seconds", "least to greatest", "limit", "CPU s", "peak RSS MB"], rows))


if __name__ == "__main__":
    main()
