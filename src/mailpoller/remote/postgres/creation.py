"""Making tables, for an operator whose role may do that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from mailpoller.core.errors import TransientError
from mailpoller.core.literals import Secret


def create(parameters: Mapping[str, Any], password: Secret | None, statements: str) -> None:
    """Run the ``statements``, which make what is missing, in one transaction, connecting with ``parameters``.

    Raises :class:`TransientError` with the reason, and then nothing was made."""
    known: dict[str, Any] = {} if password is None else {"password": password.reveal()}
    try:
        with psycopg.connect(**parameters, **known, prepare_threshold=None) as connection:
            connection.execute(statements.encode())
    except psycopg.Error as error:
        reason = " ".join((error.diag.message_primary or str(error)).split())[:400]
        raise TransientError(f"the tables are not made: {reason}") from None
