"""The blocks that are no plug-ins: the process, alerts, the quarantine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from mailpoller.core.component import Block, Runtime, SinkConfig
from mailpoller.core.errors import ConfigError
from mailpoller.core.extras import Extra
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.literals import (
    Duration,
    MailAddress,
    MailAddresses,
    OutgoingName,
    QueueName,
    RuleName,
    Secret,
    Size,
)
from mailpoller.core.ports import EntrySource
from mailpoller.mail.understand.conversation import KEY_ID, Finder, compile_capturing

PRODUCTION = "production"
"""The environment whose mailboxes need not say so."""


def _at_least(least: timedelta, written: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if value < least:
            raise ValueError(f"must be at least {written}")
        return value

    return AfterValidator(check)


def _word(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value):
        raise ValueError("must be letters, digits, - and _, at most 40")
    return value


class ConversationKey(Block):
    """A key that tokens are signed with."""

    id: Annotated[str, StringConstraints(pattern=f"^{KEY_ID}$")]
    """What names it within a token: up to 8 small letters and digits. Never used again for another key."""
    secret: Secret
    """At least 16 octets that nobody guesses, such as ``openssl rand -hex 32`` makes."""


class ConversationsConfig(Block):
    """How messages are known to belong to a conversation of the help desk."""

    keys: list[ConversationKey] = Field(default_factory=list)
    """The keys of signed tokens. New ones are signed with the first; the others are those of older tokens."""
    patterns: list[Annotated[str, StringConstraints(min_length=1, max_length=1000)]] = Field(
        default_factory=list, max_length=100
    )
    """Regular expressions (RE2) with a group named ``id``: ``\\[#(?P<id>[0-9]+)\\]``. What they find anybody can
    write, so it is never ``verified``."""
    scope: Literal["mailbox", "departments", "all"] = "departments"
    """Among whose mail the messages are looked for that another one answers: the mailbox's own, that of all mailboxes
    which have a department with it in common, or any."""
    look_in: list[Literal["subject", "headers", "body"]] = Field(default=["subject", "headers"], min_length=1)
    """Where tokens and patterns are looked for, in the order subject, headers, body, and the first counts. The body is
    then read of every message."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if len({key.id for key in self.keys}) < len(self.keys):
            raise ValueError("two keys have the same id")
        for pattern in self.patterns:
            if "id" not in compile_capturing(pattern).groupindex:
                raise ValueError("a pattern needs a group that is named id: (?P<id>…)")
        return self

    def finder(self) -> Finder:
        """What finds conversations."""
        keys = {key.id: partial(_revealed, key.secret) for key in self.keys}
        return Finder(keys, [compile_capturing(pattern).search for pattern in self.patterns], self.look_in)


def _revealed(secret: Secret) -> bytes | None:
    try:
        return secret.reveal().encode("utf-8")
    except ConfigError:  # `check` says so, and status; no token is genuine meanwhile
        return None


class ServiceConfig(Block):
    """The process: where it keeps its state, how much it takes in hand, how it logs."""

    environment: Annotated[str, AfterValidator(_word)] = PRODUCTION
    """What this installation is for. Mailboxes of another environment are not polled; those without one are polled
    only in ``production``. ``--environment`` and ``MAILPOLLER_ENVIRONMENT`` overrule it."""
    state_directory: Path = Path("/var/lib/mailpoller")
    """Spool, tokens and the quarantine. Created with mode 0750."""
    control_socket: Path = Path("/run/mailpoller/control.sock")
    """Where ``mailpoller status``, ``poll`` and the like reach the running service; its group may use it."""
    stop_grace: Annotated[Duration, _at_least(timedelta(0), "0s")] = timedelta(seconds=20)
    """How long a stop waits for messages in hand before it drops them (none is lost: they are done again). Keep it
    below systemd's TimeoutStopSec."""
    memory: Size = Field(default=64_000_000, ge=1_000_000)
    """Octets of mail in hand at any time, of all mailboxes together. Mail waits in its mailbox for room."""
    memory_per_mailbox: Size = Field(default=32_000_000, ge=1_000_000)
    """Octets of mail in hand of one mailbox. Four batches keep a far line busy: one asked for, one fetched, one
    judged, one delivered."""
    batch_messages: int = Field(default=400, ge=1, le=10_000)
    """The most messages that are fetched, judged and committed together. Every batch waits for the disk a few times,
    so that small messages are carried faster in larger batches, and a crash leaves more of them to be worked on one
    by one."""
    batch_size: Size = Field(default=8_000_000, ge=1)
    """The most octets of a batch; a larger message travels alone."""
    max_connections: int = Field(default=0, ge=0, le=1_000_000)
    """The most sessions that are open at once; 0: as many as there are mailboxes. Where there are more mailboxes they
    take turns: who waits for news without any gives its place to one that is due, and is polled at
    ``poll_interval``."""
    max_connections_per_host: int = Field(default=0, ge=0, le=1_000_000)
    """The same for the mailboxes of one host."""
    workers: int = Field(default=1, ge=0, le=64)
    """Processes of their own for what may do harm: the bodies of mail that is suspected of having killed the service.
    One is begun when it is first needed; what hangs or kills it is delivered without its body, and says so. 0: the
    service reads everything itself."""
    max_strikes: int = Field(default=3, ge=1, le=100)
    """After killing the process this often a message is quarantined unparsed."""
    quarantine_marker: str = "[mailpoller quarantine test message]"
    """A message with this in its subject is quarantined, so that the quarantine can be tried. Empty: no such
    message."""
    poll_budget: Annotated[Duration, _at_least(timedelta(minutes=1), "1m")] = timedelta(minutes=15)
    """A mailbox without a completed poll or any progress for this long is given a new task and connection."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severity that is logged."""
    log_rate: int = Field(default=100, ge=0, le=1_000_000)
    """Messages that are delivered, discarded or recognised as repeats, and logged one by one in a second; how many more
    there were is said each second. ``trace`` knows them all. 0: every one is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """``json``: one object a line; ``console``: for eyes; ``auto``: console on a terminal, else json."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.memory_per_mailbox > self.memory:
            raise ValueError("memory_per_mailbox must not be more than memory")
        if self.batch_size > self.memory_per_mailbox:
            raise ValueError("batch_size must not be more than memory_per_mailbox")
        return self


RELOADED_KEYS = frozenset(("quarantine_marker",))
"""Of the service: what a reload brings into force. All other keys say how the process was put together."""


class AlertsConfig(Block):
    """Mail to humans when something goes wrong, and when it is well again."""

    outgoing: OutgoingName | None = None
    """The outgoing that alerts are sent by. Without it: the only one there is, or the one that says ``default:
    true``."""
    to: MailAddresses
    """Who gets them: one address or a list. Not a mailbox that is polled here."""
    sender: MailAddress | None = None
    """The address in From; that of the outgoing if there is none."""
    reminder: Annotated[Duration, _at_least(timedelta(minutes=1), "1m")] | None = None
    """Say again after this long that a trouble lasts. Without it there is one mail when it begins and one when it
    ends."""


class MetricsConfig(Block):
    """Figures and health over HTTP, for monitoring on this machine: ``/metrics``, ``/healthz`` and ``/readyz``."""

    socket: Path | None = None
    """A Unix socket, made with mode 0660: whoever is in the service's group may ask."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """A port of 127.0.0.1: whoever is on this machine may ask, and sees the names of mailboxes, queues and hosts."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.socket is None and self.port is None:
            raise ValueError("socket or port has to be there")
        return self

    def extras(self) -> Iterator[Extra]:
        """h11 speaks HTTP."""
        yield Extra("port" if self.socket is None else "socket", "h11", "mailpoller[metrics]")


class RuleSet(Block):
    """Rules that several mailboxes share."""

    rules: list[RuleName] = Field(min_length=1)
    """The rules, in the order in which they are asked."""


class QuarantineStoreConfig(Block):
    """The quarantine: a directory below the state directory, and who is told of what is put there."""

    keep: Annotated[Duration, _at_least(timedelta(hours=1), "1h")] = timedelta(days=90)
    """So long quarantined mail is kept at least. What will be removed within seven days (or half of this, if that is
    less) is an alarm, and what the alarm did not tell of so long is not removed. That whose notice is owed is
    kept twice as long."""
    max_size: Size = Field(default=5_000_000_000, ge=1_000_000)
    """Octets of all quarantined mail together. Where there is no room for more, such mail stays on its server, and an
    alarm says so."""


class OutboxConfig(Block):
    """Mail that people and programs hand in, until it is sent."""

    max_size: Size = Field(default=1_000_000_000, ge=1)
    """Octets that wait at most; beyond that nothing is accepted. Of several outgoings none may have more waiting than
    it leaves free for the others: one whose relay is down half of it at most."""
    max_mail: Size = Field(default=25_000_000, ge=1, le=100_000_000)
    """The largest entry in octets, as it is handed in."""
    max_recipients: int = Field(default=100, ge=1, le=10_000)
    """Recipients of one mail at most."""
    max_acknowledgements_per_hour: int = Field(default=100, ge=1, le=100_000)
    """Acknowledgements of all mailboxes together. After that none is sent, with one alarm, until there were no more
    than half as many within an hour."""
    give_up: Annotated[Duration, _at_least(timedelta(minutes=1), "1m")] = timedelta(days=5)
    """After so long who has not got a mail never will. Between two tries it waits from a minute to two hours."""
    keep: Annotated[Duration, _at_least(timedelta(days=1), "1d")] = timedelta(days=180)
    """How long it is known what became of a mail, and which keys of entries were used."""
    witness: Path | None = None
    """A directory elsewhere than the state directory, which is not put back together with it, such as
    ``/var/cache/mailpoller``: there, too, it is noted how far the outbox has got, so that an older copy is known."""


class IntakeConfig(IntakeSettings):
    """A way in by the control socket."""

    type: Literal["socket"]
    """``socket``: ``mailpoller send``, by the control socket."""
    users: list[Annotated[str, StringConstraints(min_length=1, max_length=64)]] = Field(default_factory=list)
    """The Unix users that may use it, beside root. Without any: everybody who may use the control socket."""

    def build(self, name: str, runtime: Runtime) -> EntrySource | None:
        """None: whoever has an entry comes by himself."""
        return None


class QuarantineConfig(Block):
    """Notices of quarantined messages go to one of the configured queues."""

    type: Literal["queue"]
    queue: QueueName
    """The queue that gets them."""


Quarantine = QuarantineConfig | SinkConfig
