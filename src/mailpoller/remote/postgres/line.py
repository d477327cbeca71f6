"""One connection to a PostgreSQL server, made when it is needed and again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection

from mailpoller.remote.postgres.connection import connect, in_words, within
from mailpoller.remote.postgres.server import PostgresServer

_T = TypeVar("_T")


class PostgresLine:
    """Opens nothing before :meth:`do`; one call after another."""

    def __init__(self, config: PostgresServer) -> None:
        self._config = config
        self._place = config.place
        self._seconds = config.timeout.total_seconds()
        self._connection: AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()

    async def do(
        self,
        work: Callable[[AsyncConnection[Any]], Awaitable[_T]],
        more: float = 0,
        told: tuple[type[psycopg.Error], ...] = (),
    ) -> _T:
        """What ``work`` does over our connection; it may take ``more`` seconds than usual. A connection that was lost
        is no trouble yet, for servers and poolers close those that are idle: it is done once more over a new one.

        Raises :class:`TransientError`; but ``told`` as psycopg raised it.
        """
        async with self._turn:
            old = self._connection is not None
            try:
                return await self._try(work, more, told)
            except psycopg.OperationalError as error:
                if not old or self._connection is not None:
                    raise in_words(self._place, error, self._config.makes) from None
            try:
                return await self._try(work, more, told)
            except psycopg.OperationalError as error:
                raise in_words(self._place, error, self._config.makes) from None

    async def _try(
        self,
        work: Callable[[AsyncConnection[Any]], Awaitable[_T]],
        more: float,
        told: tuple[type[psycopg.Error], ...],
    ) -> _T:
        if self._connection is None:
            self._connection = await connect(self._config)
        connection = self._connection

        async def begun() -> _T:
            return await work(connection)

        try:
            return await within(connection, self._place, self._seconds + more, begun())
        except psycopg.Error as error:
            if isinstance(error, (*told, psycopg.OperationalError)):
                raise
            raise in_words(self._place, error, self._config.makes) from None
        finally:
            if connection.closed or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await self.close()

    async def close(self) -> None:
        """Harmless when repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
