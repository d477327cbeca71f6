"""Finding folders: what an operator calls them, what the server does."""

from __future__ import annotations

from mailpoller.sources.imap.names import Namespace, quote_name
from mailpoller.sources.imap.protocol import ImapProtocol
from mailpoller.sources.imap.responses import read_list, read_namespace, readable


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
            answer = await self._protocol.run("LIST", '""', quote_name(candidate), wants=(b"LIST",))
            # INBOX and what is below it may come back in other case, on some servers every name.
            listed = [one for one in map(read_list, answer.data) if one and one.name.lower() == candidate.lower()]
            listed.sort(key=lambda one: one.name != candidate)
            for one in listed:
                if one.selectable:
                    self._found[key] = one.name
                    return one.name, True
        return candidates[0], False

    def forget(self, name: str) -> None:
        """Look the folder up anew next time: it could not be opened, so it may be gone or have another name."""
        if _key(name) != "INBOX":
            self._found.pop(name, None)

    async def names(self, limit: int = 30) -> list[str]:
        """The first folders of the mailbox, for an operator who has misspelt one."""
        answer = await self._protocol.run("LIST", '""', '"*"', wants=(b"LIST",))
        return [readable(one.name.encode()) for one in map(read_list, answer.data[:limit]) if one is not None]


def _key(name: str) -> str:
    return "INBOX" if name.upper() == "INBOX" else name  # the one name that knows no case (RFC 3501 section 5.1)


async def namespace(protocol: ImapProtocol) -> Namespace:
    """Where folders lie on this server: NAMESPACE (RFC 2342) where there is one, else the delimiter that LIST tells."""
    if "NAMESPACE" in protocol.capabilities:
        answer = await protocol.run("NAMESPACE", wants=(b"NAMESPACE",))
        if answer.status.ok and answer.data and (found := read_namespace(answer.data[0])) is not None:
            return found
    answer = await protocol.run("LIST", '""', '""', wants=(b"LIST",))
    for response in answer.data:
        if (root := read_list(response)) is not None:
            return Namespace("", root.delimiter)
    return Namespace()
