"""SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Literal

from mailpoller.core.errors import CredentialsRefused, TransientError
from mailpoller.wire.redaction import spoken
from mailpoller.wire.sasl.exchange import ByPassword

ITERATIONS = range(4096, 1_000_001)
"""How often SCRAM may hash the password: fewer help whoever listens (RFC 7677 section 4), more would keep us busy for
seconds."""


class _Scram(ByPassword):
    """SCRAM (RFC 5802), without channel binding: both sides prove that they know the password, and none shows it."""

    readable = False
    _hash: Literal["sha1", "sha256"]

    def __init__(self, user: str, password: str, *, nonce: str | None = None) -> None:
        super().__init__(user, password)
        self._nonce = nonce or secrets.token_urlsafe(24)
        name = prepared(user).replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={name},r={self._nonce}"
        self._signature: bytes | None = None
        self._proved = False

    @property
    def secrets(self) -> Sequence[str]:
        return (self._password,)

    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    async def answer(self, challenge: bytes) -> bytes:
        if self._signature is None:
            return await self._final(challenge)
        if self._proved:
            return await super().answer(challenge)
        self._verify(challenge)
        return b""

    def conclude(self) -> None:
        if not self._proved:
            raise TransientError(f"{self.name}: the server says yes without a proof that it knows the password")

    async def _final(self, challenge: bytes) -> bytes:
        """The client-final-message (section 5.1). Hashing takes milliseconds to a second, so a thread does it."""
        told = self._attributes(challenge)
        nonce, salt, count = told.get("r", ""), told.get("s", ""), told.get("i", "")
        if not nonce.startswith(self._nonce) or len(nonce) <= len(self._nonce) or "m" in told:
            raise TransientError(f"{self.name}: the server's first message is not one that we can use")
        if not (count.isascii() and count.isdigit()) or len(count) > 9 or int(count) not in ITERATIONS:
            raise TransientError(f"{self.name}: the server wants {spoken(count[:12])} iterations: outside what is safe")
        try:
            octets = b64decode(salt, validate=True)
        except (binascii.Error, ValueError):
            raise TransientError(f"{self.name}: the server's salt is no base64") from None
        password = prepared(self._password).encode()
        salted = await asyncio.to_thread(hashlib.pbkdf2_hmac, self._hash, password, octets, int(count))
        bare = f"c=biws,r={nonce}"
        whole = f"{self._bare},{challenge.decode('utf-8')},{bare}".encode()
        key = self._mac(salted, b"Client Key")
        proof = bytes(a ^ b for a, b in zip(key, self._mac(hashlib.new(self._hash, key).digest(), whole), strict=True))
        self._signature = self._mac(self._mac(salted, b"Server Key"), whole)
        return f"{bare},p={b64encode(proof).decode()}".encode()

    def _verify(self, challenge: bytes) -> None:
        told = self._attributes(challenge)
        if "e" in told:
            self.explanation = spoken(told["e"], self.secrets)
            raise CredentialsRefused(f"the server refuses the login: {self.explanation}")
        try:
            signature = b64decode(told.get("v", ""), validate=True)
        except (binascii.Error, ValueError):
            signature = b""
        assert self._signature is not None
        if not hmac.compare_digest(signature, self._signature):
            raise TransientError(f"{self.name}: the server does not know the password either: is it the right server?")
        self._proved = True

    def _attributes(self, message: bytes) -> dict[str, str]:
        try:
            parts = message.decode("utf-8").split(",")
        except UnicodeDecodeError:
            raise TransientError(f"{self.name}: the server's message is not UTF-8") from None
        return {part[0]: part[2:] for part in reversed(parts) if part[1:2] == "="}

    def _mac(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self._hash)


class ScramSha1(_Scram):
    """SCRAM-SHA-1 (RFC 5802)."""

    name = "SCRAM-SHA-1"
    _hash = "sha1"


class ScramSha256(_Scram):
    """SCRAM-SHA-256 (RFC 7677)."""

    name = "SCRAM-SHA-256"
    _hash = "sha256"


def prepared(text: str) -> str:
    """A name or password as SCRAM hashes it: SASLprep (RFC 4013). Raises :class:`CredentialsRefused` for what it
    forbids."""
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(" " if stringprep.in_table_c12(one) else one for one in text if not stringprep.in_table_b1(one))
    found = unicodedata.normalize("NFKC", mapped)
    if not found or any(table(one) for one in found for table in _FORBIDDEN):
        raise CredentialsRefused("the name or the password has characters that SCRAM forbids (RFC 4013)")
    if any(stringprep.in_table_d1(one) for one in found):  # right-to-left text (RFC 3454 section 6)
        ends = stringprep.in_table_d1(found[0]) and stringprep.in_table_d1(found[-1])
        if not ends or any(stringprep.in_table_d2(one) for one in found):
            raise CredentialsRefused("the name or the password mixes directions of writing as SCRAM forbids (RFC 4013)")
    return found


_FORBIDDEN = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
    stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
    stringprep.in_table_c9,
)  # fmt: skip
