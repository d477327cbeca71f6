"""The stage of the demonstration: a directory with a configuration, a mail server that it polls, and the way to drop
more mail."""

from __future__ import annotations

import fcntl
import imaplib
import json
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.record import record
from mailpoller.demo.messages import DemoMessage, further, messages

if TYPE_CHECKING:
    from mailpoller.demo.server import DemoServer

_MARK = "demo.json"
"""Names the running server to ``drop``, is locked while it runs, and tells that the directory is ours to clear."""
_DROP_TIMEOUT_S = 10.0

_CONFIGURATION = """\
# The demonstration's configuration, written anew by every `mailpoller demo`.
service:
  environment: production
  state_directory: {state}
  control_socket: {socket}
ledger:
  type: sqlite
  path: {ledger}
queues:
  support:
    type: sqlite
    path: {support}
  billing:
    type: sqlite
    path: {billing}
  oddities:
    type: maildir
    path: {oddities}
quarantine:
  type: queue
  queue: oddities
rules:
  - name: invoices
    when:
      subject:
        contains: [invoice, Rechnung]
    then:
      queue: billing
      topic: billing
  - name: unanswerable
    when:
      not:
        from:
          contains: "@"
    then:
      quarantine: no-sender
mailboxes:
  demo:
    type: imap
    host: {host}
    port: {port}
    tls: none
    username: {user}
    password: {password}
    address: support@example.com
    start: all
    poll_interval: 10s
    reconnect_interval: 1s
    default_queue: support
    rules: [unanswerable, invoices]
    disposition:
      move: Processed
"""


@record
class DemoSetup:
    """A stage that is set. ``config`` is the configuration's file; the mail server runs until :meth:`close`.

    Used as ``async with await prepare(directory) as setup:``.
    """

    directory: Path
    config: Path
    server: DemoServer
    messages: tuple[DemoMessage, ...]
    uids: tuple[str, ...]
    """Of the messages, in the same order."""
    _mark: BinaryIO

    @property
    def queues(self) -> dict[str, Path]:
        """Where each queue lies: name -> SQLite file or Maildir."""
        queue = self.directory / "queue"
        return {"support": queue / "support.db", "billing": queue / "billing.db", "oddities": queue / "oddities"}

    async def close(self) -> None:
        """Stop the mail server. The directory stays, to be looked at; the next :func:`prepare` clears it."""
        await self.server.__aexit__(None, None, None)
        self._mark.truncate(0)
        self._mark.close()

    async def __aenter__(self) -> DemoSetup:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def prepare(directory: Path, *, port: int = 0) -> DemoSetup:
    """Set the stage in ``directory``: start the mail server with its messages in it, write the configuration.

    The directory is made, or cleared if an earlier demonstration left it. Raises :class:`ConfigError` when it holds
    anything else, when a demonstration is running in it, when the port is taken, or without the extra ``demo``.
    """
    from mailpoller.demo.server import DemoServer

    directory, mark = _take(directory)
    try:
        server = DemoServer(port)
        await server.__aenter__()
    except OSError as error:
        mark.close()
        raise ConfigError(f"the demonstration's mail server cannot listen on port {port}: {error.strerror}") from None
    letters = messages()
    uids = await server.add([letter.octets for letter in letters])
    config = directory / "mailpoller.yaml"
    config.touch(mode=0o600)  # there is a password in it, and the next reader may copy it
    config.write_text(
        _CONFIGURATION.format(
            state=_quote(directory / "state"),
            socket=_quote(directory / "control.sock"),
            ledger=_quote(directory / "state" / "ledger.db"),
            support=_quote(directory / "queue" / "support.db"),
            billing=_quote(directory / "queue" / "billing.db"),
            oddities=_quote(directory / "queue" / "oddities"),
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
        ),
        "utf-8",
    )
    mark.write(json.dumps({"port": server.port, "process": os.getpid()}).encode())
    mark.flush()
    return DemoSetup(directory, config, server, letters, uids, mark)


def drop(octets: bytes, directory: Path) -> None:
    """Put a further message into the mailbox of the demonstration that runs in ``directory``.

    It goes by IMAP APPEND (RFC 3501 section 6.3.11) as another mail client would do it; line ends become CRLF, and
    bare text is given a header. Blocks, ten seconds at most. Raises :class:`TransientError` when no demonstration
    answers.
    """
    try:
        port = int(json.loads((directory / _MARK).read_bytes())["port"])
    except (OSError, ValueError, KeyError, TypeError):
        raise TransientError(f"no demonstration is running in {directory}") from None
    from mailpoller.demo.server import HOST, PASSWORD, USER

    try:
        with imaplib.IMAP4(HOST, port, timeout=_DROP_TIMEOUT_S) as mail:
            mail.login(USER, PASSWORD)
            answer, words = mail.append("INBOX", "", "", further(octets))
    except (OSError, imaplib.IMAP4.error) as error:
        raise TransientError(f"the demonstration on port {port} does not answer: {error}") from None
    if answer != "OK":
        raise TransientError(f"the demonstration refused the message: {words[0].decode('utf-8', 'replace')}")


def _quote(path: Path) -> str:
    """The path as a YAML scalar, whatever its name holds: every JSON string is one."""
    return json.dumps(str(path), ensure_ascii=False)


def _take(directory: Path) -> tuple[Path, BinaryIO]:
    """Make or clear the directory, and hold its mark locked: its absolute path and the mark."""
    directory = directory.absolute()
    if directory.is_dir() and not (directory / _MARK).exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} holds other files: give the demonstration a directory of its own")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark = (directory / _MARK).open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(f"cannot make the demonstration's directory {directory}: {error.strerror}") from None
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        mark.close()
        raise ConfigError(f"a demonstration is running in {directory}") from None
    mark.truncate(0)
    (directory / "mailpoller.yaml").unlink(missing_ok=True)
    for leftover in ("state", "queue"):
        shutil.rmtree(directory / leftover, ignore_errors=True)
    return directory, mark
