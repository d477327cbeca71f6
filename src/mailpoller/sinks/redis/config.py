"""The block of a queue of type ``redis``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.durability import DurabilityWord
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Duration, FilePath, Secret, Size
from mailpoller.sinks.redis.jobs import FORMATS, FormatName
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


def _stream(written: str) -> str:
    if not re.fullmatch(r"[^\s{}]*(\{[^\s{}]+\})?[^\s{}]*", written) or not written:
        raise ValueError("a stream's key has no blanks, and braces around its hash tag only: {mail}:support")
    return written


class RedisQueueSettings(SinkConfig):
    """The keys of a queue of type ``redis``."""

    type: Literal["redis"]
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
    stream: Annotated[str, AfterValidator(_stream)] | None = None
    """The stream's key; ``{mailpoller:QUEUE}`` with the queue's name if it is not given. Ids that are remembered lie
    in keys of the same hash slot."""
    format: FormatName = "stream"
    """``stream``; or ``sidekiq`` or ``celery``: jobs in a list, as their workers take them."""
    job: str | None = Field(default=None, min_length=1, max_length=200)
    """With ``sidekiq`` the worker's class, with ``celery`` the task's name. Its only argument is the event."""
    job_queue: Annotated[str, AfterValidator(_stream)] | None = None
    """The workers' queue; ``default`` for ``sidekiq``, ``celery`` for ``celery``, if it is not given."""
    maxlen: int | None = Field(default=None, ge=1)
    """Keep about so many entries and let the server remove the oldest, **whether anybody took them or not**. Without
    it nothing is removed but by consumers."""
    remember: Duration = timedelta(days=180)
    """How long a delivery id is kept to recognise a repeat, also when its entry was removed: longer than the
    mailboxes' ``keep``."""
    replicas: int = Field(default=0, ge=0)
    """How many replicas must have a message too before it counts as held (``WAIT``)."""
    max_size: Size = 100_000_000
    """A message whose event and octets are larger is refused, and goes to quarantine."""
    timeout: Wait = timedelta(seconds=10)
    """How long the server may take to answer; a second more for each megabyte."""
    durability: DurabilityWord = "strict"
    """``strict``: the server must sync each write before it answers (``appendonly yes``, ``appendfsync always``).
    ``declared``: also one that does not let us read its settings. ``warn``: also one that answers first."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    def extras(self) -> Iterator[Extra]:
        """What speaks to Redis."""
        yield Extra("type", "redis", "mailpoller[redis]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if [self.host is not None, self.socket is not None, bool(self.sentinels)].count(True) != 1:
            raise ValueError("the server is at a host, at a socket, or known to sentinels: one of the three")
        if self.remember < timedelta(seconds=1):
            raise ValueError("remember is at least 1s")
        check_trust(self.policy)
        if self.format == "stream" and (self.job is not None or self.job_queue is not None):
            raise ValueError("job and job_queue are for format: sidekiq or celery")
        if self.format != "stream" and self.job is None:
            raise KeysMissing({"job": f"format: {self.format} asks who does the work"})
        if self.format != "stream" and (self.stream is not None or self.maxlen is not None):
            raise ValueError(f"format: {self.format} has a list and no stream: leave stream and maxlen away")
        return self

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """Who does the work."""
        name = written.get("format", "stream")
        wanted = name in FORMATS if isinstance(name, str) else False
        return {"job": f"format: {name} asks who does the work"} if wanted and written.get("job") is None else {}

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, None, self.client_certificate, self.client_key)

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        place = self.host or (str(self.socket) if self.socket is not None else self.sentinels[0])
        host = f"{place}:{self.port}" if self.host is not None else place
        protocol = "redis" if self.tls == "none" or self.socket is not None else "redis-secure"
        if self.format != "stream":
            jobs = FORMATS[self.format]
            return Channel(protocol, host, jobs.key(self.job_queue or jobs.usual), "job")
        address = self.stream or f"{{mailpoller:{name}}}"
        return Channel(protocol, host, address, "fields", fields=("deliveryid", "event", "octets"))

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        if self.durability != "strict":
            yield Finding("durability", "mail that such a server has answered for may be lost in a power cut")
        if self.maxlen is not None:
            yield Finding("maxlen", "the server removes what nobody has taken yet, and that mail is lost")
        if self.sentinels and not self.replicas:
            yield Finding("sentinels", "a failover loses what only the failed server had: say replicas: 1")
        away = [host for host in (self.host, *(host_port(one, 1)[0] for one in self.sentinels)) if host]
        if self.tls == "none" and not all(map(is_loopback, away)):
            yield Finding("tls", "the mail and the password can be read on the way")
