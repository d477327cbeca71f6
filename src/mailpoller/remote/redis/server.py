"""The keys by which a block finds a Redis server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.component import Block, Finding
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import HostName, Wait
from mailpoller.wire.tls import TlsPolicy, check_trust

PORT = 6379
SENTINEL_PORT = 26379


def _place(written: str) -> str:
    host_port(written, SENTINEL_PORT)
    return written


def host_port(written: str, usual: int) -> tuple[str, int]:
    """``sentinel.example.com:26379`` or ``[::1]:26379``, the port may be left out. Raises ValueError."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+)(?::(\d{1,5}))?", written)
    if found is None or not 0 < int(found[2] or usual) < 65536:
        raise ValueError("a place is a host, or host:port")
    return found[1].strip("[]"), int(found[2] or usual)


def stream_key(written: str) -> str:
    """The key of a stream or a list. Raises ValueError."""
    if not re.fullmatch(r"[^\s{}]*(\{[^\s{}]+\})?[^\s{}]*", written) or not written:
        raise ValueError("a stream's key has no blanks, and braces around its hash tag only: {mail}:support")
    return written


class RedisServer(Block):
    """Where the server is, and how one logs in. For blocks that are components."""

    host: HostName | None = None
    """The server's name, against which its certificate is checked."""
    port: int = Field(default=PORT, ge=1, le=65535)
    """The server's port."""
    socket: Path | None = None
    """The server's unix socket, instead of a host."""
    sentinels: list[Annotated[str, AfterValidator(_place)]] = Field(default_factory=list)
    """Ask these for the server, instead of a host: ``sentinel.example.com:26379``."""
    master: str = "mymaster"
    """What the sentinels call it."""
    sentinel_password: Secret | None = None
    """What the sentinels themselves ask for."""
    tls: Literal["tls", "none"] = "tls"
    """``tls`` from the first octet, to sentinels too; or ``none``."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    client_key: FilePath | None = None
    """Its private key (PEM, not encrypted), if it is not in the same file."""
    username: str | None = None
    """The ACL user; without one it is the server's default user."""
    password: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``."""
    database: int = Field(default=0, ge=0)
    """The number of the database."""
    timeout: Wait = timedelta(seconds=10)
    """How long the server may take to answer; a second more for each megabyte."""

    def extras(self) -> Iterator[Extra]:
        """What speaks to Redis."""
        yield Extra("type", "redis", "mailpoller[redis]")

    @model_validator(mode="after")
    def _check_server(self) -> Self:
        if [self.host is not None, self.socket is not None, bool(self.sentinels)].count(True) != 1:
            raise ValueError("the server is at a host, at a socket, or known to sentinels: one of the three")
        check_trust(self.policy)
        return self

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, None, self.client_certificate, self.client_key)

    def findings(self) -> Iterator[Finding]:
        """A line that others can read."""
        away = [host for host in (self.host, *(host_port(one, 1)[0] for one in self.sentinels)) if host]
        if self.tls == "none" and not all(map(is_loopback, away)):
            yield Finding("tls", "the mail and the password can be read on the way")
