"""The YAML block of an IMAP mailbox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from mailpoller.core.component import Finding, Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.wire import doubtful
from mailpoller.wire.auth import Auth, Credentials, PasswordAuth, check_auth
from mailpoller.wire.imap.flags import check_flag
from mailpoller.wire.imap.names import composed
from mailpoller.wire.server import MailboxServer


def is_pattern(name: str) -> bool:
    """True if it stands for any number of folders."""
    return "*" in name or "%" in name


_BELOW_INBOX = re.compile(r"INBOX[/.]", re.IGNORECASE)
_WILD = {"*": ".*", "%": "[^/.]*", "/": "[/.]", ".": "[/.]"}


def _meant(pattern: str) -> re.Pattern[str]:
    """An expression for the folders that it may match."""
    return re.compile("".join(_WILD.get(one) or re.escape(one) for one in pattern), re.DOTALL)


class ImapSettings(MailboxServer):
    """What a mailbox of this type is told; see :class:`mailpoller.sources.imap.ImapConfig`."""

    usual_ports: ClassVar = {"tls": 993, "starttls-required": 143, "starttls": 143, "none": 143}

    type: Literal["imap"]
    port: int = Field(default=0, ge=0, le=65535)
    """0: 993 with ``tls: tls``, else 143."""
    auth: Auth = PasswordAuth()
    """How to log in: ``type: password`` if nothing is said, ``oauth2`` or ``external``."""
    folders: list[str] = Field(default_factory=lambda: ["INBOX"], min_length=1)
    """The folders to poll, named as people see them (``Größe/Alt``); IDLE watches the first, and of what a pattern
    finds INBOX is the first. A namespace prefix such as ``INBOX.`` may be left out, and ``/`` written for whatever
    separates levels. ``*`` is any text, over all levels, and ``%`` within one: ``INBOX/*``. What such a pattern finds
    is looked for anew every minute, and 500 folders of it are polled at most. It leaves out the targets of moves, what
    the server marks as trash, junk, drafts, sent mail, or all mail, and other people's folders, unless it begins with
    the namespace of those."""
    idle: bool = True
    """Let the server push news where it can (RFC 2177)."""

    @field_validator("folders")
    @classmethod
    def _check_folders(cls, folders: list[str]) -> list[str]:
        if any(not name or any(one in name for one in "\r\n\0") for name in folders):
            raise ValueError("a folder's name is not empty and has no line ends")
        if len({name.upper() if name.upper() == "INBOX" else composed(name) for name in folders}) < len(folders):
            raise ValueError("a folder is named twice")
        return folders

    def named_folders(self) -> Sequence[str]:
        """Those that are no patterns."""
        return tuple(name for name in self.folders if not is_pattern(name))

    @property
    def has_patterns(self) -> bool:
        """See the parent's."""
        return any(map(is_pattern, self.folders))

    def finds(self, key: str) -> bool:
        """See the parent's: patterns find it. What separates levels, and whether INBOX is above all, only the server
        knows."""
        patterns = [_meant(name) for name in self.folders if is_pattern(name)]
        return any(one.fullmatch(key) or one.fullmatch(_BELOW_INBOX.sub("", key)) for one in patterns)

    def move_targets(self) -> Sequence[str]:
        """Where dispositions move mail to."""
        wanted = (self.disposition, self.on_quarantine, self.on_discard)
        return tuple(one.move for one in wanted if one is not None and one.move)

    @field_validator("disposition", "on_quarantine", "on_discard")
    @classmethod
    def _check_flags(cls, disposition: Disposition | None) -> Disposition | None:
        for flag in () if disposition is None else disposition.flags:
            check_flag(flag)
        return disposition

    @model_validator(mode="after")
    def _check_auth(self) -> Self:
        check_auth(self.auth, password=self.password, tls=self.tls, client_certificate=self.client_certificate)
        return self

    def findings(self) -> Iterator[Finding]:
        """Those of every server; and that IDLE makes haste needless."""
        yield from super().findings()
        yield from doubtful.hasty(self.poll_interval, "with IDLE new mail arrives at once anyway")

    def credentials(self, runtime: Runtime) -> Credentials:
        """Who logs in, and how."""
        return self.login(self.username, self.auth, runtime)
