"""What a block says of a service of AWS: who we are there, where it is, and what its answers are worth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator

from mailpoller.core.component import Block, Finding
from mailpoller.core.durability import Durability, DurabilityWord
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import Wait
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import TlsPolicy

_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
"""What the names of AWS's own services end in, also through a VPC endpoint."""
_WAYS = "or profile: NAME, or instance_role: true"


def _region(written: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", written):
        raise ValueError("a region is named like eu-central-1")
    return written


def endpoint(written: str) -> str:
    """The URL of a service: no login, path, query or fragment. Raises ValueError, for a validator."""
    try:
        parts = urlsplit(written)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    plain = all("!" <= one <= "~" for one in written)
    if not host or not plain or parts.scheme not in ("http", "https") or parts.username is not None:
        raise ValueError("an endpoint is https://HOST or https://HOST:PORT, without login")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("an endpoint has no path and no query")
    return f"{parts.scheme}://{parts.netloc}"


Region = Annotated[str, AfterValidator(_region)]
Endpoint = Annotated[str, AfterValidator(endpoint)]


class AwsSettings(Block):
    """The keys that say who we are at AWS. Nothing is taken from the environment or from files unless they ask for
    it."""

    access_key_id: Secret | None = None
    """The id of an access key, with ``secret_access_key``."""
    secret_access_key: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``; read anew after a refusal."""
    session_token: Secret | None = None
    """What goes with a temporary key."""
    profile: str | None = None
    """Instead of keys: a profile of the service user's ``~/.aws/config`` and ``~/.aws/credentials``, with whatever way
    of logging in it names."""
    instance_role: bool = False
    """Instead of keys: the role of this machine, container or pod (EC2, ECS, EKS)."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    proxy: Proxy | None = None
    """Go through a proxy."""
    timeout: Wait = timedelta(seconds=10)
    """How long the service may take to answer; a second more for each megabyte."""
    durability: DurabilityWord = "strict"
    """``strict``: a service of AWS itself, whose contract it is to hold what it answered for. ``declared``: also
    another one that speaks like it, and which does not say whether it syncs."""

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """A key, if nothing else says who we are."""
        return _lacking(written)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        told = {name: getattr(self, name) for name in ("access_key_id", "secret_access_key", "profile")}
        if lacking := _lacking({**told, "instance_role": self.instance_role}):
            raise KeysMissing(lacking)
        if self.access_key_id is None and (self.secret_access_key is not None or self.session_token is not None):
            raise ValueError("secret_access_key and session_token go with access_key_id")
        if sum((self.access_key_id is not None, self.profile is not None, self.instance_role)) > 1:
            raise ValueError("access_key_id, profile and instance_role exclude each other: we are one user there")
        return self

    def extras(self) -> Iterator[Extra]:
        """What speaks to AWS."""
        yield Extra("type", "aiobotocore", "mailpoller[aws]")
        yield Extra("type", "httpcore", "mailpoller[aws]")

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file)

    @property
    def service_region(self) -> str:
        """The region that requests are signed for."""
        raise NotImplementedError

    @property
    def service_endpoint(self) -> str | None:
        """The service's URL; None for AWS's own in that region."""
        raise NotImplementedError

    def worth(self, whose: str, more: str = "") -> Durability:
        """What an answer of the service is worth. ``whose``: its name, such as SQS; ``more``: what else an operator
        should know of it."""
        where = self.service_endpoint
        if where is None or is_aws(where):
            return Durability.promised(f"an answer of {whose}{more}")
        return Durability(
            "unknown", f"{where} is not AWS, and does not say whether it syncs", f"a service of AWS{more}"
        )

    def risks(self, key: str) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read. ``key``: that which names the endpoint."""
        where = self.service_endpoint
        if self.durability != "strict":
            yield Finding("durability", "mail that such a service has answered for may be lost in a power cut")
        if where is not None and where.startswith("http:") and not is_loopback(urlsplit(where).hostname or ""):
            yield Finding(key, "the mail can be read on the way")


def is_aws(url: str) -> bool:
    """Whether it is one of AWS's own services, certainly: https, and a name of AWS."""
    parts = urlsplit(url)
    return parts.scheme == "https" and (parts.hostname or "").endswith(_AWS)


def _lacking(told: Mapping[str, Any]) -> dict[str, str]:
    if told.get("access_key_id") is not None:
        return {"secret_access_key": ""} if told.get("secret_access_key") is None else {}
    ways = told.get("profile") is not None or told.get("instance_role")
    return {} if ways or told.get("secret_access_key") is not None else {"access_key_id": _WAYS}
