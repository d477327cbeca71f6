"""What a plug-in is: a config class that is the YAML block, the reference page and the factory at once.

A plug-in is one file and one entry point line. The entry point's group is ``mailpoller.`` and the kind (``sources``,
``sinks``, ``rules``, ``ledgers``, ``outgoings``, ``blobs``, ``intakes``), its name is the block's ``type``, its object
the config class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from mailpoller.core.channel import Channel
from mailpoller.core.delivery import Payload
from mailpoller.core.extras import Extra
from mailpoller.core.literals import (
    Duration,
    MailAddress,
    MailAddresses,
    Size,
)
from mailpoller.core.message import Account
from mailpoller.core.pacing import Pacer
from mailpoller.core.ports import BlobStore, Clock, Ledger, Outgoing, Rule, Sink
from mailpoller.core.prose import attribute_docstrings
from mailpoller.core.record import record
from mailpoller.core.sender import Quote, Sender
from mailpoller.core.spool import Spool

NO_OUTGOING = "this key is required unless there is one outgoing alone, or one that says default: true"
"""What is said of a block that is to send, and nobody knows by what."""

KINDS = ("sources", "sinks", "rules", "ledgers", "outgoings", "blobs", "intakes")
DESTINATIONS = "destinations"
"""The kind of the queues that only rules make (:class:`~mailpoller.core.rule_config.Destination`): their config classes
are those of sinks, and no section has them."""


@record
class Runtime:
    """What a plug-in may use of the process it is built into."""

    clock: Clock
    spool: Spool
    state_directory: Path
    """Ours alone, mode 0700: spool, last-resort quarantine, tokens."""
    outgoings: Mapping[str, Outgoing] = field(default_factory=dict)
    """Those that are configured, by name; sinks that send mail look theirs up here."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Those that are configured, by name, each built when it is first asked for; rules that name one find it here.
    Raises :class:`~mailpoller.core.errors.ConfigError` for one that cannot be built."""
    pacer: Callable[[str], Pacer] = lambda _: Pacer()
    """What a source asks before each command to a host, in small letters, once it is logged in."""


class Block(BaseModel):
    """A block of the YAML file. Unknown keys are errors; its docstrings are the reference; it never shows its input."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        strict=False,
        defer_build=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema, in which each key is described by the docstring of its attribute."""
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for name, text in attribute_docstrings(cls).items():
            if name in cls.model_fields:
                properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return made

    def extras(self) -> Iterable[Extra]:
        """The optional packages that this block needs as it is written, beside those of the blocks inside of it. A
        part that lacks one waits for it, and ``check`` names it."""
        return ()


@record
class Finding:
    """What a block has to say of how it is written.

    ``key``: the key that it is about, one inside another as ``auth.type``. ``text``: what is wrong, and what to do; no
    value from the file. ``error``: the process does not start; ``warning``: it does, and it is told.
    """

    key: str
    text: str
    severity: Literal["error", "warning"] = "warning"


class Component(Block):
    """A block with a ``type``, made into a working part by ``build``."""

    kind: ClassVar[str]
    type: str

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """What :class:`~mailpoller.core.errors.KeysMissing` would say of what is written, so that it is told beside
        the keys that every block of this class needs. ``written`` is not checked yet: it may be wrong in any way."""
        return {}

    def findings(self) -> Iterable[Finding]:
        """What is allowed in this block, as it is written, and yet probably wrong. Looks at its keys alone: at no
        network, no disk and no other block. Whoever overrules it passes on its parent's.

        Not asked of a block that lacks what it needs. One that is disabled is asked like all others."""
        return ()


@record
class Preparation:
    """What an operator who may do it makes on a server before a queue can hold anything.

    ``name``: what is made, for people. ``statements``: in the server's own language, with the rights that the service
    needs, for whoever has a client of that. ``make``: does it as the role of the block, apart from those rights; does
    nothing where it is there already, and raises :class:`~mailpoller.core.errors.TransientError` with the reason.
    """

    name: str
    statements: str
    make: Callable[[], None]


class SinkConfig(Component):
    """A queue: where messages go."""

    kind: ClassVar[str] = "sinks"

    payload: Payload = "parsed"
    """What the event holds: ``summary`` (headers and metadata), ``parsed`` (summary, text, HTML, attachment digests) or
    ``raw`` (summary and the octets)."""
    raw: bool = False
    """Add the octets to any payload level."""
    retry_interval: Duration = timedelta(seconds=10)
    """How long to wait after a failure before the queue is tried again; grows to thirty times this while it keeps
    failing."""
    blobs_above: Size | None = None
    """Raw octets of a larger message are put into ``blobs:``, and the event names them (``data.raw_blob``) instead of
    holding them. Without it they go with the event, whatever their size."""
    formerly: str | None = None
    """The queue's earlier name: what was brought there, or is on its way there, counts for this one."""

    def preparation(self, name: str) -> Preparation | None:
        """What has to be made beforehand on the server of the queue ``name``; None if it is made by itself, or by
        other means."""
        return None

    def channel(self, name: str) -> Channel | None:
        """Where and as what consumers take what the queue ``name`` holds; None where no program takes it, or nobody
        can tell."""
        return None

    def events_kept(self) -> timedelta | None:
        """How long the queue's server keeps an event at most, as far as the keys tell: so long a blob that one names
        is wanted. None if it keeps them until somebody takes them, or the keys do not tell."""
        return None

    def fed_folders(self) -> Iterable[tuple[Account, str]]:
        """The folders of a mailbox that it puts mail into: its account and their keys, as a source has them
        (:meth:`SourceConfig.polled_account`, :meth:`SourceConfig.folder_key`). None where
        it does not, or the keys do not tell. So that nobody polls what is put there."""
        return ()

    @property
    def keeps_header(self) -> bool:
        """True if it sends mail under the header of whoever wrote it, so that its outgoing must be able to."""
        return False

    @property
    def carries_octets(self) -> bool:
        """True if whoever reads the queue gets the octets of a message, attachments and all."""
        return self.octets_wanted

    @property
    def takes_events(self) -> bool:
        """True if what it holds is the event, also one that is about no message that came."""
        return False

    @property
    def octets_wanted(self) -> bool:
        """True if the queue is to hold the raw octets."""
        return self.raw or self.payload == "raw"

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink of the queue ``name``. Opens nothing; raises :class:`ConfigError` if it cannot ever work."""
        raise NotImplementedError


class BlobsConfig(Component):
    """Where raw octets lie that events refer to."""

    kind: ClassVar[str] = "blobs"

    keep: Duration = timedelta(days=30)
    """How long a blob is kept after the last event that names it was brought to a queue. Longer, as long as a message
    is not settled, or a queue that can be looked into (``sqlite``, ``postgres``, ``redis``) still holds its event."""

    def build(self, runtime: Runtime) -> BlobStore:
        """The store. Opens nothing."""
        raise NotImplementedError


class LedgerConfig(Component):
    """The ledger: the durable record of claims, receipts and outcomes."""

    kind: ClassVar[str] = "ledgers"

    async def open(self, clock: Clock) -> Ledger:
        """Lock and open the ledger, migrating it if it is older.

        Raises :class:`~mailpoller.core.errors.LedgerUnavailable` naming the holder if another process has it.
        """
        raise NotImplementedError


def _one_line(written: str) -> str:
    if not written.isprintable():
        raise ValueError("must be on one line")
    return written


class Signature(Block):
    """What is put below a reply."""

    text: Annotated[str, StringConstraints(max_length=10_000)] = ""
    """Below ``-- `` in the text."""
    html: Annotated[str, StringConstraints(max_length=100_000)] = ""
    """At the end of the HTML, as it is."""


class Watermarks(Block):
    """How much may wait, and how long, before somebody is told."""

    high: int | None = Field(default=None, ge=1)
    """So many messages that wait are an alarm: on the server of a mailbox, in a queue that can tell how many it
    holds, or in the outbox of an outgoing."""
    low: int | None = Field(default=None, ge=0)
    """The alarm is over when no more than so many wait. Half of ``high``, if it is left out."""
    max_age: Duration | None = None
    """A message that has waited for longer is an alarm, too: by the server's date, or since it is in the queue or
    was accepted to be sent."""
    alert_to: MailAddress | MailAddresses | None = None
    """Who is told by mail, in place of those of ``alerts``, by whose outgoing it is sent."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be less than high")
        return self

    @property
    def addressees(self) -> tuple[str, ...]:
        """Those of ``alert_to``."""
        return (self.alert_to,) if isinstance(self.alert_to, str) else tuple(self.alert_to or ())

    @property
    def floor(self) -> int:
        """The number at which the alarm is over."""
        high = self.high or 0
        return high // 2 if self.low is None else min(self.low, max(0, high - 1))

    def over(self, base: Watermarks | None) -> Watermarks:
        """These, and what they do not say from ``base``."""
        said = {key: getattr(self, key) for key in self.model_fields_set}
        return self if base is None else base.model_copy(update=said)


class OutgoingConfig(Component):
    """An outgoing identity: how mail is sent."""

    kind: ClassVar[str] = "outgoings"

    enabled: bool = True
    """false keeps the definition and sends nothing. Such an outgoing may lack what it needs, and be extended by
    others."""
    extends: str | None = None
    """Copy the settings of another outgoing; what is said here overrules them."""
    default: bool = False
    """Mail leaves by this one wherever no outgoing is named, if there are several."""
    formerly: str | None = None
    """The outgoing's earlier name: what waits to be sent by it is sent by this one."""
    environment: str | None = None
    """Send what people and programs hand in only where the service runs in this environment. An outgoing without one
    sends it only in ``production``. Quarantine and alerts are sent in any."""
    from_: MailAddress | None = Field(default=None, alias="from")
    """Whom replies are from, in the header and in the envelope; the same as ``sender`` if it is not given."""
    display_name: Annotated[str, AfterValidator(_one_line), StringConstraints(max_length=200)] = ""
    """The name beside that address."""
    reply_to: MailAddress | None = None
    """Where answers to replies are to go, if not to that address."""
    signature: Signature | None = None
    """What is put below replies that are made from text or HTML."""
    verp: MailAddress | None = None
    """The envelope sender of replies is this address, which is polled, with a signed token behind a plus sign, by which
    each bounce tells which mail it is about. Needs a key in ``conversations``."""
    quote: Quote = "none"
    """What of the message that is answered stands below a reply that is made from text or HTML, unless the entry says
    so itself: ``none``, ``top`` (what was written for it, without what it quotes) or ``full``. From ``blobs``; of a
    message whose octets are not kept there nothing."""
    divert_to: MailAddress | None = None
    """Everybody's replies go to this address instead: for tests. Whom a reply was for is in its ``X-Diverted-To``,
    ``X-Diverted-Cc``."""
    rate: int | None = Field(default=None, ge=1, le=100_000)
    """Replies a minute at most."""
    watermarks: Watermarks | None = None
    """Overrules the top-level ``watermarks`` for what waits to be sent by this outgoing; merged into it key by key."""

    @property
    def has_envelope(self) -> bool:
        """True if whom a mail goes to and who sends it is said beside its header, which may name others."""
        return True

    def sends_null(self) -> bool:
        """True if it can send with the null envelope sender."""
        return bool(getattr(self, "null_sender", False))

    def author(self) -> Sender:
        """Whom replies are from."""
        signature = self.signature or Signature()
        address = self.from_ or str(getattr(self, "sender", ""))
        return Sender(address, self.display_name, self.reply_to or "", signature.text, signature.html, self.quote)

    def build(self, name: str, runtime: Runtime) -> Outgoing:
        """The outgoing. Opens nothing."""
        raise NotImplementedError


MailboxPriority = Literal["high", "medium", "low"]

StartLiteral = Annotated[
    str,
    BeforeValidator(lambda value: _check_start(value)),
    WithJsonSchema({"type": "string", "pattern": r"^(now|unseen|all|since:\d{4}-\d{2}-\d{2})$"}),
]


def _check_start(value: object) -> str:
    text = value if isinstance(value, str) else ""
    if text in ("now", "unseen", "all"):
        return text
    try:
        date.fromisoformat(text.removeprefix("since:") if text.startswith("since:") else "")
    except ValueError:
        raise ValueError("start is now, unseen, all or since:YYYY-MM-DD") from None
    return text
