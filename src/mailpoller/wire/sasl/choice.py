"""Which mechanism is used: the strongest that both sides have, or the one that is pinned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal, get_args

from mailpoller.wire.sasl.exchange import Exchange
from mailpoller.wire.sasl.mechanisms import CramMd5, Login, OAuthBearer, Plain, XOAuth2
from mailpoller.wire.sasl.scram import ScramSha1, ScramSha256

PasswordMechanism = Literal["auto", "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"]
TokenMechanism = Literal["auto", "xoauth2", "oauthbearer"]

_BY_PASSWORD: Mapping[str, Callable[[str, str], Exchange]] = {
    "SCRAM-SHA-256": ScramSha256,
    "SCRAM-SHA-1": ScramSha1,
    "PLAIN": Plain,
    "LOGIN": Login,
    # Behind the others on purpose: over TLS it protects nothing more, and servers offer it that keep no password to
    # check it with.
    "CRAM-MD5": CramMd5,
}
"""The strongest first, for a line on which a secret may be sent."""


def by_password(
    offered: Collection[str], user: str, password: str, *, mechanism: PasswordMechanism = "auto", clear: bool
) -> Exchange | None:
    """The strongest mechanism that both sides have, or the one that ``mechanism`` pins, offered or not.

    ``offered``: the server's list, in upper case. ``clear``: a secret may be sent so that whoever
    listens can read it. None if the server offers nothing that may be used; the protocol may have a way of its own.
    """
    if mechanism != "auto":
        return _BY_PASSWORD[mechanism.upper()](user, password)
    for name, made in _BY_PASSWORD.items():
        exchange = made(user, password) if name in offered else None
        if exchange is not None and (clear or not exchange.readable):
            return exchange
    return None


def pinned(written: str) -> PasswordMechanism | None:
    """``auto`` or a mechanism of ours; None for a name that is a protocol's own command (``user``, ``apop``)."""
    known: dict[str, PasswordMechanism] = {one: one for one in get_args(PasswordMechanism)}
    return known.get(written)


def by_token(
    offered: Collection[str], user: str, token: str, host: str, port: int, *, mechanism: TokenMechanism = "auto"
) -> Exchange | None:
    """OAUTHBEARER, or XOAUTH2 where the server has only that, or the one that ``mechanism`` pins. None if the server
    offers neither."""
    if mechanism == "oauthbearer" or (mechanism == "auto" and "OAUTHBEARER" in offered):
        return OAuthBearer(user, token, host, port)
    return XOAuth2(user, token) if mechanism == "xoauth2" or "XOAUTH2" in offered else None
