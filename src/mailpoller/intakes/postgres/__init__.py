"""The intake of type ``postgres``: a table into which programs write entries, and in which they find the answers.

``schema`` is the table, an interface for programs; ``table`` takes and answers. Nothing but the block and ``schema`` is
imported unless such an intake is built.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from mailpoller.core.component import Preparation, Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.literals import Duration
from mailpoller.core.ports import EntrySource
from mailpoller.intakes.postgres.schema import rights, schema
from mailpoller.remote.postgres.server import PostgresServer, named_after, table_name

__all__ = ["PostgresIntakeConfig"]


class PostgresIntakeConfig(PostgresServer, IntakeSettings):
    """A table of a PostgreSQL database (13 or later): programs insert entries, and read in the same row what became of
    them."""

    makes: ClassVar[str] = "mailpoller outbox intake INTAKE"

    type: Literal["postgres"]
    table: Annotated[str, AfterValidator(table_name)] | None = None
    """The table, with its schema if that is not on the role's path; ``mailpoller_INTAKE`` if it is not given. Make it
    with ``mailpoller outbox intake INTAKE``. Who may insert into it may send for the departments."""
    keep: Duration = timedelta(days=30)
    """How long an entry that was answered stays there."""

    def table_of(self, name: str) -> str:
        """The table of the intake ``name``."""
        return self.table or named_after(name)

    def preparation(self, name: str) -> Preparation:
        """The table."""
        table = self.table_of(name)

        def make() -> None:
            from mailpoller.remote.postgres.creation import create  # which needs the extra

            create(self.parameters(), self.password, schema(table))

        return Preparation(f"its table {table}", schema(table) + rights(table, self.username), make)

    def build(self, name: str, runtime: Runtime) -> EntrySource:
        """The table. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.intakes.postgres.table import PostgresIntake
        except ImportError as error:  # psycopg says so too if there is no libpq
            lack = error.name or "libpq"
            raise ConfigError(f"type: postgres needs {lack}: pip install 'mailpoller[postgres]'") from None
        return PostgresIntake(self, self.table_of(name), self.keep, runtime.clock)
