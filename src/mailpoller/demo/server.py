"""The demonstration's mail server: pymap in memory, on the loopback address, inside this process."""

from __future__ import annotations

import asyncio
import contextlib
from argparse import Namespace
from collections.abc import Iterable
from datetime import UTC, datetime
from secrets import token_bytes
from types import TracebackType
from typing import Any

from mailpoller.core.errors import ConfigError

try:
    from proxyprotocol.result import ProxyResultLocal
    from proxyprotocol.sock import SocketInfo
    from pymap.backend.dict import Config, DictBackend, Login
    from pymap.concurrent import Subsystem
    from pymap.imap import IMAPServer
    from pymap.parsing.message import AppendMessage
    from pysasl.hashing import BuiltinHash
except ImportError as error:
    raise ConfigError("the demonstration needs its mail server: pip install 'mailpoller[demo]'") from error

HOST = "127.0.0.1"
"""Never another address: the password is in this file."""
USER = "demo"
PASSWORD = "demo"  # noqa: S105 - the demonstration's own, of a server that only the loopback address reaches
_GRACE_S = 2.0


class _DemoConfig(Config):
    """pymap's settings, but for a greeting that looks up no host name: that may block the event loop for seconds."""

    @property
    def greeting(self) -> bytes:
        return b"mailpoller demonstration server ready"


class DemoServer:
    """An IMAP4rev1 server with IDLE, MOVE, UIDPLUS and one account, for as long as the ``async with`` block lasts.

    ``port`` 0 takes a free one; afterwards :attr:`port` is the one taken. All mail lies in memory and is gone with
    the server, and a new server has a new UIDVALIDITY. Raises OSError when the port is taken.
    """

    host = HOST
    user = USER
    password = PASSWORD

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._backend: Any = None
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> DemoServer:
        arguments = Namespace(
            host=HOST, port=str(self.port), debug=False, cert=None, key=None, tls=False, demo_data=False,
            demo_user=USER, demo_password=PASSWORD, passlib_cfg=None, proxy_protocol=None,
        )  # fmt: skip
        # A login costs pymap's default hash a tenth of a second of processor, for a password that is printed above.
        # This one needs no thread of its own, which would outlive the server.
        config = _DemoConfig.from_args(
            arguments, hash_context=BuiltinHash(rounds=1), cpu_subsystem=Subsystem.for_asyncio()
        )
        login = Login(config)
        await DictBackend._add_demo_user(config, login)
        self._backend = DictBackend(login, config)
        answer = IMAPServer(login, config)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._connections.add(task)
            try:
                # A client that is killed breaks its own connection, and that is no news to anybody.
                with contextlib.suppress(ConnectionError, EOFError):
                    await answer(reader, writer, SocketInfo.get(writer, ProxyResultLocal(), unique_id=token_bytes(8)))
            finally:
                self._connections.discard(task)
                writer.close()

        self._listener = await asyncio.start_server(serve, HOST, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        for task in (connections := tuple(self._connections)):
            task.cancel()
        if connections:
            await asyncio.wait(connections, timeout=_GRACE_S)

    async def add(self, messages: Iterable[bytes], folder: str = "INBOX") -> tuple[str, ...]:
        """Put messages into a folder that exists, bit for bit, as if they had arrived now: their uids."""
        async with self._backend.login.demo_user_identity.new_session() as session:
            mailbox = await session.mailbox_set.get_mailbox(folder)
            added = [await mailbox.append(AppendMessage(octets, datetime.now(UTC))) for octets in messages]
            return tuple(str(message.uid) for message in added)

    async def held(self, folder: str = "INBOX") -> int:
        """How many messages a folder holds; 0 if there is no such folder."""
        async with self._backend.login.demo_user_identity.new_session() as session:
            try:
                mailbox = await session.mailbox_set.get_mailbox(folder)
            except KeyError:
                return 0
            return int((await mailbox.snapshot()).exists)
