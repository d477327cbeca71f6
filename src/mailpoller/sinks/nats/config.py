"""The block of a queue of type ``nats``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.durability import DurabilityWord
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret, Size
from mailpoller.wire.cloudevents import Mode
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import HostName, Wait
from mailpoller.wire.tls import TlsPolicy, check_trust

PORT = 4222


def _subject(written: str) -> str:
    tokens = ["topic" if one == "{topic}" else one for one in written.split(".")]
    if not all(re.fullmatch(r"[^\s.*>{}\x00-\x20\x7f]+", one) for one in tokens):
        raise ValueError("a subject is words with dots between, without * and >; {topic} alone is the rule's topic")
    return written


def _stream(written: str) -> str:
    if not re.fullmatch(r"[^\s.*>/\\\x00-\x20\x7f]{1,255}", written):
        raise ValueError("a stream's name has no blanks, dots, slashes, * or >")
    return written


def _monitoring(written: str) -> str:
    parts = urlsplit(written)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("a monitoring page is http://HOST:8222, without login or query")
    return written.rstrip("/")


class NatsQueueSettings(SinkConfig):
    """The keys of a queue of type ``nats``."""

    type: Literal["nats"]
    host: HostName
    """The server's name, against which its certificate is checked; of a cluster, any of its servers."""
    port: int = Field(default=PORT, ge=1, le=65535)
    """The server's port."""
    others: list[HostName] = Field(default_factory=list)
    """Further servers of the same cluster, asked in turn where one does not answer; the port is the same."""
    tls: Literal["tls", "none"] = "tls"
    """``tls`` or ``none``. Whether it begins with the first octet, see ``handshake_first``."""
    handshake_first: bool = False
    """The server wants TLS before it says anything (``handshake_first: true`` there). Without, TLS begins after its
    greeting, and nothing of ours is sent before that."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    client_key: FilePath | None = None
    """Its private key (PEM, not encrypted), if it is not in the same file."""
    username: str | None = None
    """The user."""
    password: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``."""
    token: Secret | None = None
    """Instead of user and password: the server's token."""
    credentials: Secret | None = None
    """Instead of these: a file of credentials, as ``nsc`` and Synadia write it: ``file:/etc/mailpoller/nats.creds``."""
    nkey: Secret | None = None
    """Instead of these: the seed of an nkey, ``SU…``."""
    stream: Annotated[str, AfterValidator(_stream)]
    """The stream. A message that the server would put into another one is refused by it."""
    subject: Annotated[str, AfterValidator(_subject)]
    """The subject to publish to, one of the stream's: ``mail.support``, or ``mail.{topic}``. What a subject cannot
    have becomes ``_`` there, and so does a topic that no rule gave."""
    mode: Mode = "structured"
    """``structured`` (the event, attributes and data in one JSON object), ``binary`` (the attributes as headers
    ``ce-…``, the payload is the data) or ``raw`` (the same headers, the payload is the message as it came)."""
    monitoring: list[Annotated[str, AfterValidator(_monitoring)]] = Field(default_factory=list)
    """The monitoring pages of the servers that hold the stream, ``http://127.0.0.1:8222``: only there a server says
    whether it syncs before it answers."""
    blobs_above: Size | None = 500_000
    """Raw octets of a larger message are put into ``blobs:``, if there is that block, and the event names them
    (``data.raw_blob``): more would not fit into a message of NATS."""
    max_size: Size = 100_000_000
    """A message of which more would be sent is refused, and goes to quarantine; the server's own limit
    (``max_payload``, 1 MiB if nobody changed it) and the stream's hold as well."""
    timeout: Wait = timedelta(seconds=10)
    """How long the server may take to answer; a second more for each megabyte."""
    durability: DurabilityWord = "strict"
    """``strict``: each server of the stream must sync before it answers (``sync_interval: always``).
    ``declared``: also one that does not let us read that. ``warn``: also a stream that may forget."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return self.mode != "raw"

    def extras(self) -> Iterator[Extra]:
        """What speaks to NATS, and to its monitoring page."""
        yield Extra("type", "nats", "mailpoller[nats]")
        if self.monitoring:
            yield Extra("monitoring", "httpcore", "mailpoller[nats]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if sum(one is not None for one in (self.password, self.token, self.credentials, self.nkey)) > 1:
            raise ValueError("password, token, credentials and nkey exclude each other: there is one way to log in")
        check_trust(self.policy)
        return self

    @property
    def carries_octets(self) -> bool:
        """See :class:`SinkConfig`: also in the mode that sends nothing else."""
        return self.mode == "raw" or super().carries_octets

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, None, self.client_certificate, self.client_key)

    @property
    def hosts(self) -> list[str]:
        """All servers."""
        return [self.host, *self.others]

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        address = self.subject.replace("{topic}", "TOPIC")
        prefix = None if self.mode == "structured" else "ce-"
        return Channel("nats", f"{self.host}:{self.port}", address, self.mode, prefix)

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        yield from super().findings()
        if self.durability != "strict":
            yield Finding("durability", "mail that such a server has answered for may be lost in a power cut")
        if self.tls == "none" and not all(map(is_loopback, self.hosts)):
            yield Finding("tls", "the mail and the password can be read on the way")
