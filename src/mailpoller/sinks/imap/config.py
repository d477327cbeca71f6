"""The YAML block of a queue that is another mailbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.delivery import Payload
from mailpoller.core.literals import Size
from mailpoller.core.message import Account
from mailpoller.wire.auth import Auth, PasswordAuth, check_auth
from mailpoller.wire.imap.flags import check_flag
from mailpoller.wire.server import KeptServer


class ImapQueueSettings(KeptServer, SinkConfig):
    """What a queue of this type is told; see :class:`mailpoller.sinks.imap.ImapQueueConfig`."""

    usual_ports: ClassVar = {"tls": 993, "starttls-required": 143, "starttls": 143, "none": 143}

    type: Literal["imap"]
    port: int = Field(default=0, ge=0, le=65535)
    """0: 993 with ``tls: tls``, else 143."""
    auth: Auth = PasswordAuth()
    """How to log in: ``type: password`` if nothing is said, ``oauth2`` or ``external``."""
    folder: str = "INBOX"
    """The folder, named as people see it. It is not made."""
    flags: list[str] = Field(default_factory=list, max_length=20)
    """What each message bears there: ``\\Seen``, ``\\Flagged``, a keyword such as ``$Done``."""
    payload: Payload = "summary"
    """The octets are put there and nothing else, whatever is said here."""
    max_size: Size = 100_000_000
    """Larger messages are refused here, whatever the server would take."""

    @field_validator("folder")
    @classmethod
    def _check_folder(cls, folder: str) -> str:
        if not folder or any(one in folder for one in "\r\n\0"):
            raise ValueError("a folder's name is not empty and has no line ends")
        return folder

    @field_validator("flags")
    @classmethod
    def _check_flags(cls, flags: list[str]) -> list[str]:
        return [check_flag(flag) for flag in flags]

    @model_validator(mode="after")
    def _check_auth(self) -> Self:
        check_auth(self.auth, password=self.password, tls=self.tls, client_certificate=self.client_certificate)
        return self

    def fed_folders(self) -> Iterator[tuple[Account, str]]:
        """See the parent's."""
        yield self.account, "INBOX" if self.folder.upper() == "INBOX" else self.folder

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        return Channel("imap", self.account.host, self.folder, "mail")

    def findings(self) -> Iterator[Finding]:
        """Those of every server; and flags that hide what is put there."""
        yield from super().findings()
        if any(flag.lower() == "\\deleted" for flag in self.flags):
            yield Finding("flags", "\\Deleted: the next who expunges the folder removes what was put there")
