"""A connection to a PostgreSQL server: its deadlines, and its errors in words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import (
    DiskFull,
    InsufficientPrivilege,
    ReadOnlySqlTransaction,
    UndefinedFunction,
    UndefinedObject,
    UndefinedTable,
)

from mailpoller.core.errors import TransientError
from mailpoller.remote.postgres.server import PostgresServer
from mailpoller.wire.names import resolve

# Whoever asked is told; what the library logs quotes the server, which quotes mail.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

_SETTLING_S = 2.0
_MIGRATE = "Make its tables with: procrastinate schema --apply, or apply its migrations"

_T = TypeVar("_T")


async def connect(config: PostgresServer) -> AsyncConnection[Any]:
    """A connection that keeps nothing at the server between transactions, so that PgBouncer may be in between.
    Raises :class:`TransientError`."""
    parameters, place = config.parameters(), config.place
    seconds = config.timeout.total_seconds()
    if config.password is not None:
        parameters["password"] = config.password.reveal()
    if config.host is not None:
        # In a thread that cannot fill up: psycopg would ask the loop's own resolver.
        found = await resolve(config.host, config.port, seconds=seconds)
        addresses = [str(address[0]) for _, _, address in found[:4]]
        parameters["connect_timeout"] = max(2, round(seconds / len(addresses)))
        parameters["hostaddr"] = ",".join(addresses)
        parameters["host"] = ",".join([config.host] * len(addresses))
        parameters["port"] = ",".join([str(config.port)] * len(addresses))
    try:
        async with asyncio.timeout(seconds):
            return await AsyncConnection.connect(**parameters, autocommit=True, prepare_threshold=None)
    except TimeoutError:
        raise TransientError(f"{place}: no connection within {seconds:g} s") from None
    except psycopg.Error as error:
        raise in_words(place, error, config.makes) from None


async def within(connection: AsyncConnection[Any], place: str, seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work`` over the connection. If it is not there in time, or we are cancelled, the line is cut:
    psycopg would ask the server to cancel, and wait for one that is frozen.

    Raises :class:`TransientError` if the time is over, and what ``work`` raises.
    """
    task = asyncio.create_task(work, name=place)
    done = set[asyncio.Task[_T]]()
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
    finally:
        if not task.done():
            await _cut(connection, task)
    if not done:
        raise TransientError(f"{place}: no answer within {seconds:.0f} s")
    return task.result()


async def _cut(connection: AsyncConnection[Any], task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
    try:
        await asyncio.wait((task,), timeout=_SETTLING_S)
    finally:
        task.cancel()
        task.add_done_callback(_heed)
        await connection.close()


def _heed(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def in_words(place: str, error: psycopg.Error, makes: str = "") -> TransientError:
    """The error for an operator; ``makes``: the command that makes tables which are missing. What
    PostgreSQL says beside its first line may quote the message, and is left out."""
    said = " ".join((error.diag.message_primary or str(error)).split())[:400]
    if "procrastinate_" in said and isinstance(error, UndefinedTable | UndefinedFunction | UndefinedObject):
        return TransientError(f"{place}: {said}; procrastinate 3.2 or later makes it", advice=_MIGRATE)
    if isinstance(error, UndefinedTable):
        return TransientError(f"{place}: {said}; {makes} makes it", advice=f"Make the tables with: {makes}")
    if isinstance(error, DiskFull) or (error.sqlstate or "").startswith("53"):
        return TransientError(f"{place}: it is full: {said}")
    if isinstance(error, InsufficientPrivilege) or (error.sqlstate or "").startswith("28"):
        return TransientError(f"{place}: it refuses us: {said}")
    if isinstance(error, ReadOnlySqlTransaction):
        return TransientError(f"{place}: it takes no writes: {said}")
    return TransientError(f"{place}: {said}")
