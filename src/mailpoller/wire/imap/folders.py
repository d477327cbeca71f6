"""Finding folders: what an operator calls them, what the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mailpoller.wire.imap.names import Namespace, composed
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.reader import Response
from mailpoller.wire.imap.responses import Listed, read_list, read_namespace, readable
from mailpoller.wire.pace import REST

_TURN = 100
"""Folders that are dealt with in one go, before whoever else waits has his turn."""


class Folders:
    """The folders of one connection, looked up once each."""

    def __init__(self, protocol: ImapProtocol) -> None:
        self._protocol = protocol
        self._namespace: Namespace | None = None
        self._found: dict[str, str] = {"INBOX": "INBOX"}

    async def find(self, name: str) -> tuple[str, bool]:
        """The server's name of the folder that an operator calls ``name``, and whether it exists and can be opened.

        One that does not exist is answered with the name it would have to be created under.
        """
        key = _key(name)
        if key in self._found:
            return self._found[key], True
        if self._namespace is None:
            self._namespace = await namespace(self._protocol)
        candidates = self._namespace.candidates(name)
        for candidate in candidates:
            answer = await self._protocol.run("LIST", '""', self._protocol.named(candidate), wants=(b"LIST",))
            # INBOX and what is below it may come back in other case, on some servers every name.
            if found := await self._match(answer.data, [candidate]):
                self._found[key] = found
                return found, True
        if not name.isascii():
            # It may be written otherwise there: ö as o and two dots, as by a Mac. LIST compares character by character.
            answer = await self._protocol.run("LIST", '""', '"*"', wants=(b"LIST",))
            if found := await self._match(answer.data, candidates):
                self._found[key] = found
                return found, True
        return candidates[0], False

    async def _match(self, answers: Sequence[Response], wanted: Sequence[str]) -> str | None:
        """The folder among those that LIST tells which people call as the first of ``wanted`` that is there, best in
        just that spelling, if it can be opened."""
        alike: dict[str, list[Listed]] = {composed(one).lower(): [] for one in wanted}
        for number, answer in enumerate(answers, 1):
            with self._protocol.reading():
                one = read_list(answer, utf8=self._protocol.utf8)
            if one is not None and (those := alike.get(composed(one.name).lower())) is not None:
                those.append(one)
            if not number % _TURN:
                await asyncio.sleep(REST)
        for name in wanted:
            listed = alike[composed(name).lower()]
            listed.sort(key=lambda one: (one.name != name, composed(one.name) != composed(name)))
            if found := next((one.name for one in listed if one.selectable), None):
                return found
        return None

    def forget(self, name: str) -> None:
        """Look the folder up anew next time: it could not be opened, so it may be gone or have another name."""
        if _key(name) != "INBOX":
            self._found.pop(_key(name), None)

    async def names(self, limit: int = 30) -> list[str]:
        """The first folders of the mailbox, for an operator who has misspelt one."""
        answer = await self._protocol.run("LIST", '""', '"*"', wants=(b"LIST",))
        with self._protocol.reading():
            listed = [read_list(one, utf8=self._protocol.utf8) for one in answer.data[:limit]]
        return [readable(one.name.encode()) for one in listed if one is not None]


def _key(name: str) -> str:
    return (
        "INBOX" if name.upper() == "INBOX" else composed(name)
    )  # the one name that knows no case (RFC 3501 section 5.1)


async def namespace(protocol: ImapProtocol) -> Namespace:
    """Where folders lie on this server: NAMESPACE (RFC 2342) where there is one, else the delimiter that LIST tells."""
    if "NAMESPACE" in protocol.capabilities:
        answer = await protocol.run("NAMESPACE", wants=(b"NAMESPACE",))
        if answer.status.ok and answer.data:
            with protocol.reading():
                found = read_namespace(answer.data[0], utf8=protocol.utf8)
            if found is not None:
                return found
    answer = await protocol.run("LIST", '""', '""', wants=(b"LIST",))
    with protocol.reading():
        for response in answer.data:
            if (root := read_list(response)) is not None:
                return Namespace("", root.delimiter)
    return Namespace()
