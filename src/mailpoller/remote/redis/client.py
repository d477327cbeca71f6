"""Connections to a Redis server, and its errors in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)

from mailpoller.core.errors import TransientError
from mailpoller.core.literals import Secret
from mailpoller.remote.redis.server import PORT, SENTINEL_PORT, RedisServer, host_port
from mailpoller.wire.tls import TlsPolicy

CONNECTIONS = 4
"""At most, to one server: batches beyond wait for one."""

_T = TypeVar("_T")
_SCRIPTS = "user executing the script can't"
"""Its words for a right that a command inside of a script lacks; there is no error of its own for it."""

Greeting = Callable[[AbstractConnection], Awaitable[None]]


def make_client(config: RedisServer, greeting: Greeting) -> Redis:
    """A client that connects when it is used. ``greeting`` is called with each new connection before anything is sent
    over it, and has to begin with its ``on_connect``."""
    common = _common(config, config.username, config.password)
    own = {**common, "db": config.database, "redis_connect_func": greeting}
    if config.sentinels:
        places = [host_port(one, SENTINEL_PORT) for one in config.sentinels]
        sentinel = Sentinel([], sentinel_kwargs={})  # type: ignore[no-untyped-call]
        sentinel.sentinels = [_asked(config, host, port) for host, port in places]
        managed: type[AbstractConnection] = _ManagedTls if config.tls == "tls" else SentinelManagedConnection
        pool: ConnectionPool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
            config.master, sentinel, connection_class=managed, max_connections=CONNECTIONS * 4, **_tls(config), **own
        )
    elif config.socket is not None:
        pool = BlockingConnectionPool(CONNECTIONS, None, UnixDomainSocketConnection, path=str(config.socket), **own)
    else:
        kind = _Tls if config.tls == "tls" else Connection
        pool = BlockingConnectionPool(
            CONNECTIONS, None, kind, host=config.host, port=config.port, **_tls(config), **own
        )
    return Redis.from_pool(pool)


async def close_pool(pool: ConnectionPool) -> None:
    """Close all connections, those to sentinels too."""
    await pool.disconnect()
    if isinstance(pool, SentinelConnectionPool):
        for one in pool.sentinel_manager.sentinels:
            await one.aclose()


def _asked(config: RedisServer, host: str, port: int) -> Redis:
    kind = _Tls if config.tls == "tls" else Connection
    own = _common(config, None, config.sentinel_password)
    return Redis.from_pool(BlockingConnectionPool(1, None, kind, host=host, port=port, **_tls(config), **own))


def _tls(config: RedisServer) -> dict[str, Any]:
    return {"policy": config.policy} if config.tls == "tls" else {}


def _common(config: RedisServer, username: str | None, password: Secret | None) -> dict[str, Any]:
    seconds = config.timeout.total_seconds()
    return {
        "protocol": 2,
        "socket_connect_timeout": seconds,
        "socket_timeout": None,  # each call has a deadline of its own, which follows its size
        "retry": Retry(NoBackoff(), 0),  # it is the engine that tries again
        "credential_provider": _Credentials(username, password) if password is not None else None,
        "health_check_interval": 0,
    }


class _Credentials(CredentialProvider):
    """Reads the password at each login, so that one that was changed is noticed."""

    def __init__(self, username: str | None, password: Secret) -> None:
        self._username = username
        self._password = password

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        found = self._password.reveal()
        return (found,) if self._username is None else (self._username, found)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


class _Trusting(SSLConnection):
    """TLS by our policy: redis-py adds a CA file to the system's certificates, where it is to stand instead of them."""

    def __init__(self, *, policy: TlsPolicy, **more: Any) -> None:
        super().__init__(**more)
        self.ssl_context.context = policy.context()


class _Tls(_Trusting):
    pass


class _ManagedTls(SentinelManagedConnection, _Trusting):
    pass


async def ask(client: Redis, place: str, seconds: float, work: Callable[[], Awaitable[_T]]) -> _T:
    """What ``work`` asks of the server, within ``seconds``. A connection that was lost is no trouble yet, for servers
    and what is before them close those that are idle: it is asked once more over a new one.

    Raises :class:`TransientError` with the reason.
    """
    try:
        async with asyncio.timeout(seconds):
            try:
                return await work()
            except ConnectionError as error:
                if isinstance(error, AuthenticationError | AuthorizationError):
                    raise
                await client.connection_pool.disconnect(inuse_connections=False)
                return await work()
    except TimeoutError:
        raise TransientError(f"{place}: no answer within {seconds:.0f} s") from None
    except RedisError as error:
        raise TransientError(f"{place}: {_words(error)}", advice=_advice(error)) from None
    except OSError as error:
        raise TransientError(f"{place}: {error.strerror or error}") from None


def _words(error: RedisError) -> str:
    said = str(error).partition(", with args")[0].partition(" script: ")[0]  # what follows repeats what we sent
    said = " ".join(said.split())[:300] or type(error).__name__
    if isinstance(error, OutOfMemoryError):
        return f"it is full: {said}"
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError) or _SCRIPTS in said:
        return f"it refuses us: {said}"
    return f"it takes no writes: {said}" if isinstance(error, ReadOnlyError) else said


def _advice(error: RedisError) -> str:
    if isinstance(error, OutOfMemoryError):
        return "Let consumers remove what they are done with (XDEL), or raise maxmemory."
    if isinstance(error, NoPermissionError) or _SCRIPTS in str(error):
        return "The ACL user needs the commands and keys that docs/sinks.md and, of intakes, docs/outgoing.md name."
    return ""


def place_of(config: RedisServer) -> str:
    """Where the server is, for errors and logs."""
    if config.sentinels:
        return f"redis {config.master}"
    return f"redis {config.socket or f'{config.host}:{config.port or PORT}'}"


@asynccontextmanager
async def borrowed(client: Redis) -> AsyncIterator[AbstractConnection]:
    """One of the client's connections, for questions; closed if they were not answered to the end."""
    pool = client.connection_pool
    connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        yield connection
    except TransientError:
        raise  # of what was answered
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
