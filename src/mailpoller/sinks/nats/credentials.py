"""Logging in with a key pair: a file of credentials (a JWT and a seed), or the seed of an nkey alone.

NATS documentation, "NKeys" and "JWTs": the server's greeting has a nonce, which the client signs (Ed25519); neither the
seed nor anything made of it but that signature is sent.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import nkeys

from mailpoller.core.errors import ConfigError
from mailpoller.core.literals import Secret

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+([A-Za-z0-9_\-.]+)\s")
_SEED = re.compile(r"\bSU[A-Z2-7]{56}\b")
"""A user's seed: so many characters are the 32 octets of a key, so that the library has nothing to refuse."""


def login_of(credentials: Secret | None, nkey: Secret | None, guard: Callable[[], None]) -> dict[str, Any]:
    """The library's options. ``guard`` raises if the line is not one to log in over: it is asked before anything is
    sent there, and before anything is signed that somebody in between could use.

    Raises :class:`ConfigError` naming the place, if what is kept there is of no use.
    """

    def nothing() -> str:
        guard()
        return ""

    if nkey is not None:
        # The library asks for a token beside the signature, and before it sends either.
        return {"nkeys_seed_str": _seed(nkey), "token": nothing}
    if credentials is None:
        return {}
    kept = credentials

    def jwt() -> bytearray:
        guard()
        return bytearray(_jwt(kept).encode())

    def signature(nonce: str) -> bytes:
        guard()
        return base64.b64encode(nkeys.from_seed(bytearray(_seed(kept).encode())).sign(nonce.encode()))

    _jwt(kept), _seed(kept)  # now, where who connects hears of it
    return {"user_jwt_cb": jwt, "signature_cb": signature, "token": nothing}


def _jwt(kept: Secret) -> str:
    found = _JWT.search(kept.reveal() + "\n")
    if found is None:
        raise ConfigError(f"{kept} holds no credentials: a file as nsc writes it, with BEGIN NATS USER JWT")
    return found[1]


def _seed(kept: Secret) -> str:
    found = _SEED.search(kept.reveal())
    if found is None:
        raise ConfigError(f"{kept} holds no seed of a user: 58 characters, SU…")
    return found[0]
