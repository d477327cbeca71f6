"""The block of a queue of type ``postgres``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, Preparation, SinkConfig
from mailpoller.core.durability import DurabilityWord
from mailpoller.core.errors import KeysMissing
from mailpoller.core.literals import Duration, Size
from mailpoller.remote.postgres.server import NAME, PostgresServer, named_after, table_name
from mailpoller.sinks.postgres.schema import COLUMNS, rights, schema

_JOB = "format: procrastinate asks who does the work"


def _channel(written: str) -> str:
    if not re.fullmatch(NAME, written):
        raise ValueError("a channel is named in small letters, digits and underscores, 50 at most")
    return written


class PostgresQueueSettings(PostgresServer, SinkConfig):
    """The keys of a queue of type ``postgres``."""

    makes: ClassVar[str] = "mailpoller queue create QUEUE"

    type: Literal["postgres"]
    table: Annotated[str, AfterValidator(table_name)] | None = None
    """The table, with its schema if that is not on the role's path; ``mailpoller_QUEUE`` if it is not given. Make it
    with ``mailpoller queue create QUEUE``."""
    format: Literal["rows", "procrastinate"] = "rows"
    """``rows`` of the table; or ``procrastinate``: jobs in its tables, as its workers take them. Of ours there are the
    tables beside ``table`` then, with what is known of deliveries."""
    job: str | None = Field(default=None, min_length=1, max_length=128)
    """With ``procrastinate`` the task's name. Its only argument is the event, ``event``."""
    job_queue: str | None = Field(default=None, min_length=1, max_length=128)
    """With ``procrastinate`` the workers' queue; ``default`` if it is not given."""
    remember: Duration = timedelta(days=180)
    """How long a delivery id is kept to recognise a repeat once its message was deleted: longer than the mailboxes'
    ``keep``."""
    notify: Annotated[str, AfterValidator(_channel)] | None = None
    """Send an empty NOTIFY to this channel with each batch. Consumers must look by themselves too."""
    max_size: Size = 100_000_000
    """A message whose event and octets are larger is refused, and goes to quarantine."""
    durability: DurabilityWord = "strict"
    """``strict``: the server must sync each commit before it answers (``fsync on``, a table that is logged).
    ``declared``: also one that does not let us read its settings. ``warn``: also one that answers first."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.remember < timedelta(seconds=1):
            raise ValueError("remember is at least 1s")
        if self.format == "rows" and (self.job is not None or self.job_queue is not None):
            raise ValueError("job and job_queue are for format: procrastinate")
        if self.format == "procrastinate" and self.job is None:
            raise KeysMissing({"job": _JOB})
        if self.format == "procrastinate" and self.notify is not None:
            raise ValueError("format: procrastinate wakes its workers by itself: leave notify away")
        return self

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """Who does the work."""
        return {"job": _JOB} if written.get("format") == "procrastinate" and written.get("job") is None else {}

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        host = f"{self.host}:{self.port}" if self.host is not None else str(self.socket)
        if self.format == "procrastinate":
            return Channel("postgresql", host, "procrastinate_jobs", "job")
        return Channel("postgresql", host, self.table_of(name), "fields", fields=COLUMNS)

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        if self.durability != "strict":
            yield Finding("durability", "mail that such a server has answered for may be lost in a power cut")
        yield from super().findings()

    def table_of(self, name: str) -> str:
        """The table of the queue ``name``."""
        return self.table or named_after(name)

    def preparation(self, name: str) -> Preparation:
        """The tables."""
        table, jobs = self.table_of(name), self.format == "procrastinate"
        statements = schema(table, jobs=jobs)

        def make() -> None:
            from mailpoller.remote.postgres.creation import create  # which needs the extra

            create(self.parameters(), self.password, statements)

        made = f"its tables {table}_known and {table}_mark" if jobs else f"its table {table}"
        return Preparation(made, statements + rights(table, self.username, jobs=jobs), make)
