"""A worker: reads one body after the other, with no network, no ledger, and no right to write a file.

Run as ``python -m mailpoller.workers.worker``. It ends when its standard input does, and for no signal that can be
ignored: whoever started it stops it.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

import orjson

from mailpoller.core.body import Body, Contents
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.spool import Block, Octets
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.parser import parse
from mailpoller.workers.frames import LENGTH, answer, refusal

ROOM = 400 << 20
"""Octets of address space beyond that of the message itself, thrice."""
_FILES = 16
_KILL_ME_FIRST = "1000"


def main() -> None:
    """Answer questions until there are no more."""
    _confine()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (asked := _frame(source)) is not None:
        sink.write(_answered(asked, source))
        sink.flush()


def _confine() -> None:
    """A terminal's interrupt and a service's stop are for the daemon, which decides when a worker ends. No file grows,
    nothing is dumped, few are open; and where memory ends, the kernel takes a worker and not the daemon."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - no Path is needed here
        file.write(_KILL_ME_FIRST)


def _answered(asked: bytes, source: BinaryIO) -> bytes:
    question = orjson.loads(asked)
    size: int = question["size"]
    try:
        with suppress(ValueError, OSError):  # a harder limit stands already
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (ROOM + 3 * size, hard))
        octets = _exactly(source, size) if question["path"] is None else _mapped(question["path"])
        return answer(read(octets, header=question["header"], closed=question["closed"]))
    except MemoryError:
        return refusal("out-of-memory")
    except RecursionError:
        return refusal("too-deep")


def read(octets: Block, *, header: bool, closed: Sequence[str] = ()) -> Body | Contents:
    """The body of a message, that has been parsed whole; an empty one for the ``header`` alone; what is in its parts
    of the kinds that are ``closed``."""
    nobody = Claim(MessageRef(Folder("", "", ""), "0", len(octets)), "")
    message = parse(RawMessage(nobody, Octets(octets, len(octets), b"")))
    if closed:
        return read_contents(message, closed)
    return Body("", "", ()) if header else message.body


def _frame(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    return _exactly(source, LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def _exactly(source: BinaryIO, size: int) -> bytes:
    octets = source.read(size)
    if len(octets) < size:
        raise SystemExit(0)  # the daemon is gone
    return octets


def _mapped(path: str) -> Block:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if os.fstat(descriptor).st_size else b""
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
