"""A mailpoller to be measured: its files under one directory, its configuration, its command."""

from __future__ import annotations

import compileall
import json
import sqlite3
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import mailpoller


class Service:
    """One installation with one SQLite queue, made anew. Logging is as it comes: INFO, one JSON object a line."""

    def __init__(self, directory: Path, *, payload: str = "raw", **service: Any) -> None:
        directory.mkdir(parents=True)
        # As an installed package has it: a checkout may not be allowed to keep its bytecode, and would compile at
        # each start.
        compileall.compile_dir(Path(mailpoller.__file__).parent, quiet=2)
        self.directory = directory
        self.queue = directory / "queue.db"
        self.log = directory / "log.jsonl"
        self._settings: dict[str, Any] = {
            "service": {
                "state_directory": str(directory / "state"),
                "control_socket": str(directory / "control.sock"),
                "log_format": "json",
                **service,
            },
            "ledger": {"type": "sqlite", "path": str(directory / "ledger.db")},
            "queues": {"support": {"type": "sqlite", "path": str(self.queue), "payload": payload}},
            "mailboxes": {},
        }
        self._password = directory / "password"
        self._password.write_text("secret")
        self._password.chmod(0o600)

    def imap(self, user: str, port: int, ca_file: Path | None = None, **settings: Any) -> None:
        """Add a mailbox: plain, or from the first octet on over TLS if there is a ``ca_file``."""
        self._mailbox("imap", user, port, ca_file, settings)

    def pop3(self, user: str, port: int, ca_file: Path | None = None, **settings: Any) -> None:
        """As :meth:`imap`, by POP3."""
        self._mailbox("pop3", user, port, ca_file, settings)

    def add(self, section: str, name: str, **block: Any) -> None:
        """Add any block: ``mailboxes``, ``queues`` or ``outgoing``."""
        self._settings.setdefault(section, {})[name] = block

    @property
    def password(self) -> str:
        """The password of every mailbox, as the configuration names it."""
        return f"file:{self._password}"

    def _mailbox(self, kind: str, user: str, port: int, ca_file: Path | None, settings: dict[str, Any]) -> None:
        tls = {"tls": "none"} if ca_file is None else {"tls": "tls", "ca_file": str(ca_file)}
        self._settings["mailboxes"][user] = {
            "type": kind,
            "host": "127.0.0.1",
            "port": port,
            **tls,
            "username": user,
            "password": self.password,
            "default_queue": "support",
            **settings,
        }

    def write(self) -> Path:
        """Write the configuration file. (JSON is YAML; a mailbox has a line of its own, as people would write it.)"""
        path = self.directory / "mailpoller.yaml"
        blocks = [f"{name}: {json.dumps(block)}" for name, block in self._settings.items() if name != "mailboxes"]
        boxes = [f"  {name}: {json.dumps(block)}" for name, block in self._settings["mailboxes"].items()]
        path.write_text("\n".join([*blocks, "mailboxes:", *boxes, ""]))
        return path

    def command(self, *arguments: str) -> list[str]:
        """The command line of a verb with this configuration, which is written now."""
        return [sys.executable, "-m", "mailpoller", *arguments, "--config", str(self.write())]

    def held(self) -> int:
        """How many messages the queue holds; none if it was never made."""
        if not self.queue.exists():
            return 0
        with sqlite3.connect(f"file:{self.queue}?mode=ro", uri=True, timeout=10) as queue:
            return int(queue.execute("SELECT count(*) FROM message").fetchone()[0])

    def instants(self, event: str) -> list[float]:
        """When each log line of this event was written, as seconds of the clock."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        said = [json.loads(line) for line in lines if f'"{event}"' in line and line.endswith("}")]
        return [datetime.fromisoformat(one["at"]).timestamp() for one in said if one["event"] == event]
