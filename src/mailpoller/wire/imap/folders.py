"""Finding folders: what an operator calls them, what the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mailpoller.core.errors import TransientError
from mailpoller.wire.imap.names import Namespace, composed
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.reader import Response
from mailpoller.wire.imap.responses import Listed, read_list, read_namespace, readable
from mailpoller.wire.pace import REST

ELSEWHERE = frozenset(("\\all", "\\flagged", "\\important", "\\trash", "\\junk", "\\drafts", "\\sent"))
"""Folders for mail that did not arrive there, or that is in another one as well (RFC 6154, RFC 8457)."""
_TURN = 100
"""Folders that are dealt with in one go, before whoever else waits has his turn."""


class Folders:
    """The folders of one connection, looked up once each."""

    def __init__(self, protocol: ImapProtocol) -> None:
        self._protocol = protocol
        self._namespace: Namespace | None = None
        self._found: dict[str, str] = {"INBOX": "INBOX"}
        self._trash: str | None = None

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

    async def matching(self, pattern: str) -> list[str]:
        """The folders below which ``*`` (all levels) and ``%`` (one level) lead, as people call them, in order, with
        ``/`` between levels; without those that the server keeps for mail which did not arrive there, and those of
        other people, unless it begins with their namespace.

        Raises :class:`TransientError` if the server refuses.
        """
        if self._namespace is None:
            self._namespace = await namespace(self._protocol)
        spelling = self._namespace.candidates(pattern)[0]
        meant = self._namespace.owner(spelling)
        listed = await self._list(spelling)
        named: dict[str, str] = {}
        for one in listed:
            if self._namespace.owner(one.name) not in ("", meant):
                continue
            if one.selectable and not one.attributes & ELSEWHERE:
                levels = one.name.split(one.delimiter) if one.delimiter else [one.name]
                if not any("/" in level for level in levels):  # it could not be told from one that lies deeper
                    named["/".join(levels)] = one.name
        for name, wire in named.items():
            self._found[_key(name)] = wire
        return sorted(named)

    async def trash(self) -> str | None:
        """The folder for what is to be deleted (RFC 6154), if the server shows one."""
        if self._trash is None:
            self._trash = next((one.name for one in await self._list("*") if "\\trash" in one.attributes), None)
        return self._trash

    async def _list(self, pattern: str) -> list[Listed]:
        """Raises :class:`TransientError` if the server refuses."""
        extended = self._protocol.offers("SPECIAL-USE") and self._protocol.offers("LIST-EXTENDED")
        more = ("RETURN (SPECIAL-USE)",) if extended else ()
        answer = await self._protocol.run("LIST", '""', self._protocol.named(pattern), *more, wants=(b"LIST",))
        if not answer.status.ok:
            raise TransientError(f"the folders cannot be listed: the server says {answer.status}")
        listed: list[Listed] = []
        for number, response in enumerate(answer.data, 1):
            with self._protocol.reading():
                one = read_list(response, utf8=self._protocol.utf8)
            if one is not None:
                listed.append(one)
            if not number % _TURN:
                await asyncio.sleep(REST)
        return listed

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
