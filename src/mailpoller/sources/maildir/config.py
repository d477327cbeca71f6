"""The block of a mailbox with ``type: maildir``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mailpoller.core.component import StartLiteral
from mailpoller.core.delivery import Disposition
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from mailpoller.sources.maildir import directory as on_disk
from mailpoller.sources.maildir.directory import INBOX


class MaildirSettings(SourceConfig):
    """What a mailbox of this type is told; see :class:`mailpoller.sources.maildir.MaildirConfig`."""

    type: Literal["maildir"]
    path: Path
    """The Maildir: the directory that has ``new`` and ``cur``. An absolute path."""
    folders: list[str] = Field(default=[INBOX], min_length=1)
    """The folders to poll: ``INBOX`` is the Maildir itself, ``Sent`` its subdirectory ``.Sent``."""
    start: StartLiteral = "all"
    """What the very first run takes: ``now`` (only what arrives later), ``unseen``, ``all`` or ``since:YYYY-MM-DD``."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError(
                "the path of a Maildir is absolute: it is the mailbox's identity, wherever the service starts"
            )
        return Path(os.path.normpath(path))

    @field_validator("folders")
    @classmethod
    def _once_each(cls, folders: list[str]) -> list[str]:
        checked = [on_disk.check_folder(name) for name in folders]
        if len({name.removeprefix(".") for name in checked}) < len(checked):
            raise ValueError("a folder is named twice")
        return checked

    @model_validator(mode="after")
    def _possible_dispositions(self) -> Self:
        for disposition in (self.disposition, self.on_quarantine, self.on_discard):
            if disposition is not None and (reason := impossible(disposition)):
                raise ValueError(reason)
        return self

    def polled_account(self) -> Account:
        """A Maildir is its directory."""
        return Account(self.type, "", str(self.path))

    def folder_key(self, name: str) -> str:
        """The dot before a folder may be left out."""
        return super().folder_key(name.removeprefix("."))


def impossible(disposition: Disposition) -> str:
    """Why a Maildir can never do this, or ""."""
    for flag in disposition.flags:
        if on_disk.letter_of(flag) is None:
            known = ", ".join(sorted(on_disk.LETTER_OF))
            return f"Maildir has no flag {flag}; it has {known}"
    if disposition.move is not None:
        try:
            on_disk.check_folder(disposition.move)
        except ValueError as error:
            return str(error)
    return ""
