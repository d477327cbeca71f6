"""One relay: as many connections as are allowed, kept for a while; and the probe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from mailpoller.core.errors import CredentialsRefused, MailpollerError
from mailpoller.core.ports import Answer, Mail, Stage
from mailpoller.core.tasks import TaskGroup
from mailpoller.wire.probe import Approach, stages
from mailpoller.wire.retry import briefly
from mailpoller.wire.smtp.inquiry import asked
from mailpoller.wire.smtp.line import Line
from mailpoller.wire.smtp.terms import NotCarried, RelayCut, RelaySettings
from mailpoller.wire.smtp.transaction import transact


class Relay:
    """Sends mail through one relay, over at most ``connections`` connections, each kept open for ``keep`` after its
    last mail."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.connections)
        self._idle: list[Line] = []

    async def send(self, mail: Mail) -> Answer:
        """Return the relay's answer once it has taken the mail for at least one recipient; it says for whom it did not.

        Raises, for the relay's or our sake, :class:`RelayUnavailable`, :class:`CredentialsRefused`, :class:`NotNow` and
        :class:`EnvelopeRefused`; for this mail's alone :class:`NotCarried`, and any other :class:`MessageRejected` or
        :class:`TransientError`.
        """
        if len(mail.octets) > self._settings.max_size:
            limit = self._settings.max_size
            raise NotCarried(f"{len(mail.octets)} octets are more than max_size, {limit}", lacks="SIZE", limit=limit)
        async with self._slots:
            return await briefly(lambda: self._send(mail), on=RelayCut)

    async def _send(self, mail: Mail) -> Answer:
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

    def probe(self) -> AsyncIterator[Stage]:
        """Every stage up to the login, on a connection of its own; ends after the first that fails."""
        line = Line(self._settings)
        return stages(line.steps(), self._advice, line.quit)

    async def inquire(self, sender: str, recipients: Sequence[str]) -> AsyncIterator[Stage]:
        """As :meth:`probe`, then MAIL and an RCPT for each recipient, and no further: see
        :class:`mailpoller.core.ports.Inquiring`."""
        line = Line(self._settings)
        try:
            async for stage in stages(line.steps(), self._advice):
                yield stage
                if not stage.ok:
                    return
            async for stage in asked(line, sender, recipients):
                yield stage
        finally:
            await line.quit()

    def _advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about a stage that failed."""
        settings = self._settings
        if settings.credentials is not None and (advice := settings.credentials.advice(error)):
            return advice
        if isinstance(error, CredentialsRefused):
            return "Check username and password; many providers want an app password, or have SMTP AUTH switched off."
        match stage:
            case "tls" if "not trusted" not in str(error) and "pinned" not in str(error):
                other = "tls: starttls-required (587)" if settings.tls == "tls" else "tls: tls (465)"
                return (
                    f"If the relay begins TLS in another way, say {other}; if its certificate is your own, name "
                    f"ca_file or pin."
                )
            case "socket":
                return "Look whether the server runs, and whether mailpoller's user and group may use its socket."
            case "dns" | "tcp" | "tls":
                usual = "Submission is 587 (STARTTLS) or 465 (TLS), relays often 25."
                if settings.lmtp:
                    usual = "LMTP is often 24; many servers only have a socket."
                approach = Approach(settings.host, settings.port, settings.proxy, settings.timeout, usual=usual)
                return approach.advice(stage, error)
            case "greeting":
                return "Something else may answer on this port, or the relay does not want this machine; its log knows."
            case _:
                return (
                    "Say tls: starttls-required, or tls: none if the line is safe, and check that the relay "
                    "offers AUTH."
                )

    async def close(self) -> None:
        """End the kept connections; takes two seconds at most."""
        lines, self._idle = self._idle, []
        for line in lines:
            if line.retirement is not None:
                line.retirement.cancel()
        async with TaskGroup() as group:
            for line in lines:
                group.create_task(line.quit(), name=f"quit {self._settings.place}")
