"""How a message came to its mailbox: under which of its addresses, and what trusted servers found of its sender."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mailpoller.core.authentication import Trust
from mailpoller.core.message import Message
from mailpoller.mail.address import parse_addresses
from mailpoller.mail.understand.authentication import authenticated, read_results
from mailpoller.mail.understand.trace import CONSIDERED, own_until

_DELIVERY = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to")
_RECEIVED, _RESULTS = "received", "authentication-results"
_WANTED = frozenset((*_DELIVERY, _RECEIVED, _RESULTS))
_FOR = re.compile(r"\sfor\s++<?+([^<>\s;()@]++@[^<>\s;()@]++)>?+", re.IGNORECASE)
_FIELDS = 100
_ADDRESSES = 50


class Arrival:
    """Tells it of one mailbox's messages. ``addresses``: the mailbox's own; ``declared``: they are all it has, and not
    only what its login tells. ``trust``: whose word on senders is taken; None: nobody's."""

    def __init__(self, addresses: Sequence[str] = (), *, declared: bool = True, trust: Trust | None = None) -> None:
        self._own = {address.casefold(): address for address in reversed(addresses) if "@" in address}
        self._aliases = len(self._own) > 1
        self._primary = next((address for address in addresses if "@" in address), "")
        self._closed = declared and bool(self._own)
        self._trust = trust or Trust()
        self._trusts = trust is not None
        self._one = self._closed and not self._aliases and not self._trusts

    def note(self, message: Message) -> None:
        """Say of ``message`` where it arrived and who vouches for what. Never raises; bounded time."""
        if self._one and (named := self._named(message)):
            message.delivered_to = named  # whatever else is noted, it would be this one
            return
        headers = message.headers
        fields = _wanted(headers)
        own = own_until(headers, fields[_RECEIVED], self._trust) if _RECEIVED in fields else 0
        message.delivered_to = self._delivered_to(message, fields, own)
        if self._trusts and _RESULTS in fields:
            message.authentication = authenticated((headers[at][1] for at in fields[_RESULTS] if at < own), self._trust)

    def untrusted(self, message: Message) -> tuple[str, ...]:
        """The authserv-ids of servers that say something of the sender where our own servers write, and whose word is
        not taken; "" for one without an id. So that who sets up a mailbox sees whom he could trust."""
        headers = message.headers
        fields = _wanted(headers)
        own = own_until(headers, fields[_RECEIVED], self._trust) if _RECEIVED in fields else 0
        said = [read_results(headers[at][1]) for at in fields.get(_RESULTS, ())[:_FIELDS] if at < own]
        trusted = {*self._trust.ids, *([""] if self._trust.without_id else [])}
        return tuple(dict.fromkeys(by for by, results in said if results and by.lower() not in trusted))

    def _delivered_to(self, message: Message, fields: dict[str, list[int]], own: int) -> str | None:
        """One of the mailbox's addresses, as it is configured; or if they are not told, what its own server says."""
        known, other = "", None
        for noted in _noted(message.headers, fields, 0, own):
            found = self._known(noted)
            if found and found != self._primary:  # where it was put says less than which alias it was for
                return found
            known, other = known or found, other or noted
            if (known and not self._aliases) or (other and not self._own):
                break
        if known:
            return known
        if other and not self._closed:
            return other
        if named := self._named(message):
            return named
        if not self._own:
            return None
        foreign = _noted(message.headers, fields, own, len(message.headers))
        return next((found for one in foreign if (found := self._known(one))), None)

    def _named(self, message: Message) -> str:
        """The first address of ours to which the mail is written; or ""."""
        for named in (*message.to[:_ADDRESSES], *message.cc[:_ADDRESSES]):
            if found := self._known(named.address):
                return found
        return ""

    def _known(self, address: str) -> str:
        """The address of ours that this is, whatever its case and its detail behind a plus sign (RFC 5233); or ""."""
        folded = address.casefold()
        if found := self._own.get(folded):
            return found
        local, at, domain = folded.rpartition("@")
        return self._own.get(f"{local.partition('+')[0]}{at}{domain}", "") if "+" in local else ""


def _wanted(headers: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
    """Where the fields are that tell something of an arrival, by name in lower case."""
    fields: dict[str, list[int]] = {}
    for at, (name, _) in enumerate(headers):
        if (key := name.lower()) in _WANTED:
            fields.setdefault(key, []).append(at)
    return fields


def _noted(headers: Sequence[tuple[str, str]], fields: dict[str, list[int]], first: int, end: int) -> Iterator[str]:
    """The addresses that delivering servers noted between two fields, in the order in which they are asked."""
    for key in _DELIVERY:
        for at in fields.get(key, ())[:_FIELDS]:
            if first <= at < end:
                for one in parse_addresses(headers[at][1][:CONSIDERED])[0][:_ADDRESSES]:
                    if "@" in one.address:
                        yield one.address
    for at in fields.get(_RECEIVED, ())[:_FIELDS]:
        if first <= at < end and (found := _FOR.search(headers[at][1], 0, CONSIDERED)) is not None:
            yield found[1]
