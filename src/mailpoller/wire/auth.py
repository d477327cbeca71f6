"""How a mailbox or a relay is logged in to: the ``auth`` block, and who turns it into a SASL exchange."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Discriminator, Tag

from mailpoller.core.component import Block
from mailpoller.core.errors import CredentialsRefused, KeysMissing, MailpollerError, TransientError
from mailpoller.core.ports import Clock
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.oauth import OAuthAuth, ServiceName, TokenRefused
from mailpoller.wire.oauth.advice import token_not_taken
from mailpoller.wire.password import Password, Written
from mailpoller.wire.sasl.choice import PasswordMechanism, by_password, by_token, pinned
from mailpoller.wire.sasl.exchange import Exchange
from mailpoller.wire.sasl.mechanisms import External
from mailpoller.wire.tls import TlsMode

if TYPE_CHECKING:
    from mailpoller.wire.oauth.tokens import Token, TokenSource


class PasswordAuth(Block):
    """Log in with user name and password."""

    type: Literal["password"] = "password"
    mechanism: PasswordMechanism = "auto"
    """``auto`` takes the strongest that the server offers: SCRAM-SHA-256, SCRAM-SHA-1, PLAIN, LOGIN, CRAM-MD5. On a
    line without TLS only those that do not show the password, unless ``plain`` or ``login`` is named here or the
    server is this machine."""


class ExternalAuth(Block):
    """Log in by the TLS connection's own client certificate (SASL EXTERNAL); see ``client_certificate``."""

    type: Literal["external"]


class WithPassword(Protocol):
    """An ``auth`` block with a password: :class:`PasswordAuth`, or that of a protocol whose own commands are
    mechanisms too."""

    @property
    def type(self) -> Literal["password"]: ...

    @property
    def mechanism(self) -> str: ...


AnyAuth = WithPassword | OAuthAuth | ExternalAuth
"""What any protocol's ``auth`` may be."""


def kind_of(written: object) -> str:
    """The tag of an ``auth`` block, for a union whose ``password`` member has mechanisms of its own."""
    found = written.get("type", "password") if isinstance(written, dict) else getattr(written, "type", "password")
    return found if isinstance(found, str) else ""


Auth = Annotated[
    Annotated[PasswordAuth, Tag("password")]
    | Annotated[OAuthAuth, Tag("oauth2")]
    | Annotated[ExternalAuth, Tag("external")],
    Discriminator(kind_of),
]
"""``auth: {type: password | oauth2 | external, …}``; without a type it is ``password``."""


_NEEDED = {
    "password": ("password", "with OAuth 2.0 say auth: {type: oauth2, …} instead"),
    "external": ("client_certificate", "auth: {type: external} logs in by it"),
}


def lacking_beside(auth: object, around: Mapping[str, object]) -> dict[str, str]:
    """The keys that an ``auth`` block, written or made, needs and that the block around it does not have; see
    ``KeysMissing``."""
    key, more = _NEEDED.get(kind_of(auth), ("", ""))
    return {key: more} if key and around.get(key) is None else {}


def check_auth(auth: AnyAuth, *, password: Written, tls: TlsMode, client_certificate: Path | None) -> None:
    """What ``auth`` needs of the block around it. Raises ValueError, for a validator."""
    if auth.type != "password" and password is not None:
        raise ValueError(f"auth: {{type: {auth.type}}} logs in without a password: leave password away")
    if lacking := lacking_beside(auth, {"password": password, "client_certificate": client_certificate}):
        raise KeysMissing(lacking)
    if auth.type == "external" and tls == "none":
        raise ValueError("auth: {type: external} wants TLS: without it there is no certificate")


class Credentials:
    """One user's way into one server. ``service`` is the type of the block, ``host`` and ``port`` where it connects to.

    Nothing is read or asked before :meth:`exchange`.
    """

    def __init__(
        self,
        auth: AnyAuth,
        *,
        service: ServiceName,
        username: str,
        password: Written,
        host: str,
        port: int,
        state_directory: Path,
        clock: Clock,
    ) -> None:
        self.username = username
        self._auth = auth
        self._service = service
        self._password = Password(password)
        self._has_password = password is not None
        self._host = host
        self._port = port
        self._private = is_loopback(host)
        self._clock = clock
        self._lease: Token | None = None
        self.tokens: TokenSource | None = None
        """Where tokens come from; None if there is a password or a certificate."""
        if isinstance(auth, OAuthAuth):
            from mailpoller.wire.oauth.tokens import token_source

            self.tokens = token_source(auth.terms(service, username), state_directory, clock)

    @property
    def mechanism(self) -> str:
        """The mechanism that is pinned, or ``auto``."""
        return "auto" if isinstance(self._auth, ExternalAuth) else self._auth.mechanism

    async def exchange(self, offered: Collection[str], *, encrypted: bool) -> Exchange | None:
        """An exchange by the strongest mechanism that both sides have. ``offered``: the server's, in upper case.

        None if there is a password and the server offers nothing for it that may be used: the protocol's own command
        may do (:meth:`in_clear`). Raises :class:`TransientError` if there is no way, :class:`CredentialsRefused` if a
        token is refused us, :class:`ConfigError` if the password cannot be read.
        """
        match self._auth:
            case ExternalAuth():
                return External(self.username)
            case OAuthAuth():
                assert self.tokens is not None
                if not encrypted and not self._private:
                    raise TransientError("no token is sent in clear: this login wants TLS")
                lease = await self.tokens.lease()
                made = by_token(
                    offered, self.username, lease.value, self._host, self._port, mechanism=self._auth.mechanism
                )
                if made is None:
                    known = ", ".join(sorted(offered)) or "nothing"
                    raise TransientError(f"the server takes no tokens: it offers {known}")
                self._lease = lease
                return made
            case _ if (mechanism := pinned(self.mechanism)) is not None:
                clear = self._may_be_clear(encrypted)
                made = by_password(offered, self.username, await self._secret(), mechanism=mechanism, clear=clear)
                self._tried = "" if made is None else made.name
                return made
            case _:
                return None

    async def in_clear(self, *, encrypted: bool) -> tuple[str, str]:
        """User name and password, for a command that shows both to whoever listens. Raises :class:`TransientError` if
        nobody has allowed that."""
        if not self._has_password:
            raise TransientError("the server wants a password, and there is none")
        if not self._may_be_clear(encrypted):
            raise TransientError(
                "no password is sent in clear: the line has no TLS, and the server offers no login that hides the "
                "password. Use TLS, or allow it by name with auth: {mechanism: plain} or {mechanism: login}"
            )
        return self.username, await self._secret()

    async def ready(self) -> None:
        """Have the password that a program tells at hand before a connection is made, which is of no use without.
        Raises :class:`ConfigError`."""
        await self._password.ready()

    async def refused(self, exchange: Exchange | None) -> bool:
        """The server said no; without an exchange, to a password in clear. True if another try may do, with another
        token, or with the password that a program tells now; at most once for each of them that was taken before."""
        if self.tokens is None:
            return await self._password.refused()
        token = getattr(exchange, "token", None)
        return self.tokens is not None and isinstance(token, str) and await self.tokens.refused(token)

    def advice(self, error: MailpollerError) -> str:
        """What a sysadmin can do about a login that failed for its token, or perhaps for its mechanism; empty if it
        failed for anything else."""
        if isinstance(error, TokenRefused):
            return error.advice or "Ask the provider's administrator with the words above."
        if isinstance(error, CredentialsRefused) and self.tokens is not None:
            return token_not_taken(self._service, self._host, self.username)
        if (
            isinstance(error, CredentialsRefused)
            and self._tried.startswith(("SCRAM-", "CRAM-"))
            and self.mechanism == "auto"
        ):
            return (
                f"Check username and password. If they are right, the server offers {self._tried} and cannot do it, "
                f"as where it keeps "
                "only hashes of passwords: say auth: {mechanism: plain}, over TLS."
            )
        return ""

    def accepted(self) -> None:
        """The server took the login."""
        self._password.accepted()

    def renew_in(self) -> float | None:
        """Seconds until the session that was opened last should be renewed, for its token ends; None if it has none.

        Sessions that share a token do not all renew at once: each picks its moment when it is opened (:meth:`begun`).
        """
        return None if self._lease is None else max(0.0, self._renew_at - self._clock.monotonic())

    def begun(self) -> None:
        """The session is open: from now on :meth:`renew_in` is about it."""
        self.accepted()
        lease = self._lease
        if lease is not None:
            if self.tokens is not None:
                self.tokens.taken(lease.value)
            spread = random.random() if self._clock.monotonic() < lease.stale else 1.0
            self._renew_at = lease.stale + spread * (lease.renew - lease.stale)

    def ask_anew(self) -> None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        self._password.forget()
        if self.tokens is not None:
            self.tokens.ask_anew()

    def token_left(self) -> timedelta | None:
        """See :class:`~mailpoller.core.ports.Tokened`."""
        return None if self.tokens is None else self.tokens.left()

    def expiries(self) -> list[tuple[str, datetime]]:
        """What ends when (aware UTC), as far as anybody knows; see :meth:`TokenSource.expiries`."""
        return [] if self.tokens is None else self.tokens.expiries()

    def _may_be_clear(self, encrypted: bool) -> bool:
        return encrypted or self._private or self.mechanism in ("plain", "login", "user")

    async def _secret(self) -> str:
        return await self._password.text()

    _renew_at = float("inf")
    _tried = ""
