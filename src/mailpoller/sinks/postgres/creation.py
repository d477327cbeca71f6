"""Making the tables of a queue, for an operator whose role may do that."""

from __future__ import annotations

import psycopg

from mailpoller.core.errors import TransientError
from mailpoller.sinks.postgres.config import PostgresQueueSettings
from mailpoller.sinks.postgres.schema import schema


def create(config: PostgresQueueSettings, table: str) -> None:
    """Make what is missing, in one transaction, as the block's role. Raises :class:`TransientError` with the reason,
    and then nothing was made."""
    parameters = config.parameters()
    if config.password is not None:
        parameters["password"] = config.password.reveal()
    try:
        with psycopg.connect(**parameters, prepare_threshold=None) as connection:
            connection.execute(schema(table).encode())
    except psycopg.Error as error:
        reason = " ".join((error.diag.message_primary or str(error)).split())[:400]
        raise TransientError(f"the tables are not made: {reason}") from None
