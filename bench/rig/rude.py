"""A server with bad manners: a process with a thread for each connection, which does what a scenario says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

Said = bytes | Callable[["Wire", str, str], "bytes | None"] | None
"""What a command is answered with: octets in which %T stands for the tag, or what makes them of tag and arguments."""


class Gone(Exception):
    """The client has hung up."""


class Wire:
    """One connection, as the server sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    def say(self, octets: bytes) -> None:
        """Send all of it, as fast as the client reads."""
        self.sock.sendall(octets)

    def flood(self, octets: bytes) -> None:
        """Send the same for ever."""
        block = octets * max(1, (1 << 18) // len(octets))
        while True:
            self.say(block)

    def drip(self, octets: bytes, seconds: float = 1.0) -> None:
        """Send an octet at a time."""
        for at in range(len(octets)):
            self.say(octets[at : at + 1])
            time.sleep(seconds)

    def read(self, size: int) -> bytes:
        """So many octets."""
        while len(self._rest) < size:
            self._more()
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def line(self) -> str:
        """The client's next line, without its end."""
        while b"\n" not in self._rest:
            self._more()
        line, self._rest = self._rest.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def _more(self) -> None:
        came = self.sock.recv(1 << 16)
        if not came:
            raise Gone
        self._rest += came

    # --- manners -----------------------------------------------------------------------------------------------
    def imap(
        self,
        said: Mapping[str, Said] | None = None,
        *,
        capabilities: str = "IMAP4rev1 IDLE ESEARCH UIDPLUS MOVE NAMESPACE",
        exists: int = 0,
        greeting: bytes | None = None,
    ) -> None:
        """A conversation in which everything is answered as it should be, but for what is ``said`` otherwise."""
        select = b"* %d EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT %d] ok\r\n%%T OK [READ-WRITE] ok\r\n"
        polite: dict[str, Said] = {
            "CAPABILITY": b"* CAPABILITY %b\r\n%%T OK ok\r\n" % capabilities.encode(),
            "LIST": b'* LIST () "/" INBOX\r\n%T OK ok\r\n',
            "NAMESPACE": b'* NAMESPACE (("" "/")) NIL NIL\r\n%T OK ok\r\n',
            "SELECT": select % (exists, exists + 1),
            "EXAMINE": select % (exists, exists + 1),
            "IDLE": b"+ idling\r\n",
            **(said or {}),
        }
        self.say(b"* OK ready\r\n" if greeting is None else greeting)
        idling = ""
        while True:
            line = self.line()
            tag, _, rest = line.partition(" ")
            name, _, arguments = rest.removeprefix("UID ").partition(" ")
            name = name.upper()
            if line == "DONE":
                tag, name = idling, "DONE"
            elif name == "IDLE":
                idling = tag
            answer = polite.get(name, b"%T OK ok\r\n")
            octets = answer(self, tag, arguments) if callable(answer) else answer
            if octets:
                self.say(octets.replace(b"%T", tag.encode()))

    def lines(self, greeting: bytes, said: Mapping[str, Said], default: bytes) -> None:
        """A conversation in which every command is a line: POP3 or SMTP."""
        self.say(greeting)
        while True:
            name, _, arguments = self.line().partition(" ")
            answer = said.get(name.upper(), default)
            octets = answer(self, name, arguments) if callable(answer) else answer
            if octets:
                self.say(octets)

    def asked(self) -> dict[str, str]:
        """The next HTTP request: its header, names in lower case, and its body under the empty name."""
        self.line()
        headers: dict[str, str] = {}
        while line := self.line():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        headers[""] = self.read(int(headers.get("content-length", "0"))).decode("latin-1")
        return headers


def serve(pipe: Connection, what: Callable[[Wire], None]) -> None:
    """Do ``what`` on each connection, for ever; the port goes through the pipe."""
    listening = socket.create_server(("127.0.0.1", 0))
    pipe.send(listening.getsockname()[1])
    while True:
        sock, _ = listening.accept()
        threading.Thread(target=_converse, args=(sock, what), daemon=True).start()


def _converse(sock: socket.socket, what: Callable[[Wire], None]) -> None:
    with contextlib.suppress(OSError, Gone), sock:
        what(Wire(sock))
