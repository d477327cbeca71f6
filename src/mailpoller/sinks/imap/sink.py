"""The sink ``imap``: one connection, one message after the other, and what the server's answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from time import monotonic
from typing import Literal
from uuid import uuid4

from mailpoller.core.answers import sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import CredentialsMissing, CredentialsRefused, SessionLost, TransientError
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.imap.config import ImapQueueSettings
from mailpoller.sinks.imap.message import FIELD, arguments, framed, unfit
from mailpoller.storage.begun import Begun
from mailpoller.storage.blame import Blame
from mailpoller.storage.recent import Recent
from mailpoller.wire.auth import Credentials
from mailpoller.wire.imap.connecting import open_client
from mailpoller.wire.imap.folders import Folders
from mailpoller.wire.imap.protocol import ImapClient, ImapProtocol
from mailpoller.wire.imap.responses import Status
from mailpoller.wire.imap.search import hits

_BUDGET_S = 90.0
"""No further message of a batch is begun after so many seconds, and a connection that others use is waited for no
longer."""
_IDLE_S = 25.0
"""A connection that was not used for so long is asked whether it lives: servers and gateways drop them in silence."""
_OF_THE_MESSAGE = frozenset(("TOOBIG",))
"""Response codes that speak of the message (RFC 4469 section 4.2)."""
_OF_THE_QUEUE = frozenset(
    ("TRYCREATE", "NONEXISTENT", "OVERQUOTA", "NOPERM", "LIMIT", "INUSE", "CONTACTADMIN", "SERVERBUG", "CANNOT")
)
"""Those that speak of the folder or the account (RFC 5530)."""
_AFTER_REFUSED = timedelta(minutes=15)
"""Until a login that was refused is tried again: many lock an account that keeps failing."""


class ImapQueue:
    """Puts messages into a folder. Ids of what is begun are kept, and one that was begun before is looked for there
    first, by our field; if it was removed meanwhile, it comes a second time."""

    octets_place: OctetsPlace = "beside"
    durability = Durability.promised("an OK to APPEND")

    def __init__(self, name: str, config: ImapQueueSettings, credentials: Credentials, begun: Begun) -> None:
        self.sifts: Literal[True] = True
        self._name = name
        self._config = config
        self._credentials = credentials
        self._begun = begun
        self._place = f"{config.host} {config.folder}"
        self._client: ImapClient | None = None
        self._folder = ""
        self._used_at = 0.0
        self._lock = asyncio.Lock()
        self._recent = Recent()
        self._blame = Blame()
        self._absent: set[str] = set()
        """What was begun before, was looked for, and was not begun again since."""

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """APPEND each message. The queue's trouble ends the batch: what was taken is told, the rest is put off.

        Raises :class:`TransientError` if it took and refused nothing.
        """
        answers, fresh = sifted(
            batch, self._recent.__contains__, lambda one: unfit(one, self._config.max_size), self._repeated
        )
        trouble: TransientError | None = None
        if fresh:
            ends = monotonic() + _BUDGET_S
            try:
                async with asyncio.timeout(_BUDGET_S):
                    await self._lock.acquire()
            except TimeoutError:
                return list(self._in_order(batch, answers, "others were using the connection for too long"))
            try:
                await self._work(list(fresh.values()), answers, ends)
            except TransientError as error:
                trouble = error
            finally:
                self._lock.release()
        if trouble is not None and all(isinstance(one, Refusal) and one.blame == "queue" for one in answers.values()):
            raise trouble
        return list(self._in_order(batch, answers, str(trouble or "")))

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._place, repeated=True)

    async def _work(self, fresh: Sequence[Delivery], answers: dict[str, Receipt | Refusal], ends: float) -> None:
        ids = [one.delivery_id for one in fresh]
        before = [one for one in await asyncio.to_thread(self._begun.among, ids) if one not in self._absent]
        if before:
            await self._look_for(before, ends)
        for delivery_id in before:
            if delivery_id in self._recent:
                answers[delivery_id] = self._repeated(delivery_id)
        waiting = [one for one in fresh if one.delivery_id not in answers]
        await asyncio.to_thread(self._begun.add, [one.delivery_id for one in waiting])
        put_off = 0
        for one in sorted(waiting, key=lambda one: one.delivery_id in self._blame):
            if monotonic() > ends:
                raise TransientError(f"{self._place}: too slow for so many at once")
            if one.delivery_id in answers:  # twice in the batch
                continue
            answer = answers[one.delivery_id] = await self._append(one)
            put_off = 0 if isinstance(answer, Receipt) or answer.blame == "message" else put_off + 1
            if put_off == 3:  # nobody can tell whether it is the messages; those behind them wait for less
                raise TransientError(f"{answer.reason}" if isinstance(answer, Refusal) else self._place)

    async def _append(self, one: Delivery) -> Receipt | Refusal:
        """One message. Raises :class:`TransientError` for what is the queue's trouble."""
        client = await self._ready()
        protocol = client.protocol
        self._absent.discard(one.delivery_id)
        octets = await asyncio.to_thread(framed, one)
        limit = _limit(protocol.capabilities)
        if limit is not None and len(octets) > limit:
            reason = f"{self._place}: the message has {len(octets):,} octets, and the server takes {limit:,}"
            return Refusal(one.delivery_id, reason, permanent=True, unasked=True)
        if b"\0" in octets and "BINARY" not in protocol.capabilities:
            reason = f"{self._place}: the message has a NUL octet, which this server does not take (BINARY, RFC 3516)"
            return Refusal(one.delivery_id, reason, permanent=True, unasked=True)
        try:
            words = arguments(one, self._config.flags, octets)
            status = (await protocol.run("APPEND", protocol.named(self._folder), *words, replies=[octets])).status
        except BaseException as error:
            # Whether it is there, nobody knows; it is looked for before it is sent again.
            protocol.lose("a message was on its way")
            if isinstance(error, SessionLost) and self._blame.put_off(one.delivery_id) == "message":
                return Refusal(one.delivery_id, f"{self._place}: {error}")
            raise
        self._used_at = monotonic()
        return self._told(one.delivery_id, status)

    def _told(self, delivery_id: str, status: Status) -> Receipt | Refusal:
        if status.ok:
            self._blame.taken(delivery_id)
            self._recent.add([delivery_id])
            uid = status.arguments.decode("ascii", "replace").partition(" ")[2] if status.code == "APPENDUID" else ""
            return SealedReceipt(delivery_id, f"{self._place} {uid}".rstrip())
        words = f"{self._place}: {status}"
        if status.busy or status.code in _OF_THE_QUEUE:
            advice = f"Make the folder {self._config.folder}." if status.code == "TRYCREATE" else ""
            raise TransientError(words, retry_after=status.pause, advice=advice)
        if status.code in _OF_THE_MESSAGE:
            self._blame.settled(delivery_id)
            return Refusal(delivery_id, words, permanent=True)
        return Refusal(delivery_id, words, blame=self._blame.put_off(delivery_id))

    async def _look_for(self, ids: Sequence[str], ends: float) -> None:
        """Find out which of the ids the folder shows, and remember it. A server whose SEARCH finds what cannot be
        there is not believed. Raises :class:`TransientError`."""
        protocol = (await self._ready()).protocol
        await self._examine(protocol)
        if await self._shows(protocol, str(uuid4())):
            self._absent.update(ids)
            return
        for one in ids:
            if monotonic() > ends:
                raise TransientError(f"{self._place}: it is slow in looking for what may be there")
            # One after the other: a server may mix up the answers to two of them, which bear no name.
            if await self._shows(protocol, one):
                self._recent.add([one])
            else:
                self._absent.add(one)

    async def _shows(self, protocol: ImapProtocol, delivery_id: str) -> bool:
        words = f'HEADER {FIELD} "{delivery_id}"'
        answer = await protocol.run("SEARCH", words, within=protocol.mailbox, wants=(b"SEARCH", b"ESEARCH"))
        if not answer.status.ok:
            raise TransientError(f"{self._place}: {answer.status}")
        with protocol.reading():
            return len(hits(answer.data)) > 0

    async def _examine(self, protocol: ImapProtocol) -> None:
        """Open the folder, to read. Raises :class:`TransientError`."""
        status = (await protocol.run("EXAMINE", protocol.named(self._folder))).status
        protocol.state = "SELECTED" if status.ok else "AUTH"  # RFC 3501 section 6.3.1
        if not status.ok:
            raise TransientError(f"{self._place}: {status}")

    async def _ready(self) -> ImapClient:
        """A connection that is logged in, and the folder's name there. Raises :class:`TransientError`."""
        client = self._client
        if client is not None and client.protocol.lost is None and monotonic() - self._used_at > _IDLE_S:
            try:
                await client.protocol.run("NOOP")
            except SessionLost:
                client = None
        if client is None or client.protocol.lost is not None:
            try:
                client = self._client = await open_client(self._name, self._config, self._credentials, utf8=False)
            except CredentialsMissing:
                raise
            except CredentialsRefused as error:
                raise TransientError(str(error), retry_after=_AFTER_REFUSED) from error
            self._folder, there = await Folders(client.protocol).find(self._config.folder)
            if not there:
                client.protocol.lose("the folder is missing")
                raise TransientError(
                    f"{self._config.host}: there is no folder {self._config.folder}", advice="Make it, or mend folder."
                )
        self._used_at = monotonic()
        return client

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: login, and whether the folder is there. Whether it may be written
        to, only a message can tell."""
        try:
            async with asyncio.timeout(_BUDGET_S):
                await self._lock.acquire()
        except TimeoutError:
            return  # it is at work
        try:
            await self._examine((await self._ready()).protocol)
        finally:
            self._lock.release()

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        client, self._client = self._client, None
        if client is not None:
            client.protocol.lose("closed")

    def _in_order(
        self, batch: Sequence[Delivery], answers: dict[str, Receipt | Refusal], otherwise: str
    ) -> Sequence[Receipt | Refusal]:
        told: set[str] = set()
        found: list[Receipt | Refusal] = []
        for one in batch:
            answer = answers.get(one.delivery_id) or Refusal(one.delivery_id, otherwise, blame="queue")
            if isinstance(answer, Receipt) and one.delivery_id in told:
                answer = SealedReceipt(answer.delivery_id, answer.reference, repeated=True)
            told.add(one.delivery_id)
            found.append(answer)
        return found


def _limit(capabilities: Collection[str]) -> int | None:
    """What the server takes at most (APPENDLIMIT, RFC 7889); None if it does not say."""
    for one in capabilities:
        name, _, size = one.partition("=")
        if name.upper() == "APPENDLIMIT" and size.isdigit():
            return int(size)
    return None
