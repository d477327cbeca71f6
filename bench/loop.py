"""How long the event loop is held: the processor time of every callback while the standard mix is drained.

Every mailbox shares one thread. A callback that computes for long makes all of them wait, so none may take more than
50 ms of that thread's processor time (time.thread_time: what other programs on the machine do does not count). Steps
of the start, before any mailbox is polled, stand apart.

    loop.py                    4,000 messages of the standard mix, payload raw and parsed
    loop.py --payload parsed --mix small
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from rig import stopwatch
from rig.letters import letters
from rig.options import heading, reader, say
from rig.process import Failed, measure
from rig.server import Master, dovecot
from rig.service import Service
from rig.table import table

LIMIT_MS = 50


def main() -> None:
    arguments = reader(__doc__, repeat=0)
    arguments.add_argument("--payload", action="append", choices=["raw", "parsed"], help="may be repeated (both)")
    arguments.add_argument("--mix", choices=["small", "standard"], default="standard", help="which messages (standard)")
    options = arguments.parse_args()
    heading(f"callbacks of the event loop, {options.mix} mix", "dovecot")
    count = {"small": 20_000, "standard": 4_000}[options.mix] // (10 if options.quick else 1)
    summary, worst = [], []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(dovecot())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        master = Master(server, "loop", letters(options.mix, count, user="loop"))
        for payload in options.payload or ["raw", "parsed"]:
            user = master.copy()
            site = Service(directory / payload, payload=payload)
            site.imap(user, server.imap_port)
            result = directory / f"{payload}.json"
            _, _module, *arguments_ = site.command("run", "--once")[1:]
            measure([sys.executable, stopwatch.__file__, str(result), *arguments_], site.log)
            if (held := site.held()) != count:
                raise Failed(f"{held} of {count} messages are held")
            seen = json.loads(result.read_text())
            summary.append(
                [
                    payload,
                    seen["callbacks"],
                    seen["p99"],
                    seen["p999"],
                    seen["longest"],
                    LIMIT_MS,
                    seen["above_10"],
                    seen["start"],
                ]
            )
            worst += [[payload, one["ms"], one["who"], one["where"]] for one in seen["worst"]]
            say(f"{payload}: {seen['longest']:.1f} ms")
            master.remove(user)
    columns = [
        "payload",
        "callbacks",
        "p99 ms",
        "p99.9 ms",
        "longest ms",
        "limit ms",
        "above 10 ms",
        "longest at start ms",
    ]
    print(table(columns, summary) + "\n")
    print(table(["payload", "ms", "longest callbacks", "seen in"], worst))


if __name__ == "__main__":
    main()
