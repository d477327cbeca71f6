"""What each step of understanding a mail costs, in microseconds of the processor, by kind of mail.

header   the header block, addresses and dates
body     the body, its text and digests; of HTML alone the text that is made of it
class    what kind of mail it is
said     reply, quotes and signature
forward  a message that was forwarded within the text
event    the event of level "parsed", all of these done; so what is left is JSON
all      the sum

  stages.py     the table of docs/performance.md
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from rig.table import table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mailpoller.core.attributes import Attributes
from mailpoller.core.message import Message
from mailpoller.core.verdict import Deliver
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse
from mailpoller.mail.understand.forward import inline
from odd_mail.reading import NOW, raw

ROUNDS, SECONDS = 7, 0.02
HEADER = (
    b"Return-Path: <jane@example.org>\r\nReceived: from mx.example.org (mx.example.org [192.0.2.7]) by "
    b"mail.example.com with ESMTPS id 4711 for <support@example.com>; Sat, 14 Mar 2026 09:26:53 +0100\r\nFrom: Jane "
    b"Doe <jane@example.org>\r\nTo: Support <support@example.com>\r\nSubject: order 4711\r\nDate: Sat, 14 Mar 2026 "
    b"09:26:50 +0100\r\nMessage-ID: <4711.1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/"
)
PLAIN = "Hello,\r\n\r\nthe order 4711 has not come yet. It was to be here on Monday,\r\nand we need it. " * 4
QUOTE = "On Fri, Mar 13, 2026 at 10:05 AM Support <support@example.com> wrote:\r\n" + "> It is on its way.\r\n" * 10
ROW = (
    '<tr><td style="padding:4px"><a href="https://example.com/{0}"><b>Item {0}</b></a></td><td>{0}.00 EUR</td></tr>\r\n'
)
MAILS = {
    "plain": HEADER + f"plain; charset=utf-8\r\n\r\n{PLAIN}\r\n\r\nJane".encode(),
    "plain, an answer": HEADER + f"plain; charset=utf-8\r\n\r\nYes.\r\n\r\nJane\r\n\r\n{QUOTE}".encode(),
    "plain, flowed": HEADER + f"plain; charset=utf-8; format=flowed\r\n\r\n{PLAIN.replace('y,', 'y, ')}".encode(),
    "HTML alone, 6 KB": HEADER
    + f"html; charset=utf-8\r\n\r\n<table>{''.join(ROW.format(n) for n in range(50))}</table>".encode(),
    "HTML alone, 60 KB": HEADER
    + f"html; charset=utf-8\r\n\r\n<table>{''.join(ROW.format(n) for n in range(500))}</table>".encode(),
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rows = []
    for name, octets in MAILS.items():
        steps = _steps(octets)
        costs = [_cost(prepare, step) for prepare, step in steps]
        rows.append([name, len(octets), *(f"{cost:.1f}" for cost in costs), f"{sum(costs):.1f}"])
    print(table(["mail", "octets", "header", "body", "class", "said", "forward", "event", "all"], rows))


Prepare, Step = Callable[[], Any], Callable[[Any], Any]


def _steps(octets: bytes) -> list[tuple[Prepare, Step]]:
    def header() -> Message:
        return parse(raw(octets))

    def body() -> Message:
        message = header()
        _ = message.body
        return message

    def said() -> Message:
        message = body()
        _ = message.said, message.classification
        return message

    def render(message: Message) -> None:
        renderer = EventRenderer(message, verdict=Deliver(("q",), Attributes()), source="mailpoller/support", now=NOW)
        renderer.render(queue="q", delivery_id="d", payload="parsed")

    return [
        (lambda: raw(octets), parse),
        (header, lambda message: message.body),
        (header, lambda message: message.classification),
        (body, lambda message: message.said),
        (said, inline),
        (said, render),
    ]


def _cost(prepare: Prepare, step: Step) -> float:
    """Microseconds of one; what is prepared for it does not count."""
    began = time.process_time()
    step(prepare())
    repeats = max(2, min(200, int(SECONDS / (time.process_time() - began + 1e-9))))
    rounds = []
    for _ in range(ROUNDS):
        things = [prepare() for _ in range(repeats)]
        gc.disable()
        began = time.process_time()
        for thing in things:
            step(thing)
        rounds.append((time.process_time() - began) / repeats * 1e6)
        gc.enable()
    return median(rounds)


if __name__ == "__main__":
    main()
