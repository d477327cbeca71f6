"""What a message is, from the moment it is listed until it is parsed. One type for each stage of knowledge."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NewType

from mailpoller.core.address import Address as Address
from mailpoller.core.authentication import Authentication
from mailpoller.core.body import Body, Contents
from mailpoller.core.classification import HUMAN, Classification, MailClass
from mailpoller.core.conversation import Conversation
from mailpoller.core.formfields import NO_FIELDS, Fields
from mailpoller.core.record import record
from mailpoller.core.said import Said
from mailpoller.core.spool import Octets
from mailpoller.core.standing import USUAL_STANDING, Standing

Position = NewType("Position", str)
"""How far a listing has got (UIDNEXT, delta link, history id …). Opaque: only the source that made it reads it."""


@record
class Account:
    """Where a mailbox is reached; a change under the same name begins a new epoch."""

    type: str
    host: str
    user: str


@record
class Folder:
    """One folder in one epoch.

    ``epoch`` names one lifetime of the folder's numbering, and holds all that decides it: protocol, host,
    user, and what the server counts with (UIDVALIDITY, RFC 9051 section 2.3.1.1).
    """

    mailbox: str
    name: str
    epoch: str


LONGEST_COUNTED = 70
"""Characters of a name that a server counts, at most."""


@record
class MessageRef:
    """A message as a listing shows it: a name, and what was said beside it, by which the name's bearer is known again.

    ``size`` in octets is the server's hint and may be wrong or missing. ``received`` is the server's own date
    (aware), where the listing tells it at no cost.
    """

    folder: Folder
    uid: str
    size: int | None = None
    received: datetime | None = None

    @property
    def given_once(self) -> bool:
        """The name is longer than one that is counted may be, so it is made anew for each message and never given
        twice: RFC 1939 section 7 bounds a UIDL at 70 characters, and a UID is a number."""
        return len(self.uid) > LONGEST_COUNTED


@record
class Survey:
    """What a mailbox shows behind a position at the start of a session, for the ledger to compare. All empty: nothing
    to compare.

    ``familiar``: names behind the position, the newest ones or more, with sizes and dates; those that the ledger
    knows must bear what they bore. ``strange``: names behind the position that the ledger should know; one that it
    does not know is a sign that the numbering was set back. ``whole``: ``familiar`` is all that the mailbox holds.
    ``names``: the uids of ``familiar``, where a source can look one up in less than a set of them all would take.
    ``position``: what is to be kept instead of the position that was given, or None. ``behind``: the mailbox's
    numbering ends before the position, so it is a replica that lags, or was set back: look again at every poll.
    """

    familiar: Sequence[MessageRef] = ()
    strange: Sequence[MessageRef] = ()
    whole: bool = False
    behind: bool = False
    position: Position | None = None
    names: Container[str] | None = None

    def shows(self) -> Container[str]:
        """The uids of ``familiar``."""
        return {ref.uid for ref in self.familiar} if self.names is None else self.names


@record
class Page:
    """A piece of a listing.

    Once the ledger has recorded every ref of this page and of those before it, the folder may be advanced to
    ``position``; None means that this page alone allows no advance. ``listed`` is how many refs the whole listing
    has. ``unwanted``: those that ``start`` leaves out, told by a source that has no position to remember them by; the
    ledger records them as skipped. ``gap``: where the folder holds messages that its listing does not show, as
    several sessions have seen it, in words; empty if there is none. ``partial``, on the last page: the listing
    contradicts what the server announced, so it lacks some; from what it lacks nothing is concluded, and it completes
    nothing.
    """

    refs: Sequence[MessageRef]
    position: Position | None = None
    listed: int | None = None
    unwanted: Sequence[MessageRef] = ()
    gap: str = ""
    partial: bool = False


@record
class Claim:
    """Our recorded right to work on a message, committed before it is fetched.

    ``suspect``: an earlier process died with this claim open; it is parsed alone. ``strikes``: how often it was alone
    and past its at-risk mark when the process died. ``route``: the queues it was judged for when its first receipt
    was recorded, else None; a retry goes to these. ``receipts``: queue -> the sink's word, of those that already hold
    it. ``generation``: see :func:`mailpoller.core.identity.mint_delivery_id`. ``attempts``: how often it could not be
    fetched, or its queue had trouble with it: decides nothing but how long it waits. ``failures``: how often it could
    not be processed; ``refusals``: how often a queue did not take it for its own sake. ``conversation``: the one that a
    queue was told it belongs to, "" for none, or None if nobody was told. What the machine is to blame
    for counts nowhere. ``identity``: that of the message that bore the name when it was fetched last, or None (see
    :attr:`Message.identity`). ``absent_at``: when a look missed it first, of the
    looks that have missed it since it was seen. ``doubts``: how often its octets came without a proper end, since
    ``doubted_at``. ``bearer``: how many other messages are known to have borne the name before. ``plain_id``: made
    before delivery ids held the identity. ``blame``: how many sessions were lost while it had been asked for and had
    not come. ``waits_for``: the queue that it was put off for, or None.
    """

    ref: MessageRef
    mid: str
    suspect: bool = False
    strikes: int = 0
    route: tuple[str, ...] | None = None
    receipts: Mapping[str, str] | None = None
    generation: int = 0
    attempts: int = 0
    identity: bytes | None = None
    absent_at: datetime | None = None
    doubts: int = 0
    doubted_at: datetime | None = None
    bearer: int = 0
    plain_id: bool = False
    blame: int = 0
    waits_for: str | None = None
    failures: int = 0
    refusals: int = 0
    conversation: str | None = None


@record
class RawMessage:
    """The octets of a fetched message, bit for bit, and what the server said about them.

    ``octets`` lie in memory or in a spool file; whoever holds the RawMessage last calls ``octets.close()``.
    ``truncated``: only the first ``octets.size`` octets were downloaded, so the digest is partial. ``received`` is
    the server's own date (INTERNALDATE), aware. ``doubt``: why these may not be the message's octets, or not all of
    them; empty if they came with a proper end. What is in doubt is neither delivered nor disposed of.
    """

    claim: Claim
    octets: Octets
    truncated: bool = False
    announced: int | None = None
    received: datetime | None = None
    flags: tuple[str, ...] = ()
    doubt: str = ""


@record
class Gone:
    """The answer to a claim whose message the mailbox does not show. It may be back at the next look."""

    claim: Claim


class Message:
    """A parsed message: header fields at once, the body when somebody first asks for it.

    Made by :mod:`mailpoller.mail.parser`, which never raises: what is wrong with the octets is in ``defects``
    (short constant words such as ``charset-unknown``) and nowhere else. All text is valid Unicode without lone
    surrogates. ``headers`` are (name as written, unfolded and RFC 2047-decoded value) in order of appearance.
    """

    __slots__ = (
        "_body", "_classification", "_classify", "_said", "_split", "authentication", "auto", "bcc", "cc",
        "conversation", "date", "delivered_to", "fields", "from_", "header_defects", "headers", "identity",
        "in_reply_to", "load", "looped", "message_id", "raw", "references", "reply_to", "return_path", "sender",
        "standing", "subject", "to",
    )  # fmt: skip

    def __init__(
        self,
        *,
        raw: RawMessage,
        headers: Sequence[tuple[str, str]],
        subject: str,
        from_: tuple[Address, ...],
        sender: tuple[Address, ...],
        to: tuple[Address, ...],
        cc: tuple[Address, ...],
        bcc: tuple[Address, ...],
        reply_to: tuple[Address, ...],
        return_path: str | None,
        message_id: str,
        in_reply_to: tuple[str, ...],
        references: tuple[str, ...],
        date: datetime | None,
        auto: str | None,
        looped: bool,
        header_defects: tuple[str, ...],
        load: Callable[[], Body],
        identity: bytes | None = None,
        classify: Callable[[Message], Classification] | None = None,
        split: Callable[[str], Said] | None = None,
    ) -> None:
        self.raw = raw
        self.headers = headers
        self.subject = subject
        self.from_ = from_
        self.sender = sender
        self.to = to
        self.cc = cc
        self.bcc = bcc
        self.reply_to = reply_to
        self.return_path = return_path
        """The envelope sender as the final server noted it: "" is the null sender, None means there was no such
        field."""
        self.message_id = message_id
        self.in_reply_to = in_reply_to
        self.references = references
        self.date = date
        self.auto = auto
        """Why this counts as automatic mail (RFC 3834), a short word, or None for a human's."""
        self.looped = looped
        """True if it bears our own loop header: mail that we sent ourselves."""
        self.header_defects = header_defects
        self.identity = identity
        """16 octets of the identifying header fields (Message-ID, Date, From, Subject, Received), by which a message
        is told from another one under the same name, whatever a server does to its size, date and status; None
        without such a field."""
        self.authentication: Authentication | None = None
        """What a trusted server found of the sender, once that was looked for; None: nobody whose word is taken says
        anything."""
        self.delivered_to: str | None = None
        """The address of the mailbox that it came to, once that was looked for; None if nothing tells."""
        self.conversation: Conversation | None = None
        """Which conversation it belongs to, once that was looked for."""
        self.fields: Fields = NO_FIELDS
        """What rules have set, and taken out of it, so far."""
        self.standing: Standing = USUAL_STANDING
        """What is said of the mailbox that it is judged for, once it is."""
        self.load = load
        """What reads the body."""
        self._body: Body | None = None
        self._classify = classify
        self._split = split
        self._said: Said | None = None
        self._classification: Classification | None = None

    @property
    def body(self) -> Body:
        """Parsed on first use and kept. Costs time in proportion to the message's size: large ones in a thread."""
        if self._body is None:
            self._body = self.load()
        return self._body

    @property
    def is_read(self) -> bool:
        """True if the body has been parsed."""
        return self._body is not None

    def take_body(self, body: Body) -> None:
        """What somebody else has read is the body."""
        self._body = body

    @property
    def closed(self) -> tuple[str, ...]:
        """The kinds of parts that are still to be opened for this message. A report is, if it is of that class; any
        archive might be one."""
        closed = self.body.closed
        if "report" in closed and self.classification.kind != "report":
            return tuple(kind for kind in closed if kind != "report")
        return closed

    def take_contents(self, contents: Contents) -> None:
        """What somebody has found in the parts that were closed."""
        self._body = self.body.opened(contents)

    def brings_back(self, id: str) -> None:
        """If it is a bounce, it is one of our mail of this id: whoever sent it was told so under our signature."""
        found = self.classification
        if found.bounce is not None:
            self._classification = replace(found, bounce=replace(found.bounce, envelope_id=id))

    @property
    def classification(self) -> Classification:
        """What kind of mail it is, and by what that is known; told when somebody first asks, and kept.

        The octets must still be open: of a report or a bounce the first of its parts are looked at.
        """
        if self._classification is None:
            self._classification = HUMAN if self._classify is None else self._classify(self)
        return self._classification

    @property
    def said(self) -> Said:
        """What of the text is the reply, what it quotes and what is signature; found when somebody first asks."""
        if self._said is None:
            text = self.body.text
            self._said = Said((0, len(text))) if self._split is None else self._split(text)
        return self._said

    def reclassify(self, kind: MailClass) -> None:
        """Call it a mail of another class, because a rule says so; what was known stays, behind the evidence
        ``rule``."""
        found = self.classification
        if found.kind != kind:
            self._classification = replace(found, kind=kind, subclass="", evidence=("rule", *found.evidence))

    @property
    def defects(self) -> tuple[str, ...]:
        """Defects of the header, then of the body if it has been parsed."""
        return self.header_defects if self._body is None else self.header_defects + self._body.defects

    def header(self, name: str) -> list[str]:
        """Every value of the header field ``name`` (any case), in order; empty if it has none."""
        wanted = name.lower()
        return [value for field, value in self.headers if field.lower() == wanted]
