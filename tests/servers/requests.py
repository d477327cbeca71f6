"""What the HTTP servers in threads do alike with a request, before any of them looks into it."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """One connection. A request whose head was cut on its way is none: the standard library would take what has come
    for all."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def parse_request(self) -> bool:
        wire = self.rfile
        self.rfile = head = _Lines(wire)  # type: ignore[assignment]
        try:
            sound = super().parse_request()
        finally:
            self.rfile = wire
        if sound and head.last not in (b"\r\n", b"\n"):
            self.close_connection = True
            return False
        return sound

    def log_message(self, *_: object) -> None:
        """Nothing: tests look at what the server has noted."""


class _Lines:
    """A file of which the last line that was read is known."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last
