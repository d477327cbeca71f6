"""Logging in over HTTP: Basic (RFC 7617), NTLM ([MS-NLMP] in RFC 4559's clothes), and tokens (RFC 6750).

NTLM logs in a connection, not a request: three messages on one connection, after which its requests need nothing more.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import new as new_hash
from typing import Any, Protocol

from mailpoller.core.errors import ConfigError, CredentialsRefused, TransientError
from mailpoller.core.literals import Secret
from mailpoller.core.record import record
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.http import Bearer
from mailpoller.wire.redaction import spoken

KNOWN = ("ntlm", "negotiate", "basic", "bearer")

_ROUNDS = 3
"""How often a handshake is begun anew because its connection was closed in the middle."""


@dataclass(frozen=True, slots=True, repr=False)
class Attempt:
    """How the next request goes out: with this Authorization (none if empty), and ``bare`` without its body, because
    it only carries a message of a handshake."""

    authorization: str = ""
    bare: bool = False


@record
class Challenge:
    """A refusal (401): scheme -> what stands behind it, of the schemes that we know. ``connection`` is any object
    that stands for the connection that it came on; ``certificate`` is the server's, DER, None without TLS."""

    schemes: dict[str, str]
    connection: object
    certificate: bytes | None = None


def read_challenge(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """scheme, in lower case -> the rest of it, of every WWW-Authenticate that we know."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name.lower() != b"www-authenticate":
            continue
        for part in value.decode("latin-1").split(","):
            scheme, _, rest = part.strip().partition(" ")
            if scheme.lower() in KNOWN:
                found.setdefault(scheme.lower(), rest.strip())
    return found


class Login(Protocol):
    """One way to log in, for one connection at a time."""

    async def begin(self) -> Attempt:
        """How a new exchange starts."""

    async def next(self, challenge: Challenge) -> Attempt:
        """How to go on after a refusal. Raises :class:`CredentialsRefused` when there is nothing more to try."""

    def accepted(self) -> None:
        """The last attempt was not refused."""


class PasswordLogin:
    """The strongest of NTLM, Negotiate and Basic that the server offers, or the one that is pinned."""

    def __init__(self, host: str, username: str, password: Secret, mechanism: str, *, secure: bool) -> None:
        self._host = host
        self._username = username
        self._password = password
        self._mechanism = mechanism
        self._open = secure or is_loopback(host)
        self._chosen: Login | None = None

    async def begin(self) -> Attempt:
        if self._chosen is not None:
            return await self._chosen.begin()
        if self._mechanism == "basic":
            return await self._choose("basic").begin()
        return Attempt()

    async def next(self, challenge: Challenge) -> Attempt:
        if self._chosen is not None:
            return await self._chosen.next(challenge)
        offered = challenge.schemes
        wanted = ("ntlm", "negotiate", "basic") if self._mechanism == "auto" else (self._mechanism,)
        for scheme in wanted:
            # Basic shows the password to whoever listens: without TLS only if somebody asked for it by name.
            if scheme in offered and (scheme != "basic" or self._open or self._mechanism == "basic"):
                return await self._choose(scheme).next(challenge)
        names = ", ".join(sorted(offered)) or "nothing that we know"
        hint = "; Basic is not used over http:// unless auth.mechanism names it" if "basic" in offered else ""
        raise CredentialsRefused(f"{self._host} offers {names} for logging in, and we want {' or '.join(wanted)}{hint}")

    def accepted(self) -> None:
        if self._chosen is not None:
            self._chosen.accepted()

    def _choose(self, scheme: str) -> Login:
        if scheme == "basic":
            self._chosen = _Basic(self._host, self._username, self._password)
        else:
            self._chosen = _Ntlm(self._host, self._username, self._password, scheme)
        return self._chosen


class _Basic:
    def __init__(self, host: str, username: str, password: Secret) -> None:
        self._host = host
        self._username = username
        self._password = password
        self._sent = False

    async def begin(self) -> Attempt:
        self._sent = True
        password = await asyncio.to_thread(self._password.reveal)
        pair = base64.b64encode(f"{self._username}:{password}".encode()).decode("ascii")
        return Attempt(f"Basic {pair}")

    async def next(self, challenge: Challenge) -> Attempt:
        if self._sent:
            raise refused(self._host, self._username)
        return await self.begin()

    def accepted(self) -> None:
        pass


class _Ntlm:
    """NTLM, by itself or inside Negotiate, bound to the TLS channel (RFC 5929 section 4): Exchange with Extended
    Protection refuses every login that is not, since it may have been relayed."""

    def __init__(self, host: str, username: str, password: Secret, scheme: str) -> None:
        self._host = host
        self._username = username
        self._password = password
        self._scheme = scheme
        self._context: Any = None
        self._connection: object = None
        self._answered = False
        self._begun = 0

    async def begin(self) -> Attempt:
        # The connection may be logged in already; if it is not, the server says so.
        self._context, self._answered, self._begun = None, False, 0
        return Attempt()

    async def next(self, challenge: Challenge) -> Attempt:
        token = challenge.schemes.get(self._scheme)
        if token is None:
            raise refused(self._host, self._username)
        if not token:
            if self._answered and challenge.connection is self._connection:
                raise refused(self._host, self._username)
            return await self._hello(challenge)
        if self._context is None:
            return await self._hello(challenge)
        if self._answered:
            raise refused(self._host, self._username)
        self._answered, self._connection = True, challenge.connection
        return self._attempt(self._step(token))

    def accepted(self) -> None:
        self._context = None

    async def _hello(self, challenge: Challenge) -> Attempt:
        self._begun += 1
        if self._begun > _ROUNDS:
            raise TransientError(f"{self._host}: the connection does not last for a login by {self._scheme.upper()}")
        password = await asyncio.to_thread(self._password.reveal)
        self._context = _context(self._host, self._username, password, self._scheme, challenge.certificate)
        self._answered = False
        return self._attempt(self._step(None), bare=True)

    def _attempt(self, token: bytes, *, bare: bool = False) -> Attempt:
        name = "NTLM" if self._scheme == "ntlm" else "Negotiate"
        return Attempt(f"{name} {base64.b64encode(token).decode('ascii')}", bare)

    def _step(self, token: str | None) -> bytes:
        try:
            said = None if token is None else base64.b64decode(token, validate=True)
            made: bytes | None = self._context.step(said)
        except Exception as error:  # it reads what the server sent: KeyError, struct.error and whatever else
            kind = type(error).__name__
            raise TransientError(f"{self._host}: the login by {self._scheme.upper()} cannot go on: {kind}") from None
        return made or b""


def _context(host: str, username: str, password: str, scheme: str, certificate: bytes | None) -> Any:
    spnego = _library()
    bindings = None
    if certificate is not None:
        from spnego.channel_bindings import GssChannelBindings

        bindings = GssChannelBindings(application_data=b"tls-server-end-point:" + certificate_hash(certificate))
    return spnego.client(
        username, password, hostname=host, service="http", protocol=scheme, channel_bindings=bindings
    )  # fmt: skip


def _library() -> Any:
    try:
        import spnego
    except ImportError:
        raise ConfigError("type: ews needs pyspnego for NTLM: pip install 'mailpoller[ews]'") from None
    return spnego


def certificate_hash(certificate: bytes) -> bytes:
    """The hash of a certificate (DER) that stands for its channel (RFC 5929 section 4.1): that of its signature, but
    SHA-256 in place of MD5 and SHA-1, and where the signature has none of its own."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        used = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
        name = "sha256" if used is None or used.name in ("md5", "sha1") else used.name
        return new_hash(name, certificate).digest()
    except (ValueError, UnsupportedAlgorithm):
        return new_hash("sha256", certificate).digest()


class TokenLogin:
    """A bearer token; one that is refused is replaced once."""

    def __init__(self, host: str, bearer: Bearer) -> None:
        self._host = host
        self._bearer = bearer
        self._token = ""
        self._refusals = 0

    async def begin(self) -> Attempt:
        self._refusals = 0
        return await self._again()

    async def next(self, challenge: Challenge) -> Attempt:
        self._refusals += 1
        if not await self._bearer.refused(self._token) or self._refusals > 1:
            said = spoken(challenge.schemes.get("bearer", ""), [self._token])
            raise CredentialsRefused(f"{self._host} refuses the token (HTTP 401){f': {said}' if said else ''}")
        return await self._again()

    def accepted(self) -> None:
        self._bearer.taken(self._token)

    async def _again(self) -> Attempt:
        self._token = await self._bearer.token()
        return Attempt(f"Bearer {self._token}")


def refused(host: str, username: str) -> CredentialsRefused:
    """The error for a login that the server does not take; HTTP gives no reason."""
    return CredentialsRefused(f"{host} refuses the login of {username} (HTTP 401)")
