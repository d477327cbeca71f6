"""Who may send as whom: identities, departments and intakes, as the configuration has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field

from mailpoller.core.body import Attachment
from mailpoller.core.component import Watermarks
from mailpoller.core.enclosures import Enclosures
from mailpoller.core.errors import EntryForbidden, EntryRefused
from mailpoller.core.record import record
from mailpoller.core.reply_charset import ReplyCharset
from mailpoller.core.sender import Sender


@record
class Identity:
    """An outgoing as what is handed in is sent by it.

    ``held``: why nothing is sent by it here, in words, or nothing. ``divert_to``: who gets everybody's mail, or
    nothing. ``rate``: mails a minute, None if there is no bound. ``lanes``: mails on their way at once.
    ``departments``: those of the mailboxes whose outgoing it is. ``null_sender``: it can send with the null envelope
    sender. ``watermarks``: of what waits for it; what they do not say is as for all. ``verp``: the address
    to which bounces come back, or nothing.
    """

    name: str
    sender: Sender
    held: str = ""
    divert_to: str = ""
    rate: int | None = None
    lanes: int = 2
    max_size: int = 50_000_000
    departments: frozenset[str] = frozenset()
    formerly: str = ""
    null_sender: bool = False
    watermarks: Watermarks | None = None
    verp: str = ""


@record
class Intake:
    """A way in. ``users``: the Unix users that may use it; none: everybody who reaches it. ``events``: the queue
    that is told what became of its mail; empty: nobody is. ``by_socket``: whoever has an entry brings it to the
    control socket.
    """

    name: str
    departments: tuple[str, ...]
    users: frozenset[str] = frozenset()
    events: str = ""
    by_socket: bool = True


@record
class Alias:
    """An address of a mailbox: by which identity and in which charset what came to it is answered."""

    identity: str
    charset: ReplyCharset | None = None


@record
class Answering:
    """A mailbox that can be answered from: by which identity, for which departments, in which charset (None: UTF-8),
    and with which attachments (None: without). ``by_address``: how what came to one of its addresses, in small
    letters, is answered otherwise."""

    identity: str
    departments: tuple[str, ...]
    charset: ReplyCharset | None = None
    enclosures: Enclosures | None = None
    by_address: Mapping[str, Alias] = field(default_factory=dict)

    @property
    def identities(self) -> frozenset[str]:
        """All of its own."""
        return frozenset((self.identity, *(one.identity for one in self.by_address.values())))

    def at(self, address: str) -> Alias:
        """How what came to this address is answered; the mailbox's own way for any that has none."""
        return self.by_address.get(address.casefold()) or Alias(self.identity, self.charset)


@record
class Senders:
    """All of them. ``defaults``: department -> the identity of its default mailbox. ``default_mailboxes``: department
    -> that mailbox."""

    identities: Mapping[str, Identity] = field(default_factory=dict)
    mailboxes: Mapping[str, Answering] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    intakes: Mapping[str, Intake] = field(default_factory=dict)
    default_mailboxes: Mapping[str, str] = field(default_factory=dict)

    def intake(self, name: str) -> Intake:
        """The intake by the control socket of this name, or the only one. Raises :class:`EntryRefused`."""
        open_ones = {one.name: one for one in self.intakes.values() if one.by_socket}
        if not open_ones:
            raise EntryRefused("no intake is configured: nothing can be handed in (intakes)")
        if not name and len(open_ones) == 1:
            return next(iter(open_ones.values()))
        if name not in open_ones:
            raise EntryRefused("there are several intakes: name one" if not name else "there is no such intake")
        return open_ones[name]

    def shares_room(self, identity: str) -> bool:
        """True if mail is handed in for other identities, too."""
        return any(one.departments and name != identity for name, one in self.identities.items())

    def tells(self, intake: str) -> bool:
        """True if this intake is told what became of its mail."""
        return (found := self.intakes.get(intake)) is not None and bool(found.events)

    def chosen(
        self, intake: Intake, *, identity: str, department: str, mailbox: str, delivered_to: str = ""
    ) -> Identity:
        """Whom an entry is from: by name, else that of the mailbox's address ``delivered_to``, else the mailbox's,
        else the department's, else that of the intake's only department. Raises :class:`EntryRefused` for whatever the
        intake may not use."""
        allowed = set(intake.departments)
        if department:
            if department not in allowed:
                raise EntryForbidden("this intake may not send for that department")
            allowed = {department}
        name = identity
        if mailbox:
            answering = self._answering(mailbox, allowed)
            own = answering.at(delivered_to).identity
            if not own:
                raise EntryRefused("that mailbox has no outgoing, so it cannot be answered from")
            name = name or own
        if not name:
            only = department or (intake.departments[0] if len(intake.departments) == 1 else "")
            name = self.defaults.get(only, "")
            if not name:
                raise EntryRefused("say an identity, a mailbox or a department: nothing tells whom this is from")
        found = self.identities.get(name)
        if found is None or not found.departments & allowed:
            raise EntryForbidden("this intake may not send by that identity: none of its departments holds it")
        return found

    def charset(self, identity: str, mailbox: str, delivered_to: str = "") -> ReplyCharset | None:
        """Of the mailbox's address; without a mailbox, of the first one or the first address whose outgoing it is."""
        if mailbox:
            return self.mailboxes[mailbox].at(delivered_to).charset
        own = [one.at("") for one in self.mailboxes.values()]
        own += [alias for one in self.mailboxes.values() for alias in one.by_address.values()]
        return next((one.charset for one in own if one.identity == identity), None)

    def objection(
        self, intake: Intake, identity: Identity, department: str, mailbox: str, attachments: Collection[Attachment]
    ) -> str:
        """Why these attachments may not go along, in words; "" if they may. The mailbox that is answered for says so;
        where there is none, or where the identity is not its own, the default mailboxes of all departments that the
        identity may be used for here."""
        asked = [mailbox] if mailbox else []
        if not mailbox or identity.name not in self.mailboxes[mailbox].identities:
            allowed = {department} if department else set(intake.departments)
            for one in sorted(identity.departments & allowed):
                if one not in self.default_mailboxes:
                    return f"there is no default mailbox of {one}, which could allow attachments (default_for)"
                asked.append(self.default_mailboxes[one])
        for name in asked:
            found = self.mailboxes[name].enclosures
            if found is None:
                return f"the mailbox {name} sends no attachments (outbound_attachments)"
            if said := found.objection(attachments):
                return said
        return ""

    def _answering(self, mailbox: str, allowed: set[str]) -> Answering:
        found = self.mailboxes.get(mailbox)
        if found is None or not allowed.intersection(found.departments):
            raise EntryForbidden("this intake may not answer for that mailbox: it serves none of its departments")
        return found
