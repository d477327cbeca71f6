"""When a message is held: a reader of the queue's database that looks every millisecond."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path


class Queue(threading.Thread):
    """Notes when each message's row can first be seen by a reader: it is committed then, at most a millisecond ago."""

    def __init__(self, path: Path) -> None:
        super().__init__(name="queue", daemon=True)
        self.seen: dict[str, float] = {}
        """Message-ID -> time.monotonic."""
        self.done = threading.Event()
        self._path = path

    def run(self) -> None:
        reader = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None, timeout=10)
        seen = version = -1
        while not self.done.is_set():
            (now_version,) = reader.execute("PRAGMA data_version").fetchone()
            if now_version != version:
                now = time.monotonic()
                try:
                    rows = reader.execute("SELECT seq, event FROM content WHERE seq > ?", (seen,)).fetchall()
                except sqlite3.OperationalError:  # it is being made
                    continue
                version = now_version
                for seq, event in rows:
                    seen = max(seen, seq)
                    self.seen[_message_id(event)] = now
            time.sleep(0.001)


def _message_id(event: str) -> str:
    return str(json.loads(event)["data"]["message_id"]).strip("<>")


def id_of(octets: bytes) -> str:
    """The Message-ID of a letter that was made here."""
    return octets.split(b"\nMessage-ID: <", 1)[1].split(b">", 1)[0].decode()
