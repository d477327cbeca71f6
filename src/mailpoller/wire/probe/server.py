"""What is tried with a server of IMAP or POP3: the way there, TLS, the greeting, the login; and the mailbox."""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, MailpollerError
from mailpoller.core.ports import Stage
from mailpoller.wire.auth import Credentials
from mailpoller.wire.dial import adopt
from mailpoller.wire.oauth import provider_of
from mailpoller.wire.probe.approach import Approach
from mailpoller.wire.probe.causes import whose_greeting
from mailpoller.wire.probe.steps import Step, stages
from mailpoller.wire.probe.trial import Trial
from mailpoller.wire.server import MailboxServer


class ServerTrial(Trial):
    """One connection, made step by step; a subclass speaks ``protocol`` on it."""

    service: ClassVar[str]
    """What the protocol is called."""
    starttls: ClassVar[str]
    """Its command that begins TLS."""

    def __init__(
        self,
        config: MailboxServer,
        protocol: asyncio.Protocol,
        credentials: Credentials,
        dispositions: Sequence[Disposition],
    ) -> None:
        super().__init__(dispositions, shadow=config.mode == "shadow")
        self._server = config
        self._wire = protocol
        self._credentials = credentials
        self._seconds = config.connect_timeout.total_seconds()
        ports = config.usual_ports
        self._approach = Approach(
            config.host, config.effective_port, config.proxy, config.connect_timeout,
            usual=f"{self.service} is {ports['tls']} with tls: tls, else {ports['none']}.",
        )  # fmt: skip

    def probe(self) -> AsyncIterator[Stage]:
        """See :meth:`mailpoller.core.ports.Source.probe`."""
        return stages(self.steps(), self.advice, self._close)

    def steps(self) -> list[Step]:
        """In the order in which the TLS mode wants them."""
        steps: list[Step] = self._approach.steps(self._take)
        if self._server.tls == "tls":
            steps += [("tls", self._tls), ("greeting", self._greeting)]
        else:
            steps += [("greeting", self._greeting)]
            if self._server.tls != "none":
                steps.append(("tls", self._start_tls))
        return [*steps, ("login", self._login), *super().steps()]

    async def _take(self, sock: socket.socket) -> None:
        await adopt(self._wire, sock)

    @abstractmethod
    async def _tls(self) -> str:
        """TLS from the first octet."""

    @abstractmethod
    async def _start_tls(self) -> str:
        """TLS from here on, as far as the mode demands it."""

    @abstractmethod
    async def _greeting(self) -> str:
        """The server's first words."""

    @abstractmethod
    async def _login(self) -> str:
        """Log in."""

    @abstractmethod
    async def _close(self) -> None:
        """Say goodbye if that is quick, and cut the connection."""

    # --- advice ----------------------------------------------------------------------------------------------
    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about it."""
        config, said, ports = self._server, str(error), self._server.usual_ports
        match stage:
            case "tls" if "wrong version" in said or "no handshake" in said:
                return f"This port may want {self.starttls}: try tls: starttls-required (usually port {ports['none']})."
            case "tls" if self.starttls in said:
                return f"Try tls: tls with port {ports['tls']}."
            case "dns" | "tcp" | "tls":
                return self._approach.advice(stage, error)
            case "greeting" if other := whose_greeting(said, self.service):
                return other
            case "greeting" if config.tls != "tls":
                return (
                    f"If this port speaks TLS from the first octet, set tls: tls (usually port {ports['tls']}). If it "
                    "says nothing at all, a firewall or a load balancer may answer in the server's place."
                )
            case "greeting":
                return (
                    f"Does this server speak {self.service}? If it counts connections, another client may hold "
                    f"too many."
                )
            case "login" if advice := self._credentials.advice(error):
                return advice
            case "login" if isinstance(error, CredentialsRefused):
                if provider_of(config.host) == "microsoft":
                    return f"Microsoft takes no passwords for {self.service} any more: this mailbox needs OAuth 2.0."
                return self._password_advice()
            case _:
                return (
                    self._advice(stage, error)
                    or "Try again; if it stays, ask the server's operator with the words above."
                )

    @abstractmethod
    def _password_advice(self) -> str:
        """What to do about a password that is not taken."""

    @abstractmethod
    def _advice(self, stage: str, error: MailpollerError) -> str:
        """What else the protocol knows of ``login``, ``folder``, ``message`` and ``disposition``; empty if nothing."""
