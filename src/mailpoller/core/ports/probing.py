"""What a live probe does with a plug-in, and what a plug-in tells of its own end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from mailpoller.core.record import record


@record
class Stage:
    """One step of a live probe, as ``check --live`` shows it.

    ``name``: dns, tcp, tls, login, folder, message, disposition … ``advice`` says what a sysadmin can do, in the
    provider's own terms; it is empty when ``ok``.
    """

    name: str
    ok: bool
    elapsed: timedelta
    detail: str = ""
    advice: str = ""


@runtime_checkable
class Probed(Protocol):
    """A sink that has more to say to an operator than whether it takes mail."""

    def probe(self) -> AsyncIterator[Stage]:
        """What ``check --live`` shows, in place of :meth:`Sink.check`'s one word. Delivers nothing."""


@runtime_checkable
class Expiring(Protocol):
    """A source or an outgoing whose login is known to end on a date."""

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What ends when (aware UTC), as far as it is known now. Each is named in words that tell it from every other
        one (``the client secret of … at …``), without a secret.
        May read small files, so it is called in a thread."""
