"""The block of a queue of type ``postgres``."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, Preparation, SinkConfig
from mailpoller.core.durability import DurabilityWord
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Duration, FilePath, Secret, Size
from mailpoller.sinks.postgres.schema import COLUMNS, rights, schema
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import HostName, Wait
from mailpoller.wire.tls import TlsPolicy, check_trust

_JOB = "format: procrastinate asks who does the work"
_NAME = r"[a-z_][a-z0-9_]{0,49}"


def _identifier(written: str) -> str:
    if not re.fullmatch(rf"({_NAME}\.)?{_NAME}", written):
        raise ValueError("a table is named in small letters, digits and underscores, 50 at most: mail.support")
    return written


def _channel(written: str) -> str:
    if not re.fullmatch(_NAME, written):
        raise ValueError("a channel is named in small letters, digits and underscores, 50 at most")
    return written


class PostgresQueueSettings(SinkConfig):
    """The keys of a queue of type ``postgres``."""

    type: Literal["postgres"]
    host: HostName | None = None
    """The server's name, against which its certificate is checked; PgBouncer in transaction mode serves as well."""
    port: int = Field(default=5432, ge=1, le=65535)
    """The server's port."""
    socket: Path | None = None
    """The directory of the server's unix socket, instead of a host."""
    database: str
    """The database's name."""
    username: str
    """The role. It needs no right to create anything."""
    password: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``."""
    tls: Literal["tls", "none"] = "tls"
    """``tls`` (libpq's ``verify-full``) or ``none``. A socket has none."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    client_key: FilePath | None = None
    """Its private key (PEM, not encrypted, readable for nobody else), if it is not in the same file."""
    table: Annotated[str, AfterValidator(_identifier)] | None = None
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
    timeout: Wait = timedelta(seconds=10)
    """How long the server may take for a batch; a second more for each megabyte."""
    durability: DurabilityWord = "strict"
    """``strict``: the server must sync each commit before it answers (``fsync on``, a table that is logged).
    ``declared``: also one that does not let us read its settings. ``warn``: also one that answers first."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    def extras(self) -> Iterator[Extra]:
        """What speaks to PostgreSQL."""
        yield Extra("type", "psycopg", "mailpoller[postgres]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.host is None) == (self.socket is None):
            raise ValueError("the server is at a host or at a socket: one of the two")
        if self.remember < timedelta(seconds=1):
            raise ValueError("remember is at least 1s")
        if self.format == "rows" and (self.job is not None or self.job_queue is not None):
            raise ValueError("job and job_queue are for format: procrastinate")
        if self.format == "procrastinate" and self.job is None:
            raise KeysMissing({"job": _JOB})
        if self.format == "procrastinate" and self.notify is not None:
            raise ValueError("format: procrastinate wakes its workers by itself: leave notify away")
        check_trust(TlsPolicy(self.ca_file, None, self.client_certificate, self.client_key))
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
        if self.tls == "none" and self.host is not None and not is_loopback(self.host):
            yield Finding("tls", "the mail and the password can be read on the way")

    def table_of(self, name: str) -> str:
        """The table of the queue ``name``."""
        return self.table or "mailpoller_" + re.sub(r"[^a-z0-9_]", "_", name.lower())[:39]

    def preparation(self, name: str) -> Preparation:
        """The tables."""
        table, jobs = self.table_of(name), self.format == "procrastinate"
        statements = schema(table, jobs=jobs)

        def make() -> None:
            from mailpoller.sinks.postgres.creation import create  # which needs the extra

            create(self.parameters(), self.password, statements)

        made = f"its tables {table}_known and {table}_mark" if jobs else f"its table {table}"
        return Preparation(made, statements + rights(table, self.username, jobs=jobs), make)

    def parameters(self) -> dict[str, Any]:
        """What libpq connects with, apart from the password. Nothing that PgBouncer refuses."""
        found: dict[str, Any] = {
            "host": str(self.socket or self.host),
            "port": self.port,
            "dbname": self.database,
            "user": self.username,
            "application_name": "mailpoller",
            "client_encoding": "UTF8",
            "connect_timeout": max(2, round(self.timeout.total_seconds())),  # less is none to libpq
            "gssencmode": "disable",
            "sslmode": "disable",
        }
        if self.tls == "tls" and self.socket is None:
            system = ssl.get_default_verify_paths()
            found |= {
                "sslmode": "verify-full",
                "sslrootcert": str(self.ca_file or system.cafile or system.openssl_cafile),
                "ssl_min_protocol_version": "TLSv1.2",
            }
            if self.client_certificate is not None:
                key = self.client_key or self.client_certificate
                found |= {"sslcert": str(self.client_certificate), "sslkey": str(key)}
        return found
