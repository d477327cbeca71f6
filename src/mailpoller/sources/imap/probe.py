"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import ConfigError, CredentialsRefused, MailpollerError, TransientError
from mailpoller.core.ports import Stage
from mailpoller.sources.imap import connecting
from mailpoller.sources.imap.config import ImapConfig
from mailpoller.sources.imap.folders import Folders
from mailpoller.sources.imap.names import quote_name
from mailpoller.sources.imap.protocol import ImapClient
from mailpoller.sources.imap.responses import Literal, read_values
from mailpoller.sources.imap.settling import objection
from mailpoller.transport.auth import Credentials
from mailpoller.transport.dial import Address
from mailpoller.transport.oauth import TokenRefused
from mailpoller.transport.tls import secure

_HEAD = 65536
"""Octets of a header that are fetched, at most."""


async def probe(
    config: ImapConfig, credentials: Credentials, dispositions: Sequence[Disposition]
) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    attempt = _Attempt(config, credentials, dispositions)
    try:
        for name, step in attempt.steps():
            began = time.monotonic()
            try:
                detail = await step()
            except MailpollerError as error:
                yield Stage(name, False, _since(began), str(error), attempt.advice(name, error))
                return
            yield Stage(name, True, _since(began), detail)
    finally:
        await attempt.close()


def _since(began: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - began)


class _Attempt:
    """One connection, made step by step; each step returns what there is to say about it."""

    def __init__(self, config: ImapConfig, credentials: Credentials, dispositions: Sequence[Disposition]) -> None:
        self._config = config
        self._credentials = credentials
        self._dispositions = [one for one in dict.fromkeys(dispositions) if not one.leaves]
        self._client = ImapClient(config.host, config.effective_port, config.command_timeout.total_seconds())
        self._protocol = self._client.protocol
        self._folders = Folders(self._protocol)
        self._addresses: list[Address] = []
        self._seconds = config.connect_timeout.total_seconds()

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        """In the order in which the TLS mode wants them."""
        steps: list[tuple[str, Callable[[], Awaitable[str]]]] = [("dns", self._dns), ("tcp", self._tcp)]
        if self._config.tls == "tls":
            steps += [("tls", self._tls), ("greeting", self._greeting)]
        else:
            steps += [("greeting", self._greeting)]
            if self._config.tls != "none":
                steps.append(("tls", self._starttls))
        return [*steps, ("login", self._login), ("folder", self._folder), ("message", self._message),
                ("disposition", self._disposition)]  # fmt: skip

    async def close(self) -> None:
        """LOGOUT if that is quick, and cut the connection."""
        try:
            if self._protocol.lost is None and self._protocol.state in ("AUTH", "SELECTED"):
                async with asyncio.timeout(2):
                    await self._protocol.run("LOGOUT")
        except (TimeoutError, MailpollerError):
            pass
        finally:
            self._protocol.lose("the probe is over")

    async def _dns(self) -> str:
        self._addresses = await connecting.resolve(self._config, self._seconds)
        if self._config.proxy is not None:
            return "asked at the proxy"
        return ", ".join(dict.fromkeys(str(address[-1][0]) for address in self._addresses))

    async def _tcp(self) -> str:
        await connecting.connect(self._client, self._config, self._addresses, self._seconds)
        by_proxy = "" if self._config.proxy is None else f" by way of the {self._config.proxy.place}"
        return f"port {self._config.effective_port}{by_proxy}"

    async def _tls(self) -> str:
        protocol, config = self._protocol, self._config
        protocol.transport = await secure(protocol.transport, protocol, config.policy, config.host, self._seconds)
        return self._cipher()

    async def _starttls(self) -> str:
        await connecting.start_tls(self._client, self._config, self._seconds)
        if not connecting.is_protected(self._protocol):
            return "the server does not offer STARTTLS, so that everything goes in clear, the password too"
        return self._cipher()

    def _cipher(self) -> str:
        cipher = self._protocol.transport.get_extra_info("cipher")
        return f"{cipher[1]} {cipher[0]}" if cipher else ""

    async def _greeting(self) -> str:
        await connecting.greeting(self._protocol, self._seconds)
        return self._protocol.greeting.result().text

    async def _login(self) -> str:
        await connecting.log_in(self._client, self._credentials)
        lacking = [one for one in ("IDLE", "MOVE", "UIDPLUS") if not self._protocol.offers(one)]
        return f"without {', '.join(lacking)}" if lacking else ""

    async def _folder(self) -> str:
        told = []
        for name in self._config.folders:
            wire, exists = await self._folders.find(name)
            if not exists:
                known = ", ".join(await self._folders.names())
                raise TransientError(f"there is no folder {name}; there are: {known}")
            await self._select("EXAMINE", name, wire)
            told.append(f"{name}: {self._protocol.mailbox.exists} messages")
        return "; ".join(told)

    async def _select(self, verb: str, name: str, wire: str) -> None:
        status = (await self._protocol.run(verb, quote_name(wire))).status
        self._protocol.state = "SELECTED" if status.ok else "AUTH"
        if not status.ok:
            raise TransientError(f"the folder {name} cannot be opened: the server says {status}")
        if self._protocol.mailbox.uidvalidity is None:
            raise TransientError(f"the folder {name} has no UIDVALIDITY, so its messages cannot be told apart for long")

    async def _message(self) -> str:
        for name in self._config.folders:
            wire, _ = await self._folders.find(name)
            await self._select("EXAMINE", name, wire)
            if not self._protocol.mailbox.exists:
                continue
            items = f"(UID RFC822.SIZE BODY.PEEK[HEADER]<0.{_HEAD}>)"
            answer = await self._protocol.run("FETCH", "*", items, within=self._protocol.mailbox)
            if not answer.status.ok:
                raise TransientError(f"the server gives no header: {answer.status}")
            return f"the newest message of {name} can be read"
        return "there is no message to try with"

    async def _disposition(self) -> str:
        if self._config.mode == "shadow":
            return "nothing is ever changed (mode: shadow)"
        if not self._dispositions:
            return "messages are left as they are"
        told: list[str] = []
        for name in self._config.folders:
            wire, _ = await self._folders.find(name)
            await self._select("SELECT", name, wire)
            rights = await self._rights(wire)
            for disposition in self._dispositions:
                if (refused := objection(self._protocol, self._protocol.mailbox, disposition)) is not None:
                    raise TransientError(f"{name}: {refused[1]}")
                if lacking := _lacking(disposition, rights):
                    raise TransientError(f"{name}: we lack the right {lacking}")
                if disposition.move:
                    told.append(await self._target(disposition.move))
                if disposition.delete and not self._protocol.offers("UIDPLUS"):
                    told.append("messages are marked as deleted, not expunged (no UIDPLUS)")
        return "; ".join(dict.fromkeys(told))

    async def _rights(self, wire: str) -> str | None:
        """Our rights (RFC 4314) in a folder, or None if the server does not tell."""
        if "ACL" not in self._protocol.capabilities:
            return None
        answer = await self._protocol.run("MYRIGHTS", quote_name(wire), wants=(b"MYRIGHTS",))
        if not answer.status.ok or not answer.data:
            return None
        value = read_values(answer.data[0])[-1]
        if isinstance(value, Literal):
            return None
        return value.decode("ascii", "replace") if isinstance(value, bytes) else None

    async def _target(self, target: str) -> str:
        wire, exists = await self._folders.find(target)
        if not exists:
            return f"{target} does not exist and will be created"
        rights = await self._rights(wire)
        if rights is not None and "i" not in rights:
            raise TransientError(f"{target}: we lack the right i (insert messages)")
        return f"{target} exists"

    # --- advice ----------------------------------------------------------------------------------------------
    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about it."""
        config, said = self._config, str(error)
        host, port = config.host, config.effective_port
        if isinstance(error, ConfigError):
            return "Correct the configuration; the file or variable must be readable by the service's user."
        match stage:
            case "dns":
                return f"Check the spelling of host, and whether this machine resolves names: getent hosts {host}"
            case "tcp":
                return f"Check host, port and firewall: nc -vz {host} {port}. IMAP is 993 with tls: tls, else 143."
            case "tls" if "not trusted" in said:
                return (
                    "If the server's own CA is right, name it with ca_file; a certificate that signs itself can be pinned: "
                    f"openssl s_client -connect {host}:{port} </dev/null | openssl x509 -noout -fingerprint -sha256"
                )
            case "tls" if "pinned" in said:
                return "If the certificate was renewed on purpose, put the new fingerprint into pin."
            case "tls" if "wrong version" in said or "no handshake" in said:
                return "This port may want STARTTLS: try tls: starttls-required (usually port 143)."
            case "tls" if "STARTTLS" in said:
                return "Try tls: tls with port 993."
            case "tls":
                return f"See what the server speaks: openssl s_client -connect {host}:{port}"
            case "greeting" if config.tls != "tls":
                return "If this port speaks TLS from the first octet, set tls: tls."
            case "greeting":
                return "Is this an IMAP server? If it counts connections, another client may hold too many."
            case "login" if isinstance(error, TokenRefused):
                return error.advice or "Ask the provider's administrator with the words above."
            case "login" if isinstance(error, CredentialsRefused) and self._credentials.tokens is not None:
                return _token_advice(host.lower(), config.username)
            case "login" if isinstance(error, CredentialsRefused):
                return _password_advice(host.lower())
            case "login":
                return "The server may let us in later; if not, ask its operator with the words above."
            case "folder":
                return "Correct folders, or create the folder; names are case-sensitive but for INBOX."
            case "disposition":
                return "Have the right granted, or choose another disposition (disposition: leave needs none)."
            case _:
                return "Try again; if it stays, ask the server's operator with the words above."


def _lacking(disposition: Disposition, rights: str | None) -> str:
    """The right that is missing (RFC 4314 section 4), or nothing."""
    if rights is None:
        return ""
    needed = {
        "s (seen)": disposition.seen,
        "w (flags)": bool(disposition.flags),
        "t (delete)": disposition.delete or bool(disposition.move),
        "e (expunge)": disposition.delete or bool(disposition.move),
    }
    old_style = "d" in rights  # RFC 2086 had one right for both
    for right, wanted in needed.items():
        if wanted and right[0] not in rights and not (old_style and right[0] in "te"):
            return right
    return ""


def _token_advice(host: str, username: str) -> str:
    """The provider gave a token and the mail server does not take it."""
    if host.endswith(_MICROSOFT):
        return (
            "The token is good, but not for this mailbox. With client_credentials: IMAP.AccessAsApp granted, New-ServicePrincipal with "
            f"the enterprise application's object id, Add-MailboxPermission for {username}; it takes up to half an hour. "
            "With a person's login: that person needs full access, and IMAP switched on for the mailbox."
        )
    if host.endswith(_GOOGLE):
        return (
            "The token is good, but not for this mailbox. With a service account: delegate exactly the configured scopes, and let "
            f"username or owner be the mailbox's own address; IMAP must be on for {username}."
        )
    return "The mail server must trust this provider, and the token must name this user: check username and scopes."


_MICROSOFT = ("office365.com", "outlook.com", "outlook.de", "office.com", "office365.us", "outlook.cn")
_GOOGLE = ("gmail.com", "googlemail.com")


def _password_advice(host: str) -> str:
    if host.endswith(_MICROSOFT):
        return "Microsoft takes no passwords for IMAP any more: this mailbox needs OAuth 2.0."
    if host.endswith(_GOOGLE):
        return "Google takes only app passwords (with two-step verification) or OAuth 2.0."
    if host.endswith(("mail.me.com", "icloud.com", "yahoo.com", "yahoodns.net", "gmx.net", "gmx.com", "web.de")):
        return "This provider wants IMAP switched on in its settings, and an app password where two-step login is on."
    return (
        "Check username (often the whole address) and password; the account may be locked or IMAP switched off for it."
    )
