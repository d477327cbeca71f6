"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that fails."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import ConfigError, MailpollerError, TransientError
from mailpoller.core.ports import Stage
from mailpoller.core.spool import Spool
from mailpoller.sources.gmail.client import MESSAGES_GET, MESSAGES_LIST, MESSAGES_MODIFY, GmailClient
from mailpoller.sources.gmail.config import ME, GmailConfig, reasons_against
from mailpoller.sources.gmail.encoded import EncodedIntake
from mailpoller.sources.gmail.errors import Invalid, Missing
from mailpoller.sources.gmail.labels import LabelGone, Labels
from mailpoller.sources.gmail.source import log_in
from mailpoller.transport.dial import resolve
from mailpoller.transport.http import Bearer

if TYPE_CHECKING:
    import httpcore

_HEAD = 16_384
"""Octets of a message that are fetched, at most."""
_NOBODY = "0000000000000001"
"""The id of no message."""

_ADVICE = {
    "tls": "If something on the way opens TLS (a proxy of your own), name its CA with ca_file.",
    "login": "Check auth: the service account's key and its delegation, or log in again with mailpoller oauth login.",
    "mailbox": "Check user, and that the token has the scope https://www.googleapis.com/auth/gmail.modify.",
    "folder": "Correct folders, or create the label; INBOX, SPAM, STARRED and IMPORTANT are the same in every language.",
    "message": "Try again; if it stays, the reason in the words above is what Google's support asks for.",
    "disposition": "Grant the scope gmail.modify, or choose another disposition (disposition: leave needs none).",
}


async def probe(
    config: GmailConfig, client: GmailClient, tokens: Bearer, spool: Spool, dispositions: Sequence[Disposition]
) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    attempt = _Attempt(config, client, tokens, spool, dispositions)
    try:
        for name, step in attempt.steps():
            began = time.monotonic()
            try:
                detail = await step()
            except MailpollerError as error:
                elapsed = timedelta(seconds=time.monotonic() - began)
                yield Stage(name, False, elapsed, str(error), attempt.advice(name, error))
                return
            yield Stage(name, True, timedelta(seconds=time.monotonic() - began), detail)
    finally:
        await attempt.close()


class _Attempt:
    """The steps; each returns what there is to say about it. Nothing is sent on the connection of the first ones but a TLS handshake."""

    def __init__(
        self,
        config: GmailConfig,
        client: GmailClient,
        tokens: Bearer,
        spool: Spool,
        dispositions: Sequence[Disposition],
    ) -> None:
        self._config = config
        self._client = client
        self._tokens = tokens
        self._spool = spool
        self._labels = Labels(client)
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]
        parts = urlsplit(config.url)
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._seconds = config.timeout.total_seconds()
        self._stream: httpcore.AsyncNetworkStream | None = None

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """In their order; a proxy resolves names itself."""
        return [
            *([("dns", self._dns)] if self._config.proxy is None else []),
            ("tcp", self._tcp),
            *([("tls", self._tls)] if self._secure else []),
            ("login", self._login),
            ("mailbox", self._mailbox),
            ("folder", self._folder),
            ("message", self._message),
            ("disposition", self._disposition),
        ]

    async def close(self) -> None:
        """Cut what is open."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None
        await self._client.close()

    # --- the way -----------------------------------------------------------------------------------------------
    async def _dns(self) -> str:
        found = await resolve(self._config.host, self._port, seconds=self._seconds)
        return ", ".join(dict.fromkeys(str(address[0]) for _, _, address in found))

    async def _tcp(self) -> str:
        from mailpoller.transport.wire import Backend

        proxy = self._config.proxy
        backend = Backend(self._config.policy, proxy, self._seconds)
        self._stream = await backend.connect_tcp(self._config.host, self._port, self._seconds)
        return f"port {self._port}" + (f" by way of the {proxy.place}" if proxy is not None else "")

    async def _tls(self) -> str:
        assert self._stream is not None
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the backend's own policy decides
        self._stream = await self._stream.start_tls(unused, self._config.host, self._seconds)
        cipher = self._stream.get_extra_info("cipher")
        return f"{cipher[1]} {cipher[0]}" if cipher else ""

    async def _login(self) -> str:
        await self._tokens.token()
        return "there is a token"

    # --- the mailbox -------------------------------------------------------------------------------------------
    async def _mailbox(self) -> str:
        address = await log_in(self._client)
        return address if self._config.user == ME else self._config.user

    async def _folder(self) -> str:
        for name in self._config.folders:
            try:
                await self._labels.find(name)
            except LabelGone as error:
                raise TransientError(f"{error}; there are: {', '.join(await self._labels.names())}") from None
        return ", ".join(self._config.folders)

    async def _message(self) -> str:
        for name in self._config.folders:
            query = [("labelIds", await self._labels.find(name)), ("maxResults", "1"), ("fields", "messages(id)")]
            body = await self._client.get("/messages", "show a message", MESSAGES_LIST, query)
            listed = body.get("messages")
            uid = listed[0].get("id") if isinstance(listed, list) and listed and isinstance(listed[0], dict) else None
            if not isinstance(uid, str):
                continue
            intake = await self._client.download(
                f"/messages/{quote(uid, safe='')}", "show a message", MESSAGES_GET,
                [("format", "raw"), ("fields", "id,raw")], lambda: EncodedIntake(self._spool, _HEAD),
            )  # fmt: skip
            intake.abort()
            return f"a message of {name} can be read"
        return "there is no message to try with"

    async def _disposition(self) -> str:
        if self._config.mode == "shadow":
            return "nothing is ever changed (mode: shadow)"
        if not self._dispositions:
            return "messages are left as they are"
        told: list[str] = []
        for disposition in self._dispositions:
            for reason in reasons_against(disposition):
                raise TransientError(reason)
            if disposition.move is not None:
                told.append(await self._target(disposition.move))
        try:
            # Whether we may is said before whether there is such a message.
            await self._client.post(
                f"/messages/{_NOBODY}/modify", "label messages", MESSAGES_MODIFY,
                {"addLabelIds": [], "removeLabelIds": ["UNREAD"]}, query=[("fields", "id")],
            )  # fmt: skip
        except (Missing, Invalid):
            pass
        return "; ".join(told)

    async def _target(self, target: str) -> str:
        try:
            uid = await self._labels.find(target)
        except LabelGone:
            return f"{target} does not exist and will be created"
        if any([uid == await self._labels.find(name) for name in self._config.folders]):
            raise TransientError(f"{target} is itself polled: messages would be moved onto themselves")
        return f"{target} exists"

    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about it."""
        if isinstance(error, ConfigError):
            return "Correct the configuration; the file or variable must be readable by the service's user."
        if stage == "dns":
            return f"Check url, and whether this machine resolves names: getent hosts {self._config.host}"
        if stage == "tcp":
            return f"Check firewall and proxy: nc -vz {self._config.host} {self._port}"
        return getattr(error, "advice", "") or _ADVICE[stage]
