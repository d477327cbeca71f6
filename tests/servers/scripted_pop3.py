"""A POP3 server that follows a script: polite by default, as rude as a test wants it to be.

    server = ScriptedPop3({"UIDL": b"+OK\\r\\n1 a junk\\r\\n.\\r\\n", "QUIT": None})

A script maps a command's name to octets, or to a function ``(conversation, arguments)`` that returns such octets;
None is no answer. Deletions count at QUIT, over all connections, as on a real server.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence

from servers.listener import Listener

CAPABILITIES = "PIPELINING UIDL TOP USER RESP-CODES"
Answer = bytes | None
Reply = Answer | Callable[["Conversation", str], "Answer | Awaitable[Answer]"]


class Conversation:
    """One connection. ``lines`` is all that the client has said; ``waiting`` the number of a message -> its uid and
    octets."""

    def __init__(self, writer: asyncio.StreamWriter, mails: Sequence[tuple[str, bytes]]) -> None:
        self.writer = writer
        self.lines: list[str] = []
        self.mails = dict(enumerate(mails, 1))
        self.marked: set[int] = set()
        self.conversing: Callable[[str], Answer] | None = None
        """Takes the next line, if it is no command."""

    def say(self, octets: bytes) -> None:
        """Send octets now."""
        self.writer.write(octets)

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.writer.close()


class ScriptedPop3(Listener):
    """A server; ``mails`` are pairs of UIDL and octets, in order."""

    limit = 1 << 20

    def __init__(
        self,
        script: Mapping[str, Reply] | None = None,
        *,
        mails: Sequence[tuple[str, bytes]] = (),
        greeting: bytes = b"+OK ready\r\n",
        capabilities: str | None = CAPABILITIES,
    ) -> None:
        self.script = dict(script or {})
        self.mails = list(mails)
        self.greeting = greeting
        self.capabilities = capabilities
        self.conversations: list[Conversation] = []

    @property
    def lines(self) -> list[str]:
        """All that clients have said, over all connections."""
        return [line for one in self.conversations for line in one.lines]

    def asked(self, word: str) -> list[str]:
        """The commands that begin with ``word``."""
        return [line for line in self.lines if line.split(" ")[0].upper() == word]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(writer, self.mails)
        self.conversations.append(conversation)
        writer.write(self.greeting)
        while line := await reader.readline():
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            conversation.lines.append(text)
            await self._answer(conversation, text)
            await writer.drain()

    async def _answer(self, conversation: Conversation, text: str) -> None:
        if conversation.conversing is not None:
            taking, conversation.conversing = conversation.conversing, None
            answer: Answer | Awaitable[Answer] = taking(text)
        else:
            name, _, arguments = text.partition(" ")
            name = name.upper()
            reply = self.script[name] if name in self.script else getattr(self, f"_{name.lower()}", b"+OK\r\n")
            answer = reply(conversation, arguments) if callable(reply) else reply
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is not None:
            conversation.say(answer)

    # --- manners ---------------------------------------------------------------------------------------------
    def _capa(self, conversation: Conversation, arguments: str) -> Answer:
        if self.capabilities is None:
            return b"-ERR what?\r\n"
        names = (
            self.capabilities.replace(";", "\r\n")
            if ";" in self.capabilities
            else self.capabilities.replace(" ", "\r\n")
        )
        return f"+OK\r\n{names}\r\n.\r\n".encode()

    def _uidl(self, conversation: Conversation, arguments: str) -> Answer:
        return listing(f"{number} {uid}" for number, (uid, _) in conversation.mails.items())

    def _list(self, conversation: Conversation, arguments: str) -> Answer:
        return listing(f"{number} {len(octets)}" for number, (_, octets) in conversation.mails.items())

    def _stat(self, conversation: Conversation, arguments: str) -> Answer:
        return b"+OK %d 0\r\n" % len(conversation.mails)

    def _retr(self, conversation: Conversation, arguments: str) -> Answer:
        number = int(arguments)
        if number not in conversation.mails or number in conversation.marked:
            return b"-ERR no such message\r\n"
        return b"+OK\r\n" + stuffed(conversation.mails[number][1])

    def _top(self, conversation: Conversation, arguments: str) -> Answer:
        number, lines = map(int, arguments.split())
        if number not in conversation.mails:
            return b"-ERR no such message\r\n"
        head, _, body = conversation.mails[number][1].partition(b"\r\n\r\n")
        return b"+OK\r\n" + stuffed(head + b"\r\n\r\n" + b"".join(body.splitlines(keepends=True)[:lines]))

    def _dele(self, conversation: Conversation, arguments: str) -> Answer:
        conversation.marked.add(int(arguments))
        return b"+OK\r\n"

    def _quit(self, conversation: Conversation, arguments: str) -> Answer:
        for number in conversation.marked:
            self.mails.remove(conversation.mails[number])
        conversation.say(b"+OK bye\r\n")
        conversation.hang_up()
        return None


def listing(lines: object) -> bytes:
    """A multi-line answer of these lines."""
    return b"+OK\r\n" + b"".join(f"{line}\r\n".encode("latin-1") for line in lines) + b".\r\n"  # type: ignore[attr-defined]


def stuffed(octets: bytes) -> bytes:
    """A message as it travels, with its end."""
    lines = octets.split(b"\r\n")
    whole = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)
    return whole + (b".\r\n" if whole.endswith(b"\r\n") or not whole else b"\r\n.\r\n")
