"""One relay: as many connections as are allowed, kept for a while; and the probe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from time import monotonic

from mailpoller.core.errors import CredentialsRefused, MailpollerError
from mailpoller.core.ports import Mail, Stage
from mailpoller.transport.oauth import TokenRefused
from mailpoller.transport.retry import briefly
from mailpoller.transport.smtp.line import Line
from mailpoller.transport.smtp.terms import NotCarried, RelayCut, RelaySettings
from mailpoller.transport.smtp.transaction import transact


class Relay:
    """Sends mail through one relay, over at most ``connections`` connections, each kept open for ``keep`` after its last mail."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.connections)
        self._idle: list[Line] = []

    async def send(self, mail: Mail) -> str:
        """Return the relay's answer once it has taken the mail for at least one recipient.

        Recipients that were refused while another was accepted are named in the answer and logged: who wants the mail
        has it, and a second try would send it twice. Raises :class:`RelayUnavailable`, :class:`CredentialsRefused`,
        :class:`NotCarried`, :class:`MessageRejected`, or :class:`TransientError` for this mail alone.
        """
        if len(mail.octets) > self._settings.max_size:
            limit = self._settings.max_size
            raise NotCarried(f"{len(mail.octets)} octets are more than max_size, {limit}", lacks="SIZE", limit=limit)
        async with self._slots:
            return await briefly(lambda: self._send(mail), on=RelayCut)

    async def _send(self, mail: Mail) -> str:
        line = self._kept()
        try:
            if line is None:
                line = Line(self._settings)
                await line.open()
            return await transact(line, mail)
        finally:
            if line is not None:
                self._keep(line)

    def _kept(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.retirement is not None:
                line.retirement.cancel()
            if line.ready:
                return line
            line.drop()
        return None

    def _keep(self, line: Line) -> None:
        """Keep the line if it stands between two mails; whatever was interrupted in the middle of one is dropped."""
        if not line.ready:
            line.drop()
            return
        self._idle.append(line)
        keep = self._settings.keep.total_seconds()
        line.retirement = asyncio.get_running_loop().call_later(keep, self._retire, line)

    def _retire(self, line: Line) -> None:
        self._idle.remove(line)
        line.retire()

    async def probe(self) -> AsyncIterator[Stage]:
        """Every stage up to the login, on a connection of its own; ends after the first that fails."""
        line = Line(self._settings)
        try:
            for name, step in line.steps():
                started = monotonic()
                try:
                    detail = await step()
                except MailpollerError as error:
                    elapsed = timedelta(seconds=monotonic() - started)
                    yield Stage(name, False, elapsed, str(error), _advice(name, self._settings, error))
                    return
                yield Stage(name, True, timedelta(seconds=monotonic() - started), detail)
            await line.quit()
        finally:
            line.drop()

    async def close(self) -> None:
        """End the kept connections; takes two seconds at most."""
        lines, self._idle = self._idle, []
        for line in lines:
            if line.retirement is not None:
                line.retirement.cancel()
        async with asyncio.TaskGroup() as group:
            for line in lines:
                group.create_task(line.quit(), name=f"quit {self._settings.place}")


def _advice(stage: str, settings: RelaySettings, error: MailpollerError) -> str:
    """What a sysadmin can do about a stage that failed."""
    if isinstance(error, TokenRefused):
        return error.advice or "Ask the provider's administrator with the words above."
    if (
        isinstance(error, CredentialsRefused)
        and settings.credentials is not None
        and settings.credentials.tokens is not None
    ):
        return _token_advice(settings.host.lower(), settings.credentials.username)
    if isinstance(error, CredentialsRefused):
        return "Check username and password; many providers want an app password, or have SMTP AUTH switched off."
    if stage == "dns":
        return "Check the spelling of host, and that this machine's resolver knows it."
    if stage == "tcp":
        return f"Check port {settings.port} and the firewalls between; submission is 587 (STARTTLS) or 465 (TLS), relays often 25."
    if stage == "tls" and settings.tls == "starttls-required":
        return "If the relay speaks TLS from the first octet (465), say tls: tls; if its certificate is your own, name ca_file or pin."
    if stage == "tls":
        return "If the relay wants STARTTLS (587), say tls: starttls-required; if its certificate is your own, name ca_file or pin."
    if stage == "greeting":
        return "Something else may answer on this port, or the relay does not want this machine; its log knows."
    return "Say tls: starttls-required, or tls: none if the line is safe, and check that the relay offers AUTH."


def _token_advice(host: str, username: str) -> str:
    """The provider gave a token and the relay does not take it."""
    if host.endswith(("office365.com", "outlook.com", "office365.us", "outlook.cn")):
        return (
            "The token is good, but not for sending. Switch authenticated SMTP on for this mailbox: Set-CASMailbox "
            f"{username} -SmtpClientAuthenticationDisabled $false. With client_credentials also: SMTP.SendAsApp granted, "
            "New-ServicePrincipal, and Add-RecipientPermission … -AccessRights SendAs."
        )
    return "The relay must trust this provider, and the token must name this user: check username and scopes."
