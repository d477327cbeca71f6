"""A line to a far server: a TCP proxy that delivers every octet half a round trip later, in order, as fast as it came.

As a program (``line.py --to PORT --rtt MILLISECONDS``) it prints the port that it listens on and serves until it is
ended. It is one thread around one epoll, with buffers that are passed on as they were received, because it must never
be what a benchmark measures.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field

WINDOW = 16 << 20
"""Octets under way in one direction of one connection; beyond it the sender waits, as with a TCP window."""
CHUNK = 1 << 18


@dataclass(slots=True, eq=False)
class End:
    """One side of a connection, and what is under way to it."""

    socket: socket.socket
    peer: End = field(init=False)
    transit: deque[tuple[float, memoryview | None]] = field(default_factory=deque)
    """(when it arrives, octets); None is the end of the stream."""
    octets: int = 0
    mask: int = 0
    blocked: bool = False
    """The kernel takes no more at present."""
    finished: bool = False
    """Nothing more is read from here."""


class Proxy:
    """Serves for ever. ``delay_s`` is one way."""

    def __init__(self, to: int, delay_s: float) -> None:
        self._to = to
        self._delay = delay_s
        self._poll = select.epoll()
        self._ends: dict[int, End] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._poll.register(self._listener, select.EPOLLIN)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        while True:
            for number, events in self._poll.poll(self._patience()):
                if number == self._listener.fileno():
                    self._accept()
                elif (end := self._ends.get(number)) is not None:
                    self._handle(end, events)
            now = time.monotonic()
            for end in list(self._ends.values()):
                if end.transit and not end.blocked and end.transit[0][0] <= now:
                    self._pass_on(end, now)

    def _patience(self) -> float | None:
        due = [end.transit[0][0] for end in self._ends.values() if end.transit and not end.blocked]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            near.close()
            return
        ends = End(near), End(far)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        for end in ends:
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.socket.fileno()] = end
            self._poll.register(end.socket, 0)
            self._watch(end)

    def _watch(self, end: End) -> None:
        """Ask epoll for what matters to this end now."""
        mask = select.EPOLLOUT if end.blocked else 0
        if not end.finished and end.peer.octets < WINDOW:
            mask |= select.EPOLLIN
        if mask != end.mask:
            end.mask = mask
            self._poll.modify(end.socket, mask)

    def _handle(self, end: End, events: int) -> None:
        if events & select.EPOLLOUT:
            end.blocked = False
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not end.finished:
            try:
                data = end.socket.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self._drop(end)
                return
            end.finished = not data
            end.peer.transit.append((time.monotonic() + self._delay, memoryview(data) if data else None))
            end.peer.octets += len(data)
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            self._drop(end)
            return
        self._watch(end)

    def _pass_on(self, end: End, now: float) -> None:
        """Hand over what has arrived."""
        try:
            while end.transit and end.transit[0][0] <= now:
                due, data = end.transit[0]
                if data is None:
                    end.transit.popleft()
                    end.socket.shutdown(socket.SHUT_WR)
                    if end.finished:
                        self._drop(end)
                    return
                sent = end.socket.send(data)
                end.octets -= sent
                if sent < len(data):
                    end.transit[0] = (due, data[sent:])
                    raise BlockingIOError
                end.transit.popleft()
        except BlockingIOError:
            end.blocked = True
        except OSError:
            self._drop(end)
            return
        self._watch(end)
        self._watch(end.peer)

    def _drop(self, end: End) -> None:
        for one in (end, end.peer):
            if self._ends.pop(one.socket.fileno(), None) is not None:
                self._poll.unregister(one.socket)
                one.socket.close()


class Line:
    """The proxy as a process of its own before ``to``, a port of 127.0.0.1; a context manager. ``port`` is the near
    end."""

    def __init__(self, to: int, rtt_ms: float) -> None:
        self._to, self._rtt_ms = to, rtt_ms

    def __enter__(self) -> Line:
        command = [sys.executable, __file__, "--to", str(self._to), "--rtt", str(self._rtt_ms)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def ceiling(rtt_ms: float, octets: int = 400_000_000) -> tuple[float, float]:
    """What the line itself can: the round trip in milliseconds as measured (median of nine), and octets a second."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as far:
            while (asked := far.recv(1)) == b"?":
                far.sendall(b"!")
            if asked:
                block = bytes(1 << 20)
                for _ in range(octets >> 20):
                    far.sendall(block)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with Line(listener.getsockname()[1], rtt_ms) as line, socket.create_connection(("127.0.0.1", line.port)) as near:
        trips = []
        for _ in range(9):
            began = time.perf_counter()
            near.sendall(b"?")
            near.recv(1)
            trips.append(time.perf_counter() - began)
        began, received = time.perf_counter(), 0
        near.sendall(b"b")
        into = bytearray(CHUNK)
        while received < octets >> 20 << 20:
            received += near.recv_into(into)
        elapsed = time.perf_counter() - began
    server.join(5)
    return sorted(trips)[4] * 1000, received / elapsed


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--to", type=int, required=True, metavar="PORT", help="the server's port on 127.0.0.1")
    reader.add_argument("--rtt", type=float, required=True, metavar="MS", help="the round trip in milliseconds")
    options = reader.parse_args()
    proxy = Proxy(options.to, options.rtt / 2000)
    print(proxy.port, flush=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        proxy.serve()


def _end_with_parent() -> None:
    """Whoever started us holds our standard input open for as long as it lives."""
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
