"""The mechanisms that need no proof of the server: by password, by token, by certificate."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import orjson

from mailpoller.wire.redaction import spoken
from mailpoller.wire.sasl.exchange import ByPassword, Mechanism


class Plain(ByPassword):
    """PLAIN (RFC 4616): user and password in UTF-8, so any password."""

    name = "PLAIN"

    def first(self) -> bytes:
        return f"\0{self._user}\0{self._password}".encode()


class Login(ByPassword):
    """LOGIN, which no RFC defines: the server prompts for a name, then for a password; the prompts' words vary."""

    name = "LOGIN"

    def __init__(self, user: str, password: str) -> None:
        super().__init__(user, password)
        self._left = [user, password]

    async def answer(self, challenge: bytes) -> bytes:
        if not self._left:
            return await super().answer(challenge)
        return self._left.pop(0).encode()


class CramMd5(ByPassword):
    """CRAM-MD5 (RFC 2195): the password does not cross the line, but the server has to keep it."""

    name = "CRAM-MD5"
    readable = False
    _answered = False

    async def answer(self, challenge: bytes) -> bytes:
        if self._answered:
            return await super().answer(challenge)
        self._answered = True
        digest = hmac.new(self._password.encode(), challenge, hashlib.md5).hexdigest()
        return f"{self._user} {digest}".encode()


class _ByToken(Mechanism):
    """A refusal comes as a challenge that holds JSON; only after it was answered does the server say no."""

    _farewell = b""
    _refused = False

    def __init__(self, user: str, token: str) -> None:
        self._user = user
        self.token = token

    @property
    def secrets(self) -> Sequence[str]:
        first = self.first()
        return (self.token, *(() if first is None else (first.decode("utf-8", "replace"),)))

    async def answer(self, challenge: bytes) -> bytes:
        if self._refused:
            return await super().answer(challenge)
        self._refused = True
        self.explanation = _explained(challenge, self.secrets)
        return self._farewell


class XOAuth2(_ByToken):
    """XOAUTH2, Google's and Microsoft's. ``user`` may be a shared mailbox that the token's owner may use."""

    name = "XOAUTH2"

    def first(self) -> bytes:
        return f"user={self._user}\1auth=Bearer {self.token}\1\1".encode()


class OAuthBearer(_ByToken):
    """OAUTHBEARER (RFC 7628). ``host`` and ``port``: where we have connected to."""

    name = "OAUTHBEARER"
    _farewell = b"\1"

    def __init__(self, user: str, token: str, host: str, port: int) -> None:
        self._host, self._port = host, port
        super().__init__(user, token)

    def first(self) -> bytes:
        name = self._user.replace("=", "=3D").replace(",", "=2C")
        return f"n,a={name},\1host={self._host}\1port={self._port}\1auth=Bearer {self.token}\1\1".encode()


class External(Mechanism):
    """EXTERNAL (RFC 4422 appendix A): the client certificate of the TLS connection says who we are.

    ``user``: whose mailbox it is to be; empty leaves that to the certificate.
    """

    name = "EXTERNAL"
    readable = False
    secrets: Sequence[str] = ()

    def __init__(self, user: str = "") -> None:
        self._user = user

    def first(self) -> bytes:
        return self._user.encode()


def _explained(challenge: bytes, hidden: Sequence[str]) -> str:
    """``{"status": "400", "schemes": "Bearer", "scope": "…"}`` in words; Microsoft and Google send base64 JSON, RFC
    7628 defines it."""
    try:
        found = orjson.loads(challenge)
    except orjson.JSONDecodeError:
        return spoken(challenge.decode("utf-8", "replace"), hidden)
    if not isinstance(found, dict):
        return ""
    told = [f"{key} {found[key]}" for key in ("status", "scope", "schemes") if isinstance(found.get(key), str | int)]
    return spoken(", ".join(told), hidden)
