"""What every kind of mailbox has in its block."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from mailpoller.core.acknowledge_config import AcknowledgeConfig
from mailpoller.core.authentication import EXCHANGE_ONLINE, Trust
from mailpoller.core.classification import MailClass
from mailpoller.core.component import Block, Component, Finding, MailboxPriority, Runtime, StartLiteral, Watermarks
from mailpoller.core.delivery import LEAVE, Disposition
from mailpoller.core.enclosures import Enclosures, OutboundAttachments, enclosures
from mailpoller.core.host_limit import HostLimit
from mailpoller.core.literals import (
    DispositionLiteral,
    Duration,
    FilePath,
    OutgoingName,
    QueueName,
    RuleName,
    RuleSetName,
    Size,
)
from mailpoller.core.message import Account
from mailpoller.core.own_address import Charset, OwnAddress, reply_charset
from mailpoller.core.policy import POLICIES, Policy, PolicyWord
from mailpoller.core.ports import Source
from mailpoller.core.removal import Removal
from mailpoller.core.reply_charset import Preset, ReplyCharset
from mailpoller.core.standing import ROOT, Department, Standing

_STRIPPED = r"^([A-Za-z0-9!#$&^_.+-]+/([A-Za-z0-9!#$&^_.+-]+|\*)|\.[^\s/\\]+|macros|encrypted)$"


class SenderFile(Block):
    """A file that lists senders, one a line; ``#`` begins a comment. It is read anew when it has changed."""

    file: FilePath
    """At most 4 MiB."""


class Excepted(Block):
    """Whom a policy leaves alone."""

    senders: list[Annotated[str, StringConstraints(min_length=1, max_length=320)] | SenderFile] = Field(min_length=1)
    """Addresses as they stand in From, domains, or files with such: ``shop@example.com``, ``example.com`` with all
    below it, ``{file: /etc/mailpoller/partners}``."""

    @field_validator("senders")
    @classmethod
    def _plain(cls, senders: list[str | SenderFile]) -> list[str | SenderFile]:
        for sender in senders:
            if isinstance(sender, str) and not re.fullmatch(r"[^\s@<>,;]*@?[^\s@<>,;.]+(\.[^\s@<>,;.]+)*", sender):
                raise ValueError("a sender is an address, or a domain such as example.com")
        return senders


class ClassPolicy(Block):
    """What becomes of a class of mail: ``action`` or ``queue``, one of them."""

    action: PolicyWord | None = None
    """``deliver``, ``quarantine`` or ``discard``."""
    queue: QueueName | None = None
    """The queue that all mail of the class goes to, in place of those that rules name."""
    except_: Excepted | None = Field(default=None, alias="except")
    """Whom it does not hold for: their mail goes where it would go without a policy."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.action is None) == (self.queue is None):
            raise ValueError("a policy is an action (deliver, quarantine, discard) or a queue")
        return self


class BrakeConfig(Block):
    """How many mails of one sender are no flood."""

    mails: int = Field(ge=2, le=10_000)
    """So many, received within ``window``, are delivered; what comes beyond is quarantined until there are fewer."""
    window: Duration = timedelta(minutes=10)
    """Counted by when the server received them. At most a day."""
    except_: Excepted | None = Field(default=None, alias="except")
    """Who may send any number."""

    @field_validator("window")
    @classmethod
    def _bounded(cls, window: timedelta) -> timedelta:
        if not timedelta(seconds=1) <= window <= timedelta(days=1):
            raise ValueError("a window is 1s to 1d")
        return window


def spared(excepted: Excepted | None) -> tuple[frozenset[str], tuple[Path, ...]]:
    """Senders in small letters, and files that list more of them."""
    written = excepted.senders if excepted is not None else ()
    senders = frozenset(one.lower().lstrip("@") for one in written if isinstance(one, str))
    return senders, tuple(one.file for one in written if isinstance(one, SenderFile))


def _policy(written: PolicyWord | ClassPolicy) -> Policy:
    if not isinstance(written, ClassPolicy):
        return Policy(written)
    senders, files = spared(written.except_)
    return Policy(written.action, written.queue or "", senders, files)


class StripConfig(Block):
    """Which attachments are removed."""

    strip: list[Annotated[str, StringConstraints(pattern=_STRIPPED, max_length=127)]] = Field(
        min_length=1, max_length=1000
    )
    """Each a media type, declared or detected (``application/x-msdownload``, ``image/*``), the end of a name
    (``.exe``), ``macros`` or ``encrypted``."""

    def removal(self) -> Removal:
        """The same as the engine reads it."""
        written = {one.lower() for one in self.strip}
        return Removal(
            types=frozenset(one for one in written if "/" in one),
            suffixes=tuple(sorted(one for one in written if one.startswith("."))),
            macros="macros" in written,
            encrypted="encrypted" in written,
        )


class AuthenticationConfig(Block):
    """Whose word is taken on who a message is from."""

    trusted: (
        Annotated[list[Annotated[str, StringConstraints(pattern=r'^[^\s;="()]{1,255}$')]], Field(max_length=100)]
        | Literal["topmost_without_id"]
    )
    """The authserv-ids (RFC 8601) of the servers whose ``Authentication-Results`` are believed, such as
    ``mx.example.com``: what stands there before the semicolon. They must be servers that remove such fields of
    strangers. ``topmost_without_id``: Microsoft 365, which writes none. An empty list: nobody's."""

    def trust(self) -> Trust:
        """The same as the readers of mail have it."""
        if isinstance(self.trusted, str):
            return EXCHANGE_ONLINE
        return Trust(frozenset(one.lower() for one in self.trusted))


class SourceConfig(Component):
    """A mailbox: one configured account with one or more folders."""

    kind: ClassVar[str] = "sources"

    enabled: bool = True
    """false keeps the definition and does not poll. Such a mailbox may lack what it needs, and be extended by
    others."""
    environment: str | None = None
    """Poll only where the service runs in this environment. A mailbox without one is polled only in ``production``."""
    extends: str | None = None
    """Copy the settings of another mailbox; what is said here overrules them."""
    formerly: str | None = None
    """The mailbox's earlier name: its ledger rows are taken over."""
    address: str | list[str | OwnAddress] | None = None
    """The mailbox's own mail addresses, as they stand in To and Cc: the principal one first, then its aliases. One that
    is answered from by another outgoing, or in another charset: ``{address: sales@example.com, outgoing: sales}``."""
    authentication: AuthenticationConfig | None = None
    """Whose ``Authentication-Results`` (SPF, DKIM, DMARC) are believed: ``{trusted: [mx.example.com]}``. Left out it is
    the server of Gmail or Microsoft 365 where the mailbox is there, and nobody's elsewhere."""
    trusted: bool = False
    """true: what comes to this mailbox is trusted. The event and rules are told; mailpoller treats it as any other."""
    departments: list[Department] = Field(default=[ROOT], min_length=1, max_length=100)
    """The departments that it serves, for the event and for rules. ``root`` is one like any other, and none is all."""
    charset: Preset | Charset | None = None
    """In what answers from this mailbox are written. A preset: ISO-8859-1, ISO-2022-JP, GB2312 or BIG5, with ``replies:
    choose`` and ``euro: EUR``. Without it: UTF-8."""
    default_for: list[Department] = Field(default=[], max_length=100)
    """Those of its departments whose default mailbox it is: the others of such a department have its ``outgoing``."""
    outgoing: OutgoingName | None = None
    """The outgoing that this mailbox's own quarantine sends by if it names none. Without it: that of the default
    mailbox of its department, else the only one there is, or the one that says ``default: true``."""

    acknowledge: AcknowledgeConfig | None = None
    """Tell senders, once and automatically, that their mail has come: by this mailbox's ``outgoing``. None: nobody."""

    outbound_attachments: bool | OutboundAttachments = False
    """true: what is sent as an answer from this mailbox may have attachments; ``{types: [application/pdf], max_size:
    5MB}``: such alone. The mailbox must be ``trusted``. false: it is refused when it is handed in."""

    default_queue: QueueName | None = None
    """Where a message goes for which no rule names a queue."""
    default_topic: str = ""
    """The topic of a message for which no rule sets one."""
    force_default_queue: bool = False
    """Everything goes to ``default_queue``, and only rules that ask for ``force_default_queue`` are asked: they may
    quarantine and discard. Size limit, quarantine marker, loop check and the policies of the classes still apply."""
    rule_sets: list[RuleSetName] = Field(default_factory=list)
    """Sets of rules that judge this mailbox's messages before its own ``rules``, in this order."""
    rules: list[RuleName] = Field(default_factory=list)
    """The rules that judge this mailbox's messages, in this order. One that a set has named already is not asked
    again."""
    auto_replies: PolicyWord | ClassPolicy = "quarantine"
    """What becomes of automatic answers: of the classes ``auto-reply`` (a bare null Return-Path among them) and
    ``challenge``. ``deliver``, ``quarantine``, ``discard``, ``{queue: NAME}``, or a block with ``except``."""
    bounces: PolicyWord | ClassPolicy = "quarantine"
    """The same for the class ``bounce``."""
    auto_generated: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``auto-generated``: ticket systems, shops, often a customer's own."""
    lists: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``list``."""
    bulk: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``bulk``."""
    reports: PolicyWord | ClassPolicy = "deliver"
    """The same for the class ``report``."""
    attachments: Literal["keep", "digest"] | StripConfig = "keep"
    """What becomes of attachments where the mailbox is not ``trusted``. ``digest``: queues are told their names, sizes
    and digests alone; ``{strip: [.exe, macros]}``: so of some. The whole message is held in quarantine then. Its queues
    cannot be ones that hold octets."""

    brake: BrakeConfig | None = None
    """Quarantines what one sender writes beyond a number of mails, as two programs do that answer one another. None:
    any number."""
    max_hops: int = Field(default=100, ge=10, le=10_000)
    """A mail that has gone through more servers than this (its Received fields) goes in a circle: quarantined."""

    disposition: DispositionLiteral = Disposition(seen=True)
    """What is done on the server to a settled message: ``seen``, ``leave``, ``delete``, ``{move: FOLDER}``, ``{flag:
    KEYWORD}``. ``{delete: true, after: 30d}``, or with ``move``: so long after it was settled, of delivered mail alone
    that a queue holds whole; of ``max_per_poll: 100`` messages at each poll."""
    on_quarantine: DispositionLiteral | None = None
    """Overrules ``disposition`` for quarantined messages."""
    on_discard: DispositionLiteral | None = None
    """Overrules ``disposition`` for discarded messages."""
    quarantine: dict[str, Any] | None = None
    """Overrules the top-level ``quarantine`` for this mailbox; merged into it key by key."""
    watermarks: Watermarks | None = None
    """Overrules the top-level ``watermarks`` for this mailbox; merged into it key by key."""
    mode: Literal["live", "shadow"] = "live"
    """``shadow`` never changes anything in the mailbox: for running beside another ingestor."""

    start: StartLiteral = "unseen"
    """What the very first run takes: ``now`` (only what arrives later), ``unseen``, ``all`` or ``since:YYYY-MM-DD``."""
    poll_interval: Duration = timedelta(seconds=60)
    """How often every folder is listed, also while the server pushes news."""
    reconnect_interval: Duration = timedelta(seconds=30)
    """The least wait after a lost connection; grows with jitter to thirty times this, at most one hour. Only after
    five good minutes one more try comes within three seconds, since most troubles are over by then."""
    priority: MailboxPriority = "medium"
    """The mailbox's share where mailboxes have to wait for one another (memory, processor, queues, connections):
    ``high``, ``medium`` and ``low`` get 4 : 2 : 1. It says nothing about the priority of messages."""
    max_message_size: Size = 20_000_000
    """Octets of a message that are downloaded; what lies beyond is never asked for."""
    oversize: Literal["truncate", "quarantine"] = "truncate"
    """A larger message is cut to its first octets and marked, or quarantined."""
    hold_above: int = Field(default=100, ge=0, le=1_000_000_000)
    """After an epoch change (UIDVALIDITY, host or user), more unknown messages than this hold the mailbox until
    ``mailpoller accept``."""
    keep: Duration = timedelta(days=90)
    """How long the ledger remembers settled messages that have left the mailbox."""

    @field_validator("on_quarantine", "on_discard")
    @classmethod
    def _at_once(cls, disposition: Disposition | None) -> Disposition | None:
        if disposition is not None and disposition.after is not None:
            raise ValueError("after is for delivered mail alone: say it in disposition")
        return disposition

    @field_validator("departments")
    @classmethod
    def _once_each(cls, departments: list[str]) -> list[str]:
        if len(set(departments)) < len(departments):
            raise ValueError("a department is named twice")
        return departments

    def own_addresses(self) -> Sequence[str]:
        """The mailbox's addresses, as far as its keys tell: those of ``address``, else the login if it is one."""
        if self.address is not None:
            written = [self.address] if isinstance(self.address, str) else self.address
            return [one.address if isinstance(one, OwnAddress) else one for one in written]
        account = self.polled_account()
        return [account.user] if account is not None and "@" in account.user else []

    def trust(self) -> Trust | None:
        """Whose word on senders is taken; None: nobody's."""
        return self.authentication.trust() if self.authentication is not None else self.usual_trust()

    def usual_trust(self) -> Trust | None:
        """Whose word is taken where nothing is said: that of a service whose own mailbox it is, and which removes what
        strangers write in its place."""
        return None

    def reply_charset(self) -> ReplyCharset | None:
        """In what answers are written; None: UTF-8."""
        return reply_charset(self.charset)

    def answered_by_address(self) -> Mapping[str, OwnAddress]:
        """Of the addresses that are answered from in a way of their own, by address in small letters."""
        written = self.address if isinstance(self.address, list) else []
        found = {one.address.casefold(): one for one in written if isinstance(one, OwnAddress)}
        return {address: one for address, one in found.items() if one.outgoing or one.charset is not None}

    def standing(self) -> Standing:
        """What its messages are told to be by where they came to."""
        return Standing(self.trusted, tuple(self.departments), self.force_default_queue)

    def disposition_for(self, kind: str) -> Disposition:
        """The disposition of an outcome of this kind."""
        if kind == "skipped" or self.mode == "shadow":
            return LEAVE
        if kind == "quarantined" and self.on_quarantine is not None:
            return self.on_quarantine
        if kind == "discarded" and self.on_discard is not None:
            return self.on_discard
        return self.disposition.at_once

    @property
    def later(self) -> Disposition | None:
        """What is done to delivered mail long after it was settled; None: nothing."""
        return None if self.mode == "shadow" else self.disposition.later

    def removal(self) -> Removal | None:
        """Which attachments go no further than the quarantine; None: all are kept."""
        if self.trusted or self.attachments == "keep":
            return None
        return self.attachments.removal() if isinstance(self.attachments, StripConfig) else Removal(every=True)

    def outbound(self) -> Enclosures | None:
        """Which attachments what is sent may have; None: none."""
        return enclosures(self.outbound_attachments) if self.trusted else None

    def policies(self) -> Mapping[MailClass, Policy]:
        """What becomes of each class that is not simply delivered."""
        made = {kind: _policy(getattr(self, key)) for kind, key in POLICIES.items()}
        return {kind: policy for kind, policy in made.items() if not policy.delivers}

    def findings(self) -> Iterable[Finding]:
        yield from super().findings()
        if self.trusted and self.attachments != "keep":
            yield Finding("attachments", "the mailbox is trusted, so all attachments are kept")
        if self.outbound_attachments and not self.trusted:
            text = "a mailbox sends attachments only if it is trusted: say trusted: true, or leave this out"
            yield Finding("outbound_attachments", text, "error")
        if _policy(self.auto_replies).delivers and "bounces" not in self.model_fields_set:
            text = "bounces are a class of their own, and are quarantined: say bounces, too (deliver if you want them)"
            yield Finding("auto_replies", text)

    def starts_at(self) -> datetime | None:
        """The instant of ``since:``, midnight UTC; None for the other kinds of start."""
        if not self.start.startswith("since:"):
            return None
        return datetime.fromisoformat(self.start.removeprefix("since:") + "T00:00:00+00:00")

    def named_folders(self) -> Sequence[str]:
        """The folders that are polled, by the names that they are configured by; empty if there is no choice.
        What the key ``folders`` says, if there is one."""
        return tuple(getattr(self, "folders", ()))

    def polled_account(self) -> Account | None:
        """Where these folders are: equal for two mailboxes that lead to the same mail. None: the keys do not tell.
        So that nobody polls a folder twice, or one that mail is moved to."""
        return None

    def usual_limit(self) -> tuple[str, HostLimit] | None:
        """The host that it logs in to, in small letters, and what is known that this takes; None: nothing is."""
        return None

    def folder_key(self, name: str) -> str:
        """Equal for two names of the same folder. The folder where mail arrives is INBOX, in whatever case."""
        return "INBOX" if name.upper() == "INBOX" else name

    @property
    def has_patterns(self) -> bool:
        """True if some of its folders are found by patterns; else :meth:`finds` need not be asked."""
        return False

    def finds(self, key: str) -> bool:
        """True if a folder of this :meth:`folder_key` may be found, and polled, without being named."""
        return False

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing; raises :class:`ConfigError` if it cannot ever work."""
        raise NotImplementedError
