"""Trace fields (RFC 5321 section 4.4): which of them our own servers wrote, and which a stranger may have.

Every server puts its fields before those that are there, so what is ours stands on top. Where that ends, only what a
server has seen for itself tells: the address that spoke to it, or a name that it has verified; never the name that
the peer gave.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from mailpoller.core.authentication import Trust

CONSIDERED = 2000
"""Characters of a field that are looked at."""
HOPS = 50
"""Received fields that are looked at."""

_SAID = re.compile(r"helo=\S*+|\(helo [^()]*+\)|ident=\S*+")
"""What the peer said of itself, as Exim and qmail note it."""
_ADDRESS = re.compile(r"[\[(](?:ipv6:)?([0-9a-f.:]{2,45}+)(?:%\w{1,16})?[\])]")
_MAY_BE_PRIVATE = re.compile(r"[\[(](?:ipv6:)?(?:1(?:0|27|72|92)\.|[:f])")
"""A quick look that leaves out most addresses of strangers."""
_VERIFIED = re.compile(r"\(([a-z0-9_.-]{1,255}+) \[[^\[\]]{2,60}+\]\)")
"""Name and address, as Postfix, Sendmail and Haraka note what they have looked up both ways."""
_LABELS_OF_A_DOMAIN = 3
_LONGEST_PUBLIC_LABEL = 3
_PEERS_CONSIDERED = 400
_RFC_1918_MIDDLE = ip_network("172.16.0.0/12")


def own_until(headers: Sequence[tuple[str, str]], received: Sequence[int], trust: Trust) -> int:
    """Before which field of ``headers`` all were written by our own servers, or by the one that took the message from
    a stranger: the index of the first foreign Received. 0 if no server says that it received it.

    ``received``: where the Received fields stand. The topmost was written by whoever has the mailbox.
    """
    if not received:
        return 0
    home: tuple[str, ...] = ()
    for place, at in enumerate(received[:HOPS]):
        value = f" {headers[at][1][:CONSIDERED].lower()} "  # unfolded: all white space in it are spaces
        by = value.find(" by ")
        receiver = value[by + 4 :].split(None, 1)[0].rstrip(".;") if by >= 0 and value[by + 4 :].strip() else ""
        if not place:
            home = tuple([f".{_domain(name)}" for name in (receiver, *trust.ids) if "." in name])
        if not receiver or not _is_internal(value[:by], receiver, home, trust):
            return received[place + 1] if place + 1 < len(received) else len(headers)
    return received[min(len(received), HOPS) - 1]


@lru_cache(maxsize=1024)  # the same servers, mail after mail
def _is_internal(value: str, receiver: str, home: tuple[str, ...], trust: Trust) -> bool:
    """True if the peer that ``receiver`` was given this by was one of ours, too; ``value`` ends before it is named."""
    if not value.startswith(" from "):
        return not value.strip()
    if trust.gates and receiver.endswith(trust.gates):
        return False
    _, said, *seen = f"{value} -".split(None, 2)
    if trust.inside and receiver.endswith(trust.inside) and said.endswith(trust.inside):
        return True
    noted = seen[0][:_PEERS_CONSIDERED] if seen else ""
    if _MAY_BE_PRIVATE.search(noted) is not None:
        addresses = _ADDRESS.findall(_SAID.sub("", noted))
        if addresses and all(_is_private(address) for address in addresses):
            return True
    if not any(domain in f".{noted}" or domain[1:] in noted for domain in home) or "may be forged" in noted:
        return False
    verified = _VERIFIED.findall(noted)
    return bool(verified) and f".{verified[-1]}".endswith(home)


@lru_cache(maxsize=1024)
def _is_private(address: str) -> bool:
    try:
        found: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    # What Python calls private holds more: addresses of documentation, for one.
    if isinstance(found, IPv4Address):
        return found.packed[0] in (10, 127) or found.packed[:2] == b"\xc0\xa8" or found in _RFC_1918_MIDDLE
    return found.is_loopback or found.is_link_local or found.packed[0] in (0xFC, 0xFD)


@lru_cache(maxsize=256)
def _domain(name: str) -> str:
    """The domain that a server shares with those beside it; its own name if that would be a whole registry's."""
    name = name.rstrip(".;")
    labels = name.split(".")
    if len(labels) < _LABELS_OF_A_DOMAIN or labels[-1].isdigit():
        return name
    if (
        len(labels) == _LABELS_OF_A_DOMAIN and len(labels[2]) == len("uk") and len(labels[1]) <= _LONGEST_PUBLIC_LABEL
    ):  # co.uk, com.au
        return name
    return ".".join(labels[1:])
