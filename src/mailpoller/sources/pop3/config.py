"""The YAML block of a POP3 mailbox."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from mailpoller.core.component import Block, Finding, Runtime, StartLiteral
from mailpoller.core.delivery import LEAVE, Disposition
from mailpoller.core.literals import DispositionLiteral
from mailpoller.wire.auth import Credentials, ExternalAuth, check_auth, kind_of
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.oauth import OAuthAuth, provider_of
from mailpoller.wire.server import MailboxServer

_GOOGLE = {"pop.gmail.com", "pop.googlemail.com"}
SHORTEST_POLL = timedelta(minutes=1)
"""Every poll by POP3 is a login, and providers count those: once a minute is what most of them allow."""
SHORTEST_POLL_GOOGLE = timedelta(minutes=10)


class PasswordAuth(Block):
    """Log in with user name and password."""

    type: Literal["password"] = "password"
    mechanism: Literal["auto", "user", "apop", "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"] = "auto"
    """``user`` is USER and PASS, ``apop`` is APOP, the others are SASL (RFC 5034). ``auto`` takes the strongest that
    the server offers: SCRAM-SHA-256, SCRAM-SHA-1, PLAIN, LOGIN, CRAM-MD5, else USER. On a line without TLS only those
    that do not show the password, APOP among them, unless ``plain``, ``login`` or ``user`` is named here or the
    server is this machine."""


Auth = Annotated[
    Annotated[PasswordAuth, Tag("password")]
    | Annotated[OAuthAuth, Tag("oauth2")]
    | Annotated[ExternalAuth, Tag("external")],
    Discriminator(kind_of),
]


class Pop3Settings(MailboxServer):
    """What a mailbox of this type is told; see :class:`mailpoller.sources.pop3.Pop3Config`."""

    usual_ports: ClassVar = {"tls": 995, "starttls-required": 110, "starttls": 110, "none": 110}

    type: Literal["pop3"]
    port: int = Field(default=0, ge=0, le=65535)
    """0: 995 with ``tls: tls``, else 110."""
    username: str = Field(min_length=1)
    """Whom to log in as; with OAuth 2.0 it may be a shared mailbox that the token's owner may use."""
    auth: Auth = PasswordAuth()
    """How to log in: ``type: password`` if nothing is said, ``oauth2`` or ``external``."""
    disposition: DispositionLiteral = LEAVE
    """What is done on the server to a settled message: ``leave`` or ``delete``."""
    start: StartLiteral = "all"
    """What the very first run takes: ``all``, ``now`` (only what arrives later) or ``since:YYYY-MM-DD``. POP3 knows
    nothing of messages that were read, so ``unseen`` is ``all``."""

    @field_validator("username")
    @classmethod
    def _check_username(cls, username: str) -> str:
        if any(one in username for one in "\r\n\0"):
            raise ValueError("a user name has no line ends")
        return username

    @field_validator("disposition", "on_quarantine", "on_discard")
    @classmethod
    def _check_disposition(cls, disposition: Disposition | None) -> Disposition | None:
        if disposition is not None and (wish := impossible(disposition)):
            raise ValueError(f"POP3 cannot {wish}: a message there is left or deleted, nothing else")
        return disposition

    @model_validator(mode="after")
    def _check_auth(self) -> Self:
        check_auth(self.auth, password=self.password, tls=self.tls, client_certificate=self.client_certificate)
        return self

    @model_validator(mode="after")
    def _check_gmail(self) -> Self:
        # What was downloaded once is not shown again, settled or not: a crash in between would lose it.
        if self.host.lower() in _GOOGLE and not self.username.startswith("recent:"):
            raise ValueError(
                "Gmail shows a message by POP3 only until it was downloaded once, so that a crash would lose it: "
                "write username: recent:NAME, which shows thirty days of mail each time, or poll by IMAP"
            )
        return self

    def findings(self) -> Iterator[Finding]:
        """Those of every server; and how many logins it bears."""
        yield from super().findings()
        if self.poll_interval < SHORTEST_POLL_GOOGLE and provider_of(self.known_as) == "google":
            yield Finding(
                "poll_interval",
                "every poll by POP3 is a login, and Gmail locks out who logs in more often than every 10m; "
                "by IMAP new mail arrives at once",
            )
        elif self.poll_interval < SHORTEST_POLL and not is_loopback(self.known_as):
            yield Finding(
                "poll_interval", "every poll by POP3 is a login, and below 1m many servers refuse or throttle"
            )

    def credentials(self, runtime: Runtime) -> Credentials:
        """Who logs in, and how."""
        return self.login(self.username, self.auth, runtime)


def impossible(disposition: Disposition) -> str:
    """What ``disposition`` asks for and POP3 cannot do, in words; empty if all of it can be done."""
    wishes = {
        "mark a message as seen": disposition.seen,
        "flag a message": bool(disposition.flags),
        "move a message": disposition.move is not None,
    }
    return next((wish for wish, wanted in wishes.items() if wanted), "")
