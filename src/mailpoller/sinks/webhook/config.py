"""The YAML block of a queue that is a web service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mailpoller.core.channel import Body, Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret, Size
from mailpoller.sinks.webhook.guard import effective, is_metadata, is_metadata_name, literal
from mailpoller.sinks.webhook.presets import PRESETS, Preset, PresetName
from mailpoller.sinks.webhook.url import HookUrl
from mailpoller.wire.cloudevents import Mode
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import Wait
from mailpoller.wire.oauth import OAuthAuth
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import Fingerprint, TlsPolicy, check_trust


def _listed(written: object) -> object:
    return [written] if isinstance(written, str | Secret) else written


class WebhookSettings(SinkConfig):
    """What a queue of this type is told; see :class:`mailpoller.sinks.webhook.WebhookQueueConfig`."""

    type: Literal["webhook"]
    url: HookUrl
    """Where: ``https://HOST/PATH``. A query, which may be a key, is never shown."""
    tls: Literal["tls", "none"] = "tls"
    """``none`` allows a URL of ``http://`` that leads to another machine: mail and login cross the network in clear."""
    preset: PresetName = "generic"
    """What takes it: ``generic`` (CloudEvents; see ``mode``), or a program that has its own way of taking mail:
    ``rails`` (Action Mailbox, ingress ``relay``), ``gitlab`` (as mail_room does), ``discourse``, ``redmine``,
    ``osticket``, ``mailgun``, ``sendgrid`` and ``postmark`` (what takes their raw MIME, such as django-anymail). A
    preset knows the path, if the URL has none, and sends the message as it came."""
    mode: Mode = "structured"
    """``structured`` (the event, attributes and data in one JSON object), ``binary`` (the attributes as header fields
    ``ce-…``, the body is the data) or ``raw`` (the same fields, the body is the message as it came)."""
    batch: int = Field(default=1, ge=1, le=1000)
    """Send up to so many events in one request, as a JSON array (``application/cloudevents-batch+json``); the answer
    is for all of them."""
    lines: bool = False
    """Send one event a line (``application/x-ndjson``) in place of the array, also where it is one alone."""
    signing_secrets: Annotated[list[Secret], BeforeValidator(_listed)] = Field(default_factory=list, max_length=2)
    """Sign each request by Standard Webhooks with this secret (``whsec_`` and Base64); with two, by both of them, so
    that the consumer can change from one to the other."""
    username: str | None = None
    """Log in as this user, by HTTP Basic with ``password``; for ``discourse`` the name beside the key."""
    password: Secret | None = None
    """The user's password."""
    token: Secret | None = None
    """Log in with this token (``Authorization: Bearer``). With a preset, the program's own key: that of
    ``.gitlab_mailroom_secret``, an API key of Discourse or osTicket, Redmine's key for incoming mail, Mailgun's
    signing key."""
    auth: OAuthAuth | None = None
    """Log in with a token that is asked for, and renewed, by OAuth 2.0: ``auth: {type: oauth2, grant:
    client_credentials, token_url: …, client_id: …, client_secret: …, scopes: […]}``."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    pin: Fingerprint | None = None
    """Trust exactly the certificate with this SHA-256, whoever signed it."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM), for a service that asks for one."""
    client_key: FilePath | None = None
    """Its key (PEM, not encrypted), if it is not in the same file."""
    allow_private: bool = False
    """The host's name may resolve to an address of this machine or of a private network. One that is written as an
    address, or as ``localhost``, needs no such word."""
    proxy: Proxy | None = None
    """Reach the service through a proxy. It resolves the name, so nobody checks to what."""
    timeout: Wait = timedelta(seconds=30)
    """How long connecting may take, and how long the service may be silent. An answer is complete within twice this,
    and a second more for each 64 KiB that are sent."""
    connections: int = Field(default=4, ge=1, le=64)
    """Requests at once; each holds what it sends in memory."""
    max_size: Size = 100_000_000
    """A message of which a larger request would be made is refused without asking."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return not self.takes_octets

    def extras(self) -> Iterator[Extra]:
        """What speaks HTTP."""
        yield Extra("type", "httpcore", "mailpoller[webhook]")

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """What the preset logs in with."""
        name = written.get("preset", "generic")
        preset = PRESETS.get(name) if isinstance(name, str) else None
        return _lacking(preset, name, written)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        check_trust(self.policy)
        self._check_place()
        if lacking := _lacking(self.program, self.preset, {"password": self.password, "token": self.token}):
            raise KeysMissing(lacking)
        if self.program is not None and (self.mode != "structured" or self.batch > 1 or self.lines):
            raise ValueError("a preset has its own shape: leave mode, batch and lines away")
        if (self.batch > 1 or self.lines) and self.mode != "structured":
            raise ValueError("only structured events go in batches")
        if self.password is not None and self.token is not None:
            raise ValueError("password and token exclude each other: there is one way to log in")
        if (self.username is None) != (self.password is None) and self.program is None:
            raise ValueError("username and password go together")
        if self.auth is not None:
            self._check_auth(self.auth)
        if any(not "!" <= one <= "~" for one in self.username or ""):
            raise ValueError("a username is of ASCII, without spaces")
        if ":" in (self.username or "") and self.password is not None:
            raise ValueError("HTTP Basic knows no username with a colon")
        return self

    def _check_auth(self, auth: OAuthAuth) -> None:
        if self.password is not None or self.token is not None or self.program is not None:
            raise ValueError("auth is for a service of your own, and excludes password, token and preset")
        if auth.grant != "client_credentials":
            raise ValueError("a webhook is asked by the service itself: grant: client_credentials")
        if not auth.scopes and auth.provider is not None:
            raise ValueError("say scopes in auth: those that a provider is known for are about mail")
        if not self.url.secure and not is_loopback(self.url.host):
            raise ValueError("a token goes over https:// only")

    def _check_place(self) -> None:
        host, secure = self.url.host, self.url.secure
        address = literal(host)
        if is_metadata_name(host) or (address is not None and is_metadata(effective(address))):
            raise ValueError("url leads to a cloud's metadata service: no mail ever goes there")
        if secure and self.tls == "none":
            raise ValueError("url says https, and tls: none says that there is none")
        if not secure and self.tls != "none" and not is_loopback(host):
            raise ValueError("url is https://…; http:// leads to this machine alone, unless tls: none is said, too")
        if self.proxy is not None and not secure and is_loopback(host):
            raise ValueError("url leads to this machine, where no proxy leads to")

    def channel(self, name: str) -> Channel:
        """See the parent's. What may be a key in the path is left out, as are all queries."""
        usual = "/" if self.program is None else self.program.path
        path = self.url.path if self.url.path.strip("/") else usual
        shown = "/".join("***" if len(part) >= 16 else part for part in path.split("/"))
        body: Body = "mail" if self.program is not None else self.mode
        if self.lines or self.batch > 1:
            body = "lines" if self.lines else "batch"
        beside = self.program is None and self.mode != "structured"
        protocol = "https" if self.url.secure else "http"
        return Channel(protocol, self.url.netloc, shown, body, "ce-" if beside else None)

    def findings(self) -> Iterator[Finding]:
        """Where the guard against private addresses does not hold, and what crosses the network in clear."""
        yield from super().findings()
        if self.proxy is not None and literal(self.url.host) is None and not self.allow_private:
            text = (
                "the proxy resolves the name in url: that it leads to no private address is not checked here, and the "
                "proxy has to see to it; allow_private: true says that this is known"
            )
            yield Finding("proxy", text)
        if not self.url.secure and not is_loopback(self.url.host):
            logs_in = self.password is not None or self.token is not None
            text = "mail crosses the network in clear" + (", and so does what this queue logs in with" * logs_in)
            yield Finding("tls", text)

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin, self.client_certificate, self.client_key)

    @property
    def program(self) -> Preset | None:
        """What the preset is about; None for ``generic``."""
        return PRESETS.get(self.preset)

    @property
    def carries_octets(self) -> bool:
        return self.takes_octets or self.octets_wanted

    @property
    def takes_octets(self) -> bool:
        """True if the body is the message as it came."""
        return self.program is not None or self.mode == "raw"


def _lacking(preset: Preset | None, name: object, written: Mapping[str, Any]) -> dict[str, str]:
    needs = () if preset is None else preset.needs
    return {key: f"preset: {name} logs in with it" for key in needs if written.get(key) is None}
