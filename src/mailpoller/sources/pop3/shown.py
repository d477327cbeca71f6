"""What a maildrop holds, as the engine sees it, and the epoch in which its names count."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import overload

from mailpoller.core.message import Folder, MessageRef
from mailpoller.sources.pop3.columns import Some
from mailpoller.sources.pop3.config import Pop3Settings
from mailpoller.sources.pop3.maildrop import Contents
from mailpoller.wire.address import account_url


def epoch_of(config: Pop3Settings, *, by_uidl: bool) -> str:
    """``pop3://user@host/``, host in lower case; ``;UIDL=none`` behind it where the server has none, for then the
    uids are others."""
    account = account_url("pop3", config.username, config.host, config.effective_port, (110, 995))
    return f"{account}/{'' if by_uidl else ';UIDL=none'}"


class Shown(Sequence[MessageRef]):
    """Messages of a maildrop, each made when it is asked for."""

    def __init__(self, folder: Folder, contents: Contents, uids: Sequence[str]) -> None:
        self._folder = folder
        self._contents = contents
        self._uids = uids

    def __len__(self) -> int:
        return len(self._uids)

    @overload
    def __getitem__(self, index: int) -> MessageRef: ...
    @overload
    def __getitem__(self, index: slice) -> list[MessageRef]: ...
    def __getitem__(self, index: int | slice) -> MessageRef | list[MessageRef]:
        if isinstance(index, slice):
            return [self._ref(uid) for uid in self._uids[index]]
        return self._ref(self._uids[index])

    def _ref(self, uid: str) -> MessageRef:
        return MessageRef(self._folder, uid, self._contents.size(uid))


def everything(contents: Contents) -> Sequence[str]:
    """The uids of all that is in it."""
    return Some(contents.numbers, range(len(contents.numbers)))


async def digest_of(contents: Contents) -> bytes:
    """Stands for all that is in it."""
    found = sha256(repr(contents.whole).encode())
    for place, uid in enumerate(contents.numbers):
        number = contents.numbers.number(place)
        found.update(repr((uid, number, contents.sizes.get(number))).encode())
        if not place % 500:
            await asyncio.sleep(0)
    return found.digest()
