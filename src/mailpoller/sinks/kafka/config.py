"""The block of a queue of type ``kafka``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.durability import DurabilityWord
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret, Size
from mailpoller.wire.cloudevents import Mode
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import Wait

PORT = 9092


def _server(written: str) -> str:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253})(?::(\d{1,5}))?", written)
    if found is None or not 0 < int(found[2] or PORT) < 65536:
        raise ValueError("a server is a host, or host:port")
    return written if found[2] else f"{written}:{PORT}"


def _topic(written: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", written) or written in (".", ".."):
        raise ValueError("a topic's name is up to 249 of A-Z a-z 0-9 . _ -")
    return written


class KafkaQueueSettings(SinkConfig):
    """The keys of a queue of type ``kafka``."""

    type: Literal["kafka"]
    servers: Annotated[list[Annotated[str, AfterValidator(_server)]], Field(min_length=1, max_length=50)]
    """Servers of the cluster, ``kafka.example.com:9092``; they name the others."""
    tls: Literal["tls", "none"] = "tls"
    """``tls`` from the first octet, or ``none``."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    client_key: FilePath | None = None
    """Its private key (PEM, not encrypted)."""
    username: str | None = None
    """The user."""
    password: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``."""
    mechanism: Literal["scram-sha-512", "scram-sha-256", "plain"] = "scram-sha-512"
    """How to log in with user and password (SASL)."""
    topic: Annotated[str, AfterValidator(_topic)]
    """The topic. It has to be there."""
    mode: Mode = "structured"
    """``structured`` (the event, attributes and data in one JSON object), ``binary`` (the attributes as headers
    ``ce_…``, the value is the data) or ``raw`` (the same headers, the value is the message as it came). The key is the
    delivery id in each of them."""
    blobs_above: Size | None = 500_000
    """Raw octets of a larger message are put into ``blobs:``, if there is that block, and the event names them
    (``data.raw_blob``): more would not fit into a message of Kafka, as it is usually set up."""
    max_size: Size = 1_000_000
    """A message of which more would be sent is refused, and goes to quarantine: the topic's ``max.message.bytes``."""
    timeout: Wait = timedelta(seconds=30)
    """How long the cluster may take to hold a message."""
    durability: DurabilityWord = "strict"
    """``strict``: the topic has three replicas, two of which must have a message before it is answered for.
    ``declared``: also one that we may not look at. ``warn``: also one with less."""

    def extras(self) -> Iterator[Extra]:
        """What speaks to Kafka."""
        yield Extra("type", "confluent_kafka", "mailpoller[kafka]")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if (self.client_key is None) != (self.client_certificate is None):
            raise ValueError("client_certificate and client_key go together")
        if self.max_size > 1_000_000_000:
            raise ValueError("max_size is at most 1 GB")
        return self

    @property
    def carries_octets(self) -> bool:
        """See :class:`SinkConfig`: also in the mode that sends nothing else."""
        return self.mode == "raw" or super().carries_octets

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        return Channel(
            protocol="kafka" if self.tls == "none" else "kafka-secure",
            host=self.servers[0],
            address=self.topic,
            body=self.mode,
            prefix=None if self.mode == "structured" else "ce_",
            bindings={"kafka": {"topic": self.topic, "bindingVersion": "0.5.0"}},
        )

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        yield from super().findings()
        if self.durability != "strict":
            yield Finding("durability", "mail that such a topic was given may be lost")
        hosts = [one.rpartition(":")[0].strip("[]") for one in self.servers]
        if self.tls == "none" and not all(map(is_loopback, hosts)):
            yield Finding("tls", "the mail and the password can be read on the way")
