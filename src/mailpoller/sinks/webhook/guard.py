"""Which addresses a webhook may lead to: what a name resolves to is another's choice, and it may choose us.

A literal address and ``localhost`` are the operator's own word. Whoever owns a name may let it resolve to this machine,
or to one behind our firewall, and change that between a check and the connection: so the address that was checked is
the one that is connected to.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from mailpoller.core.errors import TransientError
from mailpoller.wire.dial import connect, left_until
from mailpoller.wire.names import Address, resolve, written

IpAddress = IPv4Address | IPv6Address

_METADATA = frozenset(
    ip_address(one)
    for one in (
        "169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23",  # AWS, and most others
        "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16",  # Google, Alibaba, Oracle, Azure
    )
)  # fmt: skip
"""Where clouds hand out the keys of the machine that asks."""
_METADATA_NAMES = frozenset(("metadata.google.internal", "metadata", "instance-data"))
_NAT64 = ip_network("64:ff9b::/96")
"""RFC 6052 section 2.1: the last 32 bits are the IPv4 address that is reached."""
_NOT_GLOBAL = (ip_network("192.0.0.0/24"), ip_network("64:ff9b:1::/48"), ip_network("fec0::/10"))
"""Of the registries of RFC 6890 what Python's ``is_global`` lets pass, depending on its version."""


class AddressRefused(TransientError):
    """A name leads to where it must not lead."""


class Guard:
    """A way to a host (:class:`~mailpoller.wire.dial.Way`) that connects to no address which it has not checked.

    ``allow_private``: names may resolve to private addresses. Metadata services are never connected to.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def connect(self, host: str, port: int, *, seconds: float) -> socket.socket:
        """As :func:`~mailpoller.wire.dial.dial` promises. Raises :class:`AddressRefused` if every address of the host
        is one that is not to be connected to."""
        deadline = asyncio.get_running_loop().time() + seconds
        found = await resolve(host, port, seconds=seconds)
        allowed = [one for one in found if self._allows(host, one)]
        if found and not allowed:
            raise AddressRefused(
                f"{host} resolves to {written(found)}, which is no public address: if that is meant, "
                "say allow_private: true (metadata services of clouds are refused all the same)"
            )
        return await connect(allowed, f"{host} port {port}", seconds=left_until(deadline))

    def _allows(self, host: str, address: Address) -> bool:
        meant = effective(ip_address(str(address[2][0])))
        if is_metadata(meant):
            return False
        if host == "localhost":
            return meant.is_loopback  # it may be asked without TLS, for that reason
        return self._allow_private or literal(host) is not None or is_public(meant)


def literal(host: str) -> IpAddress | None:
    """The address that is written there; None for a name, also for one that resolvers take for an address (``127.1``,
    ``2130706433``)."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def effective(address: IpAddress) -> IpAddress:
    """Which address is reached: one of IPv4 may be wrapped into IPv6 (mapped, NAT64, 6to4, Teredo)."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)


def is_metadata(address: IpAddress) -> bool:
    """True if a cloud's metadata service may be there."""
    return IPv6Address(int(address)) in _METADATA if address.version == 6 else address in _METADATA


def is_metadata_name(host: str) -> bool:
    """True for a name under which a cloud has its metadata service."""
    return host.rstrip(".") in _METADATA_NAMES


def is_public(address: IpAddress) -> bool:
    """True if the address is one of the Internet's: neither ours, nor our network's, nor nobody's."""
    odd = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    listed = any(address.version == network.version and address in network for network in _NOT_GLOBAL)
    return address.is_global and not odd and not listed
