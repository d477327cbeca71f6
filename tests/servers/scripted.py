"""An IMAP server that follows a script: polite by default, as rude as a test wants it to be.

    server = ScriptedImap({"NOOP": b"* BYE not today\\r\\n", "FETCH": answer})

A script maps a command's name (``FETCH`` also for ``UID FETCH``) to octets, in which ``%T`` stands for the tag, or to a
function ``(conversation, tag, arguments)`` that returns such octets, or None for no answer; it may be a coroutine.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping

from servers.listener import Listener

CAPABILITIES = "IMAP4rev1 IDLE UIDPLUS MOVE ESEARCH SASL-IR"
Answer = bytes | None
Reply = bytes | Callable[["Conversation", str, str], "Answer | Awaitable[Answer]"]


class Conversation:
    """One connection. ``lines`` is all that the client has said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.lines: list[str] = []
        self.idle_tag = ""
        self.folder = "INBOX"

    def say(self, octets: bytes) -> None:
        """Send octets now."""
        self.writer.write(octets)

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self.writer.close()


class ScriptedImap(Listener):
    """A server; ``messages`` is uid -> octets of INBOX, and of every folder that is not in ``elsewhere``: name -> uid
    -> octets of folders that mail was copied to. ``flags`` are those that were set."""

    limit = 1 << 24

    def __init__(
        self,
        script: Mapping[str, Reply] | None = None,
        *,
        messages: Mapping[int, bytes] | None = None,
        greeting: bytes | None = None,
        capabilities: str = CAPABILITIES,
        uidvalidity: int = 7,
        uidnext: int | None = None,
    ) -> None:
        self.script = dict(script or {})
        self.messages = dict(messages or {})
        self.capabilities = capabilities
        self.greeting = f"* OK [CAPABILITY {capabilities}] ready\r\n".encode() if greeting is None else greeting
        self.uidvalidity = uidvalidity
        self.uidnext = uidnext
        self.tells_uidnext = True
        self.flags: dict[int, set[str]] = {}
        self.elsewhere: dict[str, dict[int, bytes]] = {}
        self.conversations: list[Conversation] = []

    @property
    def lines(self) -> list[str]:
        """All that clients have said, over all connections, without tags."""
        return [line.partition(" ")[2] for one in self.conversations for line in one.lines]

    def asked(self, word: str) -> list[str]:
        """What clients have said that has ``word`` in it."""
        return [line for line in self.lines if word in line]

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(reader, writer)
        self.conversations.append(conversation)
        writer.write(self.greeting)
        while line := await reader.readline():
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            conversation.lines.append(text)
            await self._answer(conversation, text)

    async def _answer(self, conversation: Conversation, text: str) -> None:
        tag, _, rest = text.partition(" ")
        name, _, arguments = rest.removeprefix("UID ").partition(" ")
        name = name.upper()
        if text == "DONE":
            tag, name, arguments = conversation.idle_tag, "DONE", ""
        reply = self.script.get(name)
        if reply is None:
            reply = getattr(self, f"_{name.lower()}", b"%T OK done\r\n")
        answer = reply if isinstance(reply, bytes) else reply(conversation, tag, arguments)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is not None:
            conversation.say(answer.replace(b"%T", tag.encode()))

    # --- manners ---------------------------------------------------------------------------------------------
    def _capability(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        return f"* CAPABILITY {self.capabilities}\r\n%T OK done\r\n".encode()

    def _box(self, conversation: Conversation) -> dict[int, bytes]:
        return self.elsewhere.get(conversation.folder, self.messages)

    def _select(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        conversation.folder = arguments.strip('"')
        box = self._box(conversation)
        lines = [
            f"* {len(box)} EXISTS",
            f"* OK [UIDVALIDITY {self.uidvalidity + (box is not self.messages)}] valid",
            r"* OK [PERMANENTFLAGS (\Seen \Deleted \Flagged \*)] allowed",
        ]
        if self.tells_uidnext:
            lines.append(f"* OK [UIDNEXT {(box is self.messages and self.uidnext) or max(box, default=0) + 1}] next")
        return "\r\n".join([*lines, "%T OK [READ-WRITE] selected\r\n"]).encode()

    def _examine(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        answer = self._select(conversation, tag, arguments)
        assert answer is not None
        return answer.replace(b"READ-WRITE", b"READ-ONLY")

    def _list(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        return b'* LIST (\\Noselect) "/" ""\r\n%T OK done\r\n' if arguments == '"" ""' else b"%T OK done\r\n"

    def _idle(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        conversation.idle_tag = tag
        return b"+ idling\r\n"

    def _search(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        uids = sorted(self._chosen(arguments.rsplit("UID ", 1)[-1].split(" ")[0], self._box(conversation)))
        if lacking := re.findall(r"\bUN(?:KEYWORD (\S+)|(SEEN|DELETED|FLAGGED|ANSWERED|DRAFT)\b)", arguments):
            wanted = {keyword.lower() or f"\\{flag.lower()}" for keyword, flag in lacking}
            uids = [uid for uid in uids if not wanted <= {one.lower() for one in self.flags.get(uid, ())}]
        if "RETURN" in arguments:
            every = f" ALL {','.join(map(str, uids))}" if uids else ""
            return f'* ESEARCH (TAG "{tag}") UID{every}\r\n%T OK done\r\n'.encode()
        return f"* SEARCH {' '.join(map(str, uids))}\r\n%T OK done\r\n".encode()

    def _fetch(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        chosen, _, items = arguments.partition(" ")
        box = self._box(conversation)
        return b"".join(self.fetch_answer(uid, items, box) for uid in self._chosen(chosen, box)) + b"%T OK done\r\n"

    def fetch_answer(self, uid: int, items: str, box: dict[int, bytes] | None = None) -> bytes:
        """The untagged answer about one message."""
        box = self.messages if box is None else box
        octets = box[uid]
        number = sorted(box).index(uid) + 1
        if "BODY" not in items:
            date = ' INTERNALDATE " 1-Feb-2026 03:04:05 +0100"' if "INTERNALDATE" in items else ""
            flags = f" FLAGS ({' '.join(sorted(self.flags.get(uid, ())))})"
            size = f" RFC822.SIZE {len(octets)}" if "SIZE" in items else flags
            subject = octets.partition(b"\r\n")[0].decode("ascii", "replace").replace('"', "")
            envelope = f' ENVELOPE (NIL "{subject}" NIL NIL NIL NIL NIL NIL NIL NIL)' if "ENVELOPE" in items else ""
            return f"* {number} FETCH (UID {uid}{size}{envelope}{date})\r\n".encode()
        origin = ""
        if "<0." in items:
            origin, octets = "<0>", octets[: int(items.split("<0.")[1].split(">")[0])]
        head = f'* {number} FETCH (UID {uid} FLAGS (\\Seen) INTERNALDATE " 1-Feb-2026 03:04:05 +0100" BODY[]{origin} '
        return head.encode() + b"{%d}\r\n%b)\r\n" % (len(octets), octets)

    def _store(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        chosen, _, flags = arguments.split(" ", 2)
        for uid in self._chosen(chosen):
            self.flags.setdefault(uid, set()).update(flags.strip("()").split())
        return b"%T OK done\r\n"

    def _expunge(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        return self._remove([uid for uid in self._chosen(arguments) if "\\Deleted" in self.flags.get(uid, ())])

    def _copy(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        return b"%%T OK [COPYUID %b] done\r\n" % self.copied(arguments)

    def _move(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        chosen = self._chosen(arguments.split(" ")[0])
        answer = self._remove(chosen) if (code := self.copied(arguments)) else b""
        assert answer is not None
        return b"* OK [COPYUID %b] copied\r\n" % code + answer

    def _status(self, conversation: Conversation, tag: str, arguments: str) -> Answer:
        name, _, items = arguments.partition(" ")
        box = self.elsewhere.get(name.strip('"'), self.messages)
        told = {"MESSAGES": len(box), "UIDNEXT": max(box, default=0) + 1}
        words = " ".join(f"{item} {told[item]}" for item in items.strip("()").split())
        return f"* STATUS {name} ({words})\r\n%T OK done\r\n".encode()

    def copied(self, arguments: str) -> bytes:
        """Copy messages to another folder, and tell what COPYUID tells."""
        words, name = arguments.split(" ", 1)
        chosen = self._chosen(words)
        target = self.elsewhere.setdefault(name.strip('"'), {})
        first = max(target, default=0) + 1
        for place, uid in enumerate(chosen):
            target[first + place] = self.messages[uid]
        return f"1 {','.join(map(str, chosen))} {first}:{first + len(chosen) - 1}".encode() if chosen else b"1 0 0"

    def _remove(self, uids: list[int]) -> bytes:
        lines = []
        for uid in uids:
            lines.append(b"* %d EXPUNGE\r\n" % (sorted(self.messages).index(uid) + 1))
            del self.messages[uid]
        return b"".join(lines) + b"%T OK done\r\n"

    def _chosen(self, words: str, box: dict[int, bytes] | None = None) -> list[int]:
        chosen: list[int] = []
        messages = self.messages if box is None else box
        top = max(messages, default=0)
        for part in words.split(","):
            low, _, high = part.partition(":")
            bounds = sorted(
                (top if low == "*" else int(low), top if high == "*" else int(high or (top if low == "*" else low)))
            )
            chosen += [uid for uid in sorted(messages) if bounds[0] <= uid <= bounds[1]]
        return chosen
