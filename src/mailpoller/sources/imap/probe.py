"""Trying a mailbox step by step, for ``check --live``: how long each step takes, and what to do about the one that
fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.ports import Stage
from mailpoller.sources.imap.config import ImapSettings
from mailpoller.sources.imap.patterns import matching
from mailpoller.sources.imap.settling import NO_TRASH, objection
from mailpoller.wire.auth import Credentials
from mailpoller.wire.imap import connecting
from mailpoller.wire.imap.folders import Folders
from mailpoller.wire.imap.protocol import ImapClient
from mailpoller.wire.imap.responses import Literal, read_values
from mailpoller.wire.oauth import provider_of
from mailpoller.wire.probe.server import ServerTrial
from mailpoller.wire.tls import agreed, secure

_HEAD = 65536
"""Octets of a header that are fetched, at most."""
_SWITCHED = ("mail.me.com", "icloud.com", "yahoo.com", "yahoodns.net", "gmx.net", "gmx.com", "web.de")
"""Providers where each user switches IMAP on."""


def probe(config: ImapSettings, credentials: Credentials, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
    """See :meth:`mailpoller.core.ports.Source.probe`."""
    return _Trial(config, credentials, dispositions).probe()


class _Trial(ServerTrial):
    service, starttls = "IMAP", "STARTTLS"

    def __init__(self, config: ImapSettings, credentials: Credentials, dispositions: Sequence[Disposition]) -> None:
        self._client = ImapClient(config.host, config.effective_port, config.command_timeout.total_seconds())
        self._protocol = self._client.protocol
        super().__init__(config, self._protocol, credentials, dispositions)
        self._config = config
        self._folders = Folders(self._protocol)
        self._matched: list[str] | None = None

    async def _close(self) -> None:
        """LOGOUT if that is quick, and cut the connection."""
        try:
            if self._protocol.lost is None and self._protocol.state in ("AUTH", "SELECTED"):
                async with asyncio.timeout(2):
                    await self._protocol.run("LOGOUT")
        except (TimeoutError, MailpollerError):
            pass
        finally:
            self._protocol.lose("the probe is over")

    async def _tls(self) -> str:
        protocol, config = self._protocol, self._config
        protocol.transport = await secure(protocol.transport, protocol, config.policy, config.host, self._seconds)
        return agreed(protocol.transport)

    async def _start_tls(self) -> str:
        await connecting.start_tls(self._client, self._config, self._seconds)
        if not connecting.is_protected(self._protocol):
            return "the server does not offer STARTTLS, so that everything goes in clear, the password too"
        return agreed(self._protocol.transport)

    async def _greeting(self) -> str:
        await connecting.greeting(self._protocol, self._seconds)
        return self._protocol.greeting.result().text

    async def _login(self) -> str:
        await connecting.log_in(self._client, self._credentials)
        lacking = [one for one in ("IDLE", "MOVE", "UIDPLUS") if not self._protocol.offers(one)]
        return f"without {', '.join(lacking)}" if lacking else ""

    async def _folder(self) -> str:
        told = []
        for name in await self._names():
            wire, exists = await self._folders.find(name)
            if not exists:
                known = ", ".join(await self._folders.names())
                raise TransientError(f"there is no folder {name}; there are: {known}")
            await self._select("EXAMINE", name, wire)
            told.append(f"{name}: {self._protocol.mailbox.exists} messages")
        return "; ".join(told)

    async def _names(self) -> list[str]:
        """What the configured names and patterns stand for."""
        if self._matched is None:
            self._matched, excess = await matching(self._folders, self._config)
            for pattern, reason in excess.items():
                raise TransientError(f"{pattern}: {reason}")
            if not self._matched:
                raise TransientError(f"no folder is named as {', '.join(self._config.folders)}")
        return self._matched

    async def _select(self, verb: str, name: str, wire: str) -> None:
        status = (await self._protocol.run(verb, self._protocol.named(wire))).status
        self._protocol.state = "SELECTED" if status.ok else "AUTH"
        if not status.ok:
            raise TransientError(f"the folder {name} cannot be opened: the server says {status}")
        if self._protocol.mailbox.uidvalidity is None:
            raise TransientError(f"the folder {name} has no UIDVALIDITY, so its messages cannot be told apart for long")

    async def _message(self) -> str:
        for name in await self._names():
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

    async def _changes(self) -> str:
        told: list[str] = []
        for name in await self._names():
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
                if disposition.delete and "X-GM-EXT-1" in self._protocol.capabilities:
                    if (trash := await self._folders.trash()) is None:
                        raise TransientError(NO_TRASH)
                    told.append(f"delete moves to {trash}, which Gmail empties after 30 days")
                elif disposition.delete and not self._protocol.offers("UIDPLUS"):
                    told.append("messages are marked as deleted, not expunged (no UIDPLUS)")
        return "; ".join(dict.fromkeys(told))

    async def _rights(self, wire: str) -> str | None:
        """Our rights (RFC 4314) in a folder, or None if the server does not tell."""
        if "ACL" not in self._protocol.capabilities:
            return None
        answer = await self._protocol.run("MYRIGHTS", self._protocol.named(wire), wants=(b"MYRIGHTS",))
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
    def _advice(self, stage: str, error: MailpollerError) -> str:
        match stage:
            case "login":
                return "The server may let us in later; if not, ask its operator with the words above."
            case "folder":
                return "Correct folders, or create the folder; names are case-sensitive but for INBOX."
            case "disposition":
                return "Have the right granted, or choose another disposition (disposition: leave needs none)."
            case _:
                return ""

    def _password_advice(self) -> str:
        host = self._config.host
        if provider_of(host) == "google":
            return "Google takes only app passwords (with two-step verification) or OAuth 2.0."
        if host.lower().endswith(_SWITCHED):
            return (
                "This provider wants IMAP switched on in its settings, and an app password where two-step login is on."
            )
        return (
            "Check username (often the whole address) and password; the account may be locked or IMAP switched "
            "off for it."
        )


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
