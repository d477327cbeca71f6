"""The block of a queue of type ``rabbitmq``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.durability import DurabilityWord
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret, Size
from mailpoller.wire.cloudevents import Mode
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import HostName, Wait
from mailpoller.wire.tls import TlsPolicy, check_trust

PORT, TLS_PORT = 5672, 5671
NAME_OCTETS = 255
"""The most that a name or a routing key may have (AMQP 0-9-1, section 4.2.5.3, short strings)."""


def _name(written: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9\-_.:@#,/+ ]{1,255}", written):
        raise ValueError("a name has letters and digits of ASCII, and - _ . : @ # , / + and blanks")
    return written


_JOB = "format: celery asks who does the work"
Name = Annotated[str, AfterValidator(_name)]


class RabbitmqQueueSettings(SinkConfig):
    """The keys of a queue of type ``rabbitmq``."""

    type: Literal["rabbitmq"]
    host: HostName
    """The server's name, against which its certificate is checked."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """The server's port; 5671 if it is not given, 5672 with ``tls: none``."""
    others: list[HostName] = Field(default_factory=list)
    """Further servers of the same cluster, asked in turn where one does not answer; the port is the same."""
    tls: Literal["tls", "none"] = "tls"
    """``tls`` from the first octet, or ``none``."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM). Without a password it is also what we log in with (EXTERNAL)."""
    client_key: FilePath | None = None
    """Its private key (PEM, not encrypted), if it is not in the same file."""
    username: str | None = None
    """The user."""
    password: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``."""
    vhost: Name = "/"
    """The virtual host."""
    queue: Name | None = None
    """The queue. It has to be there, and durable."""
    exchange: Name | None = None
    """Publish to this exchange instead of straight to the queue; it has to be there. With ``queue`` beside it that one
    is looked at, too; without, nobody can say whether what the exchange leads to is durable."""
    routing_key: str = Field(default="{topic}", max_length=200)
    """With an exchange: ``mail.support``, or ``mail.{topic}`` with the topic that a rule gave, else nothing."""
    mode: Mode = "structured"
    """``structured`` (the event, attributes and data in one JSON object), ``binary`` (the body is the data) or ``raw``
    (the body is the message as it came). The attributes are headers as well, ``cloudEvents_…``, in each mode."""
    format: Literal["message", "celery"] = "message"
    """``message``, as ``mode`` says; or ``celery``: tasks, as its workers take them."""
    job: str | None = Field(default=None, min_length=1, max_length=200)
    """With ``celery`` the task's name. Its only argument is the event."""
    max_size: Size = 16_000_000
    """A message whose body is larger is refused, and goes to quarantine. The server has a limit of its own
    (``max_message_size``): 16 MiB since version 4, 128 MiB before."""
    timeout: Wait = timedelta(seconds=10)
    """How long the server may take to answer; a second more for each megabyte."""
    durability: DurabilityWord = "strict"
    """``strict``: the queue must be durable, and remove nothing by itself. ``declared``: also one that we may not look
    at. ``warn``: also one that may forget."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return self.mode != "raw"

    def extras(self) -> Iterator[Extra]:
        """What speaks AMQP."""
        yield Extra("type", "aiormq", "mailpoller[rabbitmq]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.queue is None and self.exchange is None:
            raise ValueError("say where to: queue, or exchange")
        if self.exchange is None and "routing_key" in self.model_fields_set:
            raise ValueError("routing_key is for an exchange")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.password is None and self.client_certificate is None:
            raise ValueError("log in with username and password, or with a client_certificate")
        if self.format == "message" and self.job is not None:
            raise ValueError("job is for format: celery")
        if self.format == "celery" and self.job is None:
            raise KeysMissing({"job": _JOB})
        if self.format == "celery" and self.mode != "structured":
            raise ValueError("format: celery has the whole event as its argument: leave mode away")
        check_trust(self.policy)
        return self

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """Who does the work."""
        return {"job": _JOB} if written.get("format") == "celery" and written.get("job") is None else {}

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

    @property
    def effective_port(self) -> int:
        """The port, if it was not given the usual one."""
        return self.port or (PORT if self.tls == "none" else TLS_PORT)

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        ours = {"name": self.queue, "durable": True, "vhost": self.vhost}
        binding: dict[str, object] = {"is": "queue", "queue": ours}
        if self.exchange is not None:
            binding = {"is": "routingKey", "exchange": {"name": self.exchange, "vhost": self.vhost}}
        return Channel(
            protocol="amqp" if self.tls == "none" else "amqps",
            host=f"{self.host}:{self.effective_port}",
            address=self.queue or self.routing_key.replace("{topic}", "TOPIC"),
            body="job" if self.format == "celery" else self.mode,
            prefix="cloudEvents_",
            bindings={"amqp": {**binding, "bindingVersion": "0.3.0"}},
        )

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        yield from super().findings()
        if self.durability != "strict":
            yield Finding("durability", "mail that such a queue was given may be lost")
        if self.tls == "none" and not all(map(is_loopback, self.hosts)):
            yield Finding("tls", "the mail and the password can be read on the way")
