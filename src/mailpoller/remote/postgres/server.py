"""The keys by which a block finds a PostgreSQL server."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mailpoller.core.component import Block, Finding
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import HostName, Wait
from mailpoller.wire.tls import TlsPolicy, check_trust

NAME = r"[a-z_][a-z0-9_]{0,49}"
"""What is written without quotes, and leaves room for what is added to it: PostgreSQL cuts names at 63."""


def table_name(written: str) -> str:
    """A table's name, perhaps with its schema. Raises ValueError."""
    if not re.fullmatch(rf"({NAME}\.)?{NAME}", written):
        raise ValueError("a table is named in small letters, digits and underscores, 50 at most: mail.support")
    return written


def named_after(name: str) -> str:
    """The table of a queue or an intake that names none."""
    return "mailpoller_" + re.sub(r"[^a-z0-9_]", "_", name.lower())[:39]


class PostgresServer(Block):
    """Where the server is, and how one logs in. For blocks that are components."""

    makes: ClassVar[str]
    """The command that makes what is missing there."""
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
    timeout: Wait = timedelta(seconds=10)
    """How long the server may take for a batch; a second more for each megabyte."""

    def extras(self) -> Iterator[Extra]:
        """What speaks to PostgreSQL."""
        yield Extra("type", "psycopg", "mailpoller[postgres]")

    @model_validator(mode="after")
    def _check_server(self) -> Self:
        if (self.host is None) == (self.socket is None):
            raise ValueError("the server is at a host or at a socket: one of the two")
        check_trust(TlsPolicy(self.ca_file, None, self.client_certificate, self.client_key))
        return self

    def findings(self) -> Iterator[Finding]:
        """A line that others can read."""
        if self.tls == "none" and self.host is not None and not is_loopback(self.host):
            yield Finding("tls", "the mail and the password can be read on the way")

    @property
    def place(self) -> str:
        """Where it is, for errors and logs."""
        return f"postgres {self.socket or self.host}:{self.port}/{self.database}"

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
