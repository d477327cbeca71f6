"""Literals of the configuration that are about the network: names of hosts, and lengths of time that something is
waited for."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator

from mailpoller.core.literals import Duration


def _host(written: str) -> str:
    bare = written.removeprefix("[").removesuffix("]")
    try:
        ip_address(bare)
    except ValueError:
        if not bare or not all(one.isalnum() or one in "-._" for one in bare):
            raise ValueError("a host is a name or an address, without port, scheme or user") from None
        try:
            bare.encode("idna")
        except UnicodeError:
            raise ValueError("between the dots of a host's name are 1 to 63 characters") from None
    return bare


HostName = Annotated[str, AfterValidator(_host)]
"""A name or an address alone; brackets around an IPv6 address are taken off."""


def _wait(written: timedelta) -> timedelta:
    if written < timedelta(milliseconds=100):
        raise ValueError("this is at least 100ms")
    return written


Wait = Annotated[Duration, AfterValidator(_wait)]
"""How long, or how often, somebody is waited for: long enough for a network, and for our own processor."""
