"""One attempt to log in by SASL (RFC 4422), and how its messages are carried on the wire."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Protocol

from mailpoller.core.errors import MailpollerError, TransientError

CHALLENGE_LIMIT = 6 << 10
"""Characters of a challenge that are looked at."""


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


class Mechanism:
    """What all mechanisms share: the server speaks first, and asks once."""

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


class ByPassword(Mechanism):
    """A mechanism that has the password."""

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password

    @property
    def secrets(self) -> Sequence[str]:
        first = self.first()
        return (self._password, *(() if first is None else (first.decode("utf-8", "replace"),)))


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
