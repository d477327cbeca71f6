"""The sink ``imap``: one connection, one message after the other, and what the server's answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import timedelta
from time import monotonic
from typing import Literal
from uuid import uuid4

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import CredentialsMissing, CredentialsRefused, SessionLost, TransientError
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.mail.delivered import FIELD, below_our_field
from mailpoller.remote.keeping import MailboxKeeper
from mailpoller.sinks.imap.config import ImapQueueSettings
from mailpoller.sinks.imap.message import arguments
from mailpoller.storage.begun import Begun
from mailpoller.wire.auth import Credentials
from mailpoller.wire.imap.connecting import open_client
from mailpoller.wire.imap.folders import Folders
from mailpoller.wire.imap.protocol import ImapClient, ImapProtocol
from mailpoller.wire.imap.responses import Status
from mailpoller.wire.imap.search import hits

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


class ImapQueue(MailboxKeeper):
    """Puts messages into a folder. Ids of what is begun are kept, and one that was begun before is looked for there
    first, by our field; if it was removed meanwhile, it comes a second time."""

    octets_place: OctetsPlace = "beside"
    durability = Durability.promised("an OK to APPEND")

    def __init__(self, name: str, config: ImapQueueSettings, credentials: Credentials, begun: Begun) -> None:
        super().__init__(f"{config.host} {config.folder}", begun, config.max_size)
        self.sifts: Literal[True] = True
        self._name = name
        self._config = config
        self._credentials = credentials
        self._client: ImapClient | None = None
        self._folder = ""
        self._used_at = 0.0

    def receipt(self, delivery_id: str, reference: str = "", *, repeated: bool = False) -> Receipt:
        """See the parent's."""
        return SealedReceipt(delivery_id, f"{self.where} {reference}".rstrip(), repeated=repeated)

    async def put(self, one: Delivery) -> Receipt | Refusal:
        """See the parent's."""
        client = await self._ready()
        protocol = client.protocol
        octets = await asyncio.to_thread(below_our_field, one, crlf=True)
        limit = _limit(protocol.capabilities)
        if limit is not None and len(octets) > limit:
            reason = f"{self.where}: the message has {len(octets):,} octets, and the server takes {limit:,}"
            return Refusal(one.delivery_id, reason, permanent=True, unasked=True)
        if b"\0" in octets and "BINARY" not in protocol.capabilities:
            reason = f"{self.where}: the message has a NUL octet, which this server does not take (BINARY, RFC 3516)"
            return Refusal(one.delivery_id, reason, permanent=True, unasked=True)
        try:
            words = arguments(one, self._config.flags, octets)
            status = (await protocol.run("APPEND", protocol.named(self._folder), *words, replies=[octets])).status
        except BaseException as error:
            # Whether it is there, nobody knows; it is looked for before it is sent again.
            protocol.lose("a message was on its way")
            if isinstance(error, SessionLost) and self.blame.put_off(one.delivery_id) == "message":
                return Refusal(one.delivery_id, f"{self.where}: {error}")
            raise
        self._used_at = monotonic()
        return self._told(one.delivery_id, status)

    def _told(self, delivery_id: str, status: Status) -> Receipt | Refusal:
        if status.ok:
            uid = status.arguments.decode("ascii", "replace").partition(" ")[2] if status.code == "APPENDUID" else ""
            return self.taken(delivery_id, uid)
        words = f"{self.where}: {status}"
        if status.busy or status.code in _OF_THE_QUEUE:
            advice = f"Make the folder {self._config.folder}." if status.code == "TRYCREATE" else ""
            raise TransientError(words, retry_after=status.pause, advice=advice)
        if status.code in _OF_THE_MESSAGE:
            self.blame.settled(delivery_id)
            return Refusal(delivery_id, words, permanent=True)
        return Refusal(delivery_id, words, blame=self.blame.put_off(delivery_id))

    async def search(self, deliveries: Sequence[Delivery]) -> AsyncGenerator[tuple[str, bool]]:
        """See the parent's. A server whose SEARCH finds what cannot be there is not believed."""
        protocol = (await self._ready()).protocol
        await self._examine(protocol)
        believed = not await self._shows(protocol, str(uuid4()))
        for one in deliveries:
            # One after the other: a server may mix up the answers to two of them, which bear no name.
            yield one.delivery_id, believed and await self._shows(protocol, one.delivery_id)

    async def _shows(self, protocol: ImapProtocol, delivery_id: str) -> bool:
        words = f'HEADER {FIELD} "{delivery_id}"'
        answer = await protocol.run("SEARCH", words, within=protocol.mailbox, wants=(b"SEARCH", b"ESEARCH"))
        if not answer.status.ok:
            raise TransientError(f"{self.where}: {answer.status}")
        with protocol.reading():
            return len(hits(answer.data)) > 0

    async def _examine(self, protocol: ImapProtocol) -> None:
        """Open the folder, to read. Raises :class:`TransientError`."""
        status = (await protocol.run("EXAMINE", protocol.named(self._folder))).status
        protocol.state = "SELECTED" if status.ok else "AUTH"  # RFC 3501 section 6.3.1
        if not status.ok:
            raise TransientError(f"{self.where}: {status}")

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

    async def look(self) -> None:
        """Login, and whether the folder is there. Whether it may be written to, only a message can tell."""
        await self._examine((await self._ready()).protocol)

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        client, self._client = self._client, None
        if client is not None:
            client.protocol.lose("closed")


def _limit(capabilities: Collection[str]) -> int | None:
    """What the server takes at most (APPENDLIMIT, RFC 7889); None if it does not say."""
    for one in capabilities:
        name, _, size = one.partition("=")
        if name.upper() == "APPENDLIMIT" and size.isdigit():
            return int(size)
    return None
