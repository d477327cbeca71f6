"""The sink ``gmail``: one message after the other, and what the service's answers mean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Any, Literal

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import CredentialsMissing, CredentialsRefused, SessionLost, TransientError
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.mail.delivered import FIELD, below_our_field
from mailpoller.mail.parser import parse
from mailpoller.remote.bearer import TokenTrouble
from mailpoller.remote.gmail.account import ME
from mailpoller.remote.gmail.client import MESSAGES_GET, MESSAGES_LIST, GmailClient
from mailpoller.remote.gmail.errors import Invalid
from mailpoller.remote.gmail.labels import LabelGone, Labels
from mailpoller.remote.gmail.quota import quota_for
from mailpoller.remote.keeping import MailboxKeeper
from mailpoller.remote.throttle import Busy
from mailpoller.sinks.gmail.config import GmailQueueSettings
from mailpoller.storage.begun import Begun
from mailpoller.wire.http import HttpStatus
from mailpoller.wire.oauth.tokens import token_source

_AFTER_REFUSED = timedelta(minutes=15)
"""Until a login that was refused is tried again."""
_ALIKE = 200
"""Messages with one Message-ID that are looked at."""
_SEARCHABLE = re.compile(r"<?([!#$%&'*+./0-9=?@A-Z^_`a-z|~-]{3,250})>?")
"""A Message-ID that a search takes as it is: without blanks, quotes and brackets, which would mean something else."""
_TOO_LARGE = 413


class GmailQueue(MailboxKeeper):
    """Puts messages into a mailbox. Ids of what is begun are kept, and one that was begun before is looked for there
    first: by its Message-ID, and among those by our field. One that has none, or was removed meanwhile, comes a second
    time."""

    octets_place: OctetsPlace = "beside"
    durability = Durability.promised("Gmail's answer to messages.import")

    def __init__(self, config: GmailQueueSettings, runtime: Runtime, begun: Begun) -> None:
        super().__init__(f"{config.host} {config.user}", begun, config.max_size)
        self.sifts: Literal[True] = True
        self._config = config
        terms = config.auth.terms("gmail-import", config.user)
        self._tokens = token_source(terms, runtime.state_directory, runtime.clock)
        whose = config.user if config.user != ME else f"{terms.owner} {terms.client_id}"
        self._quota = quota_for(config.url, whose, runtime.clock)
        self._client: GmailClient | None = None
        self._labels: Sequence[str] = ()

    def receipt(self, delivery_id: str, reference: str = "", *, repeated: bool = False) -> Receipt:
        """See the parent's."""
        return SealedReceipt(delivery_id, f"{self.where} {reference}".rstrip(), repeated=repeated)

    async def search(self, deliveries: Sequence[Delivery]) -> AsyncGenerator[tuple[str, bool]]:
        """See the parent's."""
        for one in deliveries:
            yield one.delivery_id, await self._lies_there(one)

    async def put(self, one: Delivery) -> Receipt | Refusal:
        """See the parent's."""
        client = await self._ready()
        octets = await asyncio.to_thread(below_our_field, one, crlf=False)
        try:
            told = await client.put(octets, self._labels, "import a message")
        except (Busy, TokenTrouble, CredentialsMissing):
            raise
        except CredentialsRefused as error:
            raise TransientError(str(error), retry_after=_AFTER_REFUSED) from error
        except (Invalid, HttpStatus, SessionLost) as error:
            if isinstance(error, HttpStatus) and error.status == _TOO_LARGE:
                self.blame.settled(one.delivery_id)
                return Refusal(one.delivery_id, str(error), permanent=True)
            if isinstance(error, Invalid):
                self._labels = ()  # one of them may have been deleted
            # Whether it is there, nobody knows; it is looked for before it is sent again.
            return self._put_off(one, error)
        uid = told.get("id")
        if not isinstance(uid, str) or not uid.isalnum():
            return self._put_off(one, TransientError(f"{self.where}: it answered without the message's id"))
        return self.taken(one.delivery_id, uid[:40])

    def _put_off(self, one: Delivery, error: TransientError) -> Refusal:
        """It failed. Raises ``error`` if it is the queue's trouble."""
        blame = self.blame.put_off(one.delivery_id)
        if blame == "queue" and not isinstance(error, Invalid):
            raise error
        return Refusal(one.delivery_id, str(error), blame=blame)

    async def _lies_there(self, one: Delivery) -> bool:
        """True if a message with our field is there. Raises :class:`TransientError`."""
        found = _SEARCHABLE.fullmatch((await asyncio.to_thread(parse, one.raw)).message_id)
        if found is None:
            return False
        client = await self._ready()
        query = [("q", f"rfc822msgid:{found[1]}"), ("includeSpamTrash", "true"), ("maxResults", str(_ALIKE))]
        try:
            told = await client.get(
                "/messages", "look for a message", MESSAGES_LIST, [*query, ("fields", "messages(id)")]
            )
            for uid in _ids(told):
                if await self._bears(client, uid, one.delivery_id):
                    return True
        except CredentialsRefused as error:
            raise TransientError(str(error), retry_after=_AFTER_REFUSED) from error
        return False

    async def _bears(self, client: GmailClient, uid: str, delivery_id: str) -> bool:
        query = [("format", "metadata"), ("metadataHeaders", FIELD), ("fields", "payload(headers(name,value))")]
        told = await client.get(f"/messages/{uid}", "read a message's field", MESSAGES_GET, query)
        payload = told.get("payload")
        headers = payload.get("headers") if isinstance(payload, dict) else None
        for header in headers if isinstance(headers, list) else []:
            named = isinstance(header, dict) and str(header.get("name")).lower() == FIELD.lower()
            # Behind it there may be a word of ours, or a line with which a message begins that has no field before it.
            if named and str(header.get("value")).replace(";", " ").split()[:1] == [delivery_id]:
                return True
        return False

    async def _ready(self) -> GmailClient:
        """A client, and the labels' ids there. Raises :class:`TransientError`."""
        config = self._config
        if self._client is None or self._client.lost is not None:
            if self._client is not None:
                await self._client.close()
            self._labels = ()
            self._client = GmailClient(
                config.url, config.user, self._tokens, self._quota,
                policy=config.policy, timeout=config.timeout, proxy=config.proxy,
            )  # fmt: skip
        if not self._labels and config.labels:
            labels = Labels(self._client)
            try:
                self._labels = [await labels.find(name) for name in config.labels]
            except LabelGone as error:
                advice = "Make it, or mend labels."
                raise TransientError(f"{self.where}: {error}. {advice}", advice=advice) from None
            except CredentialsMissing:
                raise
            except CredentialsRefused as error:
                raise TransientError(str(error), retry_after=_AFTER_REFUSED) from error
        return self._client

    async def look(self) -> None:
        """Login, and whether the labels are there. Whether a message may be imported, only one can tell."""
        self._labels = ()
        client = await self._ready()
        if not self._config.labels:
            await Labels(client).names()

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _ids(told: dict[str, Any]) -> list[str]:
    listed = told.get("messages", [])
    found = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [uid for uid in found if isinstance(uid, str) and uid.isalnum() and len(uid) < 100][:_ALIKE]
