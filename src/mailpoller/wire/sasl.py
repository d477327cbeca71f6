"""SASL (RFC 4422): one way to log in for IMAP, POP3 and SMTP, which only carry its messages in different words.

An :class:`Exchange` is one attempt to log in. The protocol sends ``AUTH`` with its :attr:`~Exchange.name`, then the
first message (along with the command where that is allowed, else as the answer to an empty challenge), then the
answer to each challenge, all in base64 (:func:`encoded`, :func:`decoded`); where an answer raises, it sends ``*`` and
then raises that. When the server says that we are in, it calls :meth:`~Exchange.conclude`. A further mechanism is one
class here and one line in a table.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import secrets
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol, get_args

import orjson

from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.wire.redaction import spoken

PasswordMechanism = Literal["auto", "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"]
TokenMechanism = Literal["auto", "xoauth2", "oauthbearer"]

CHALLENGE_LIMIT = 6 << 10
"""Characters of a challenge that are looked at."""
ITERATIONS = range(4096, 1_000_001)
"""How often SCRAM may hash the password: fewer help whoever listens (RFC 7677 section 4), more would keep us busy for
seconds."""


class Exchange(Protocol):
    """One attempt to log in, with one user's credentials in it. Lives no longer than the login; has no telling
    ``repr``."""

    name: str
    """As the protocols write it: ``PLAIN``, ``SCRAM-SHA-256``."""
    readable: bool
    """True if whoever listens on an unencrypted line learns the secret."""

    @property
    def secrets(self) -> Sequence[str]:
        """What must not be shown, should the server repeat it."""

    @property
    def explanation(self) -> str:
        """Why the server refuses, as far as its challenges told; empty if they did not."""

    def first(self) -> bytes | None:
        """The first message, which may be empty; None where the server speaks first."""

    async def answer(self, challenge: bytes) -> bytes:
        """The answer to a challenge, which may be empty: an empty line.

        Raises :class:`TransientError` if the server breaks the mechanism's rules, :class:`CredentialsRefused` if it
        does not know our password, or we cannot use it.
        """

    def conclude(self) -> None:
        """The server says that we are logged in. Raises :class:`TransientError` if it has not proved who it is where
        the mechanism wants that: then it must not be believed."""


class _Base:
    name: str
    readable = True
    explanation = ""

    def first(self) -> bytes | None:
        return None

    async def answer(self, challenge: bytes) -> bytes:
        raise TransientError(f"{self.name}: the server asks for more than the mechanism has")

    def conclude(self) -> None:
        pass

    def __repr__(self) -> str:
        return f"<{self.name}>"


class _ByPassword(_Base):
    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password

    @property
    def secrets(self) -> Sequence[str]:
        first = self.first()
        return (self._password, *(() if first is None else (first.decode("utf-8", "replace"),)))


class Plain(_ByPassword):
    """PLAIN (RFC 4616): user and password in UTF-8, so any password."""

    name = "PLAIN"

    def first(self) -> bytes:
        return f"\0{self._user}\0{self._password}".encode()


class Login(_ByPassword):
    """LOGIN, which no RFC defines: the server prompts for a name, then for a password; the prompts' words vary."""

    name = "LOGIN"

    def __init__(self, user: str, password: str) -> None:
        super().__init__(user, password)
        self._left = [user, password]

    async def answer(self, challenge: bytes) -> bytes:
        if not self._left:
            return await super().answer(challenge)
        return self._left.pop(0).encode()


class CramMd5(_ByPassword):
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


class _Scram(_ByPassword):
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


class _ByToken(_Base):
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


class External(_Base):
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


# --- which one -------------------------------------------------------------------------------------------------------
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


# --- on the wire -----------------------------------------------------------------------------------------------------
def encoded(message: bytes) -> str:
    """A message as IMAP, POP3 and SMTP carry it."""
    return b64encode(message).decode("ascii")


def initial(message: bytes) -> str:
    """A first message that goes along with the command: an empty one is written ``=`` (RFC 4954 section 4)."""
    return encoded(message) or "="


def decoded(line: bytes | str) -> bytes:
    """A challenge off the wire. Raises :class:`TransientError` if it is none."""
    text = (line.decode("ascii", "replace") if isinstance(line, bytes) else line).strip()
    if len(text) > CHALLENGE_LIMIT:
        raise TransientError("the server's challenge is larger than any mechanism's")
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise TransientError("the server's challenge is no base64") from None


async def answered(exchange: Exchange, challenge: bytes | str) -> str:
    """The answer to a challenge, both as they are on the wire. Raises what :meth:`Exchange.answer` does; whatever else
    a challenge makes anything raise is a :class:`TransientError` that names it, here and nowhere else."""
    try:
        return encoded(await exchange.answer(decoded(challenge)))
    except MailpollerError:
        raise
    except Exception as error:  # not its words: they may quote a secret
        kind = type(error).__name__
        raise TransientError(f"{exchange.name}: the server's challenge cannot be used ({kind})") from None


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
