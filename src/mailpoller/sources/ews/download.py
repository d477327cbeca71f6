"""Fetching messages: GetItem with MimeContent, decoded and spooled while it arrives, and cut at the limit."""

from __future__ import annotations

import binascii
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import pybase64

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.record import record
from mailpoller.core.spool import Intake, Spool
from mailpoller.remote.fetching import Fetching
from mailpoller.sources.ews import soap
from mailpoller.sources.ews.client import EwsClient
from mailpoller.sources.ews.reader import CONTENT, Enough, Node
from mailpoller.sources.ews.replies import BUSY, GONE, Reply
from mailpoller.wire.http import HttpError, iso_date

SET_MESSAGES = 50
"""Messages of one request: above that Exchange's throttling counts them dearly."""
SET_OCTETS = 2_000_000
"""Octets of one request, by the sizes that were listed; they are the store's, some way off those of the message."""
UNKNOWN_SIZE = 100_000
"""What a message without a size counts as."""
DRAINED = 64 * 1024
"""Octets beyond the limit that are read and dropped, before the connection is given up to be spared the rest."""

PROPERTIES = ("item:DateTimeReceived", "item:Categories", "item:Flag", "message:IsRead")


@record
class Known:
    """What an update must name of an item: its element and the version that we saw."""

    kind: str
    change_key: str


@dataclass(slots=True)
class Body:
    """The octets of one message, as far as they came; ``broken`` says what is wrong with them, if anything is."""

    intake: Intake
    broken: str = ""
    rest: str = ""
    """What is left of the base64 until four characters are there."""
    beyond: int = 0
    """Octets that were dropped because they lie beyond the limit."""


class Bodies:
    """The messages of one answer in their order: the one in hand, and those that are complete, until somebody takes
    them.

    See :class:`~mailpoller.sources.ews.reader.Contents`.
    """

    def __init__(self, spool: Spool, limit: int) -> None:
        self.current: Body | None = None
        self._spool = spool
        self._limit = limit
        self._complete: deque[Body] = deque()

    def begin(self) -> None:
        self.current = Body(self._spool.begin(self._limit))

    def take(self, text: str) -> None:
        """Raises :class:`Enough` far beyond the limit, and OSError when the spool is full."""
        body = self.current
        if body is None or body.broken:
            return
        if not text.isalnum() and any(one in text for one in " \t\r\n"):
            text = "".join(text.split())
        text = body.rest + text
        whole = len(text) & ~3
        body.rest = text[whole:]
        try:
            octets = pybase64.b64decode(text[:whole], validate=True)
        except (binascii.Error, ValueError):
            body.broken = "its base64 is broken"
            return
        before = body.intake.size
        body.intake.write(octets)
        body.beyond += len(octets) - (body.intake.size - before)
        if body.beyond > DRAINED:
            raise Enough

    def end(self) -> None:
        body, self.current = self.current, None
        if body is None:
            return
        if body.rest:
            body.broken = body.broken or "its base64 is cut off"
        elif not body.intake.size and self._limit:
            # What Exchange cannot convert it may leave empty; a mail without an octet does not exist.
            body.broken = body.broken or "the server gives no content"
        self._complete.append(body)

    def of(self, node: Node) -> list[Body]:
        """The bodies whose elements are in the response message ``node``; asked once for each, in their order."""
        count = sum(1 for one in node.walk() if one.name == CONTENT)
        return [self._complete.popleft() for _ in range(min(count, len(self._complete)))]

    def drop(self) -> None:
        """Forget whatever nobody took."""
        for body in (*self._complete, *([self.current] if self.current else ())):
            body.intake.abort()
        self._complete.clear()
        self.current = None


class Download(Fetching):
    """The fetching of some claims, many in one request."""

    def __init__(
        self,
        client: EwsClient,
        spool: Spool,
        claims: Sequence[Claim],
        limit: int,
        *,
        learn: Callable[[str, Known], None],
        confirm: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(claims)
        self._client = client
        self._bodies = Bodies(spool, limit)
        self._limit = limit
        self._learn = learn
        self._confirm = confirm
        self._confirmed = False
        self._absent: list[str] = []
        self._waiting = {claim.ref.uid: claim for claim in claims}
        self._sets = deque(_cut(claims, limit))

    async def _fetch_all(self) -> None:
        try:
            while self._sets:
                await self._client.patiently(partial(self._fetch_left, self._sets.popleft()))
        finally:
            self._bodies.drop()

    async def _fetch_left(self, uids: Sequence[str]) -> None:
        if left := [uid for uid in uids if uid in self._waiting]:
            await self._fetch(left)

    async def _fetch(self, uids: list[str]) -> None:
        """One request. Whatever is in doubt afterwards is asked for again, what may be to blame alone."""
        number = 0
        trouble = "the server gives no answer for it"
        whole = False
        try:
            request = soap.get_items(uids, PROPERTIES, content=True)
            async with aclosing(self._client.answers(request, "give a message", self._bodies)) as replies:
                async for reply in replies:
                    if number < len(uids):
                        self._take(reply, uids[number], alone=len(uids) == 1)
                    number += 1
            whole = True
        except Enough:
            # Which of several it is cannot be told before its id has come.
            if len(uids) == 1:
                self._cut_off(uids[0])
        except HttpError as error:
            trouble = str(error)
        except OSError as error:
            raise TransientError(f"cannot spool a message: {error.strerror}") from error
        finally:
            self._bodies.drop()
        await self._tell_absent()
        left = [uid for uid in uids if uid in self._waiting]
        if len(uids) == 1:
            self._fail(left, trouble)
        elif whole:
            self._sets.extendleft([uid] for uid in reversed(left))
        elif left:
            # The answer ended within the first that is missing, if the server keeps the order.
            self._sets.extendleft([piece for piece in (left[1:], left[:1]) if piece])

    async def _tell_absent(self) -> None:
        """Gone is for good. A server that lets us see nothing any more says the same of every message, so that is
        ruled out."""
        if self._absent and not self._confirmed:
            await self._confirm()
            self._confirmed = True
        for uid in self._absent:
            claim = self._waiting.pop(uid, None)
            if claim is not None:
                self._arrive(Gone(claim))
        self._absent.clear()

    def _take(self, reply: Reply, uid: str, *, alone: bool) -> None:
        """``uid``: which item's turn it is, if the server keeps the order."""
        if reply.ok:
            items, bodies = reply.node.find("Items"), self._bodies.of(reply.node)
            if items is not None and len(items.children) == len(bodies) == 1:
                self._item(items.children[0], bodies[0], alone=alone)
            else:
                for body in bodies:
                    body.intake.abort()
            return
        if reply.code in BUSY:
            raise reply.trouble("give a message")
        if not alone:
            # Errors have no id, and answers come in any order: what is told of one beside others is not believed.
            return
        if reply.code in GONE:
            self._absent.append(uid)
        else:
            self._fail([uid], reply.words)

    def _item(self, node: Node, body: Body, *, alone: bool) -> None:
        """An item with its content, whichever it is: answers may come in any order. What is broken is asked for once
        more, alone, and what comes of it then is given with a doubt."""
        found = node.find("ItemId")
        uid = "" if found is None else found.attributes.get("Id", "")
        if found is None or uid not in self._waiting:
            body.intake.abort()
        elif body.broken and (not alone or not body.intake.size):
            body.intake.abort()
            if alone:
                self._fail([uid], body.broken)
        else:
            self._finish(uid, body, node)
            self._learn(uid, Known(node.name, found.attributes.get("ChangeKey", "")))

    def _finish(self, uid: str, body: Body, node: Node | None) -> None:
        self._arrive(
            RawMessage(
                self._waiting.pop(uid),
                body.intake.finish(),
                truncated=body.intake.overflowed,
                received=None if node is None else iso_date(node.value("DateTimeReceived")),
                flags=() if node is None else flags_of(node),
                doubt=body.broken,
            )
        )

    def _cut_off(self, uid: str) -> None:
        """The first octets of a message that is much larger than the limit: what comes behind them is not waited
        for."""
        body, self._bodies.current = self._bodies.current, None
        if body is not None and uid in self._waiting:
            self._finish(uid, body, None)

    def _fail(self, uids: Sequence[str], reason: str) -> None:
        for uid in uids:
            if self._waiting.pop(uid, None) is not None:
                self.failed[uid] = TransientError(reason)


def flags_of(node: Node) -> tuple[str, ...]:
    """The flags of an item, named as IMAP names them; its categories too."""
    flags = [
        name
        for name, has in (
            ("\\Seen", node.value("IsRead") in ("true", "1")),
            ("\\Flagged", node.value("Flag", "FlagStatus") == "Flagged"),
        )
        if has
    ]
    return (*flags, *categories_of(node))


def categories_of(node: Node) -> tuple[str, ...]:
    """The categories of an item."""
    found = node.find("Categories")
    return () if found is None else tuple(one.text for one in found.children if one.name == "String" and one.text)


def _cut(claims: Sequence[Claim], limit: int) -> list[list[str]]:
    """Sets of at most 50 messages or about 2 MB. What is larger than the limit stands alone and last, for it may cost
    the connection."""
    sets: list[list[str]] = []
    alone: list[list[str]] = []
    octets = 0
    for claim in claims:
        size = claim.ref.size
        if size is not None and size > limit:
            alone.append([claim.ref.uid])
            continue
        share = min(UNKNOWN_SIZE if size is None else size, limit)
        if not sets or len(sets[-1]) >= SET_MESSAGES or octets + share > SET_OCTETS:
            sets.append([])
            octets = 0
        sets[-1].append(claim.ref.uid)
        octets += share
    return sets + alone
