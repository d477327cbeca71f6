"""The sink ``gmail``: one message after the other, and what the service's answers mean."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, Literal

from mailpoller.core.answers import sifted
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import CredentialsMissing, CredentialsRefused, SessionLost, TransientError
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.mail.parser import parse
from mailpoller.remote.bearer import TokenTrouble
from mailpoller.remote.gmail.account import ME
from mailpoller.remote.gmail.client import MESSAGES_GET, MESSAGES_LIST, GmailClient
from mailpoller.remote.gmail.errors import Invalid
from mailpoller.remote.gmail.labels import LabelGone, Labels
from mailpoller.remote.gmail.quota import quota_for
from mailpoller.remote.throttle import Busy
from mailpoller.sinks.gmail.config import GmailQueueSettings
from mailpoller.storage.begun import Begun
from mailpoller.storage.blame import Blame
from mailpoller.storage.recent import Recent
from mailpoller.wire.http import HttpStatus
from mailpoller.wire.oauth.tokens import token_source

FIELD = "X-Mailpoller-Delivery"
"""What a repeat is known by; the same as in a mailbox of any other kind."""
_BUDGET_S = 90.0
"""No further message of a batch is begun after so many seconds, and the client that others use is waited for no
longer."""
_AFTER_REFUSED = timedelta(minutes=15)
"""Until a login that was refused is tried again."""
_ALIKE = 200
"""Messages with one Message-ID that are looked at."""
_SEARCHABLE = re.compile(r"<?([!#$%&'*+./0-9=?@A-Z^_`a-z|~-]{3,250})>?")
"""A Message-ID that a search takes as it is: without blanks, quotes and brackets, which would mean something else."""
_TOO_LARGE = 413


class GmailQueue:
    """Puts messages into a mailbox. Ids of what is begun are kept, and one that was begun before is looked for there
    first: by its Message-ID, and among those by our field. One that has none, or was removed meanwhile, comes a second
    time."""

    octets_place: OctetsPlace = "beside"
    durability = Durability.promised("Gmail's answer to messages.import")

    def __init__(self, config: GmailQueueSettings, runtime: Runtime, begun: Begun) -> None:
        self.sifts: Literal[True] = True
        self._config = config
        self._begun = begun
        terms = config.auth.terms("gmail-import", config.user)
        self._tokens = token_source(terms, runtime.state_directory, runtime.clock)
        whose = config.user if config.user != ME else f"{terms.owner} {terms.client_id}"
        self._quota = quota_for(config.url, whose, runtime.clock)
        self._place = f"{config.host} {config.user}"
        self._client: GmailClient | None = None
        self._labels: Sequence[str] = ()
        self._lock = asyncio.Lock()
        self._recent = Recent()
        self._blame = Blame()
        self._absent: set[str] = set()
        """What was begun before, was looked for, and was not begun again since."""

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """Import each message. The queue's trouble ends the batch: what was taken is told, the rest is put off.

        Raises :class:`TransientError` if it took and refused nothing.
        """
        answers, fresh = sifted(batch, self._recent.__contains__, self._too_large, self._repeated)
        trouble: TransientError | None = None
        if fresh:
            ends = monotonic() + _BUDGET_S
            try:
                async with asyncio.timeout(_BUDGET_S):
                    await self._lock.acquire()
            except TimeoutError:
                return _in_order(batch, answers, "others were using the connection for too long")
            try:
                await self._work(list(fresh.values()), answers, ends)
            except TransientError as error:
                trouble = error
            finally:
                self._lock.release()
        if trouble is not None and all(isinstance(one, Refusal) and one.blame == "queue" for one in answers.values()):
            raise trouble
        return _in_order(batch, answers, str(trouble or ""))

    def _too_large(self, one: Delivery) -> str:
        size, most = one.raw.octets.size, self._config.max_size
        return f"the message has {size:,} octets, and max_size is {most:,}" if size > most else ""

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._place, repeated=True)

    async def _work(self, fresh: Sequence[Delivery], answers: dict[str, Receipt | Refusal], ends: float) -> None:
        ids = [one.delivery_id for one in fresh]
        before = set(await asyncio.to_thread(self._begun.among, ids)) - self._absent
        for one in fresh:
            if one.delivery_id in before:
                if monotonic() > ends:
                    raise TransientError(f"{self._place}: it is slow in looking for what may be there")
                if await self._lies_there(one):
                    self._recent.add([one.delivery_id])
                    answers[one.delivery_id] = self._repeated(one.delivery_id)
                else:
                    self._absent.add(one.delivery_id)
        waiting = [one for one in fresh if one.delivery_id not in answers]
        await asyncio.to_thread(self._begun.add, [one.delivery_id for one in waiting])
        put_off = 0
        for one in sorted(waiting, key=lambda one: one.delivery_id in self._blame):
            if monotonic() > ends:
                raise TransientError(f"{self._place}: too slow for so many at once")
            answer = answers[one.delivery_id] = await self._put(one)
            put_off = 0 if isinstance(answer, Receipt) or answer.blame == "message" else put_off + 1
            if put_off == 3:  # nobody can tell whether it is the messages; those behind them wait for less
                raise TransientError(answer.reason if isinstance(answer, Refusal) else self._place)

    async def _put(self, one: Delivery) -> Receipt | Refusal:
        """One message. Raises :class:`TransientError` for what is the queue's trouble."""
        client = await self._ready()
        octets = await asyncio.to_thread(_framed, one)
        self._absent.discard(one.delivery_id)
        try:
            told = await client.put(octets, self._labels, "import a message")
        except (Busy, TokenTrouble, CredentialsMissing):
            raise
        except CredentialsRefused as error:
            raise TransientError(str(error), retry_after=_AFTER_REFUSED) from error
        except (Invalid, HttpStatus, SessionLost) as error:
            if isinstance(error, HttpStatus) and error.status == _TOO_LARGE:
                self._blame.settled(one.delivery_id)
                return Refusal(one.delivery_id, str(error), permanent=True)
            if isinstance(error, Invalid):
                self._labels = ()  # one of them may have been deleted
            # Whether it is there, nobody knows; it is looked for before it is sent again.
            return self._put_off(one, error)
        uid = told.get("id")
        if not isinstance(uid, str) or not uid.isalnum():
            return self._put_off(one, TransientError(f"{self._place}: it answered without the message's id"))
        self._blame.taken(one.delivery_id)
        self._recent.add([one.delivery_id])
        return SealedReceipt(one.delivery_id, f"{self._place} {uid[:40]}")

    def _put_off(self, one: Delivery, error: TransientError) -> Refusal:
        """It failed. Raises ``error`` if it is the queue's trouble."""
        blame = self._blame.put_off(one.delivery_id)
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
                raise TransientError(f"{self._place}: {error}. {advice}", advice=advice) from None
            except CredentialsMissing:
                raise
            except CredentialsRefused as error:
                raise TransientError(str(error), retry_after=_AFTER_REFUSED) from error
        return self._client

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: login, and whether the labels are there. Whether a message may be
        imported, only one can tell."""
        try:
            async with asyncio.timeout(_BUDGET_S):
                await self._lock.acquire()
        except TimeoutError:
            return  # it is at work
        try:
            self._labels = ()
            client = await self._ready()
            if not self._config.labels:
                await Labels(client).names()
        finally:
            self._lock.release()

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _framed(delivery: Delivery) -> bytes:
    """The octets below our field."""
    cut = "; truncated" if delivery.raw.truncated else ""
    octets = bytes(delivery.raw.octets.view())
    end = "\r\n" if b"\r\n" in octets[:1000] or b"\n" not in octets[:1000] else "\n"
    return f"{FIELD}: {delivery.delivery_id}{cut}{end}".encode() + octets


def _ids(told: dict[str, Any]) -> list[str]:
    listed = told.get("messages", [])
    found = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [uid for uid in found if isinstance(uid, str) and uid.isalnum() and len(uid) < 100][:_ALIKE]


def _in_order(
    batch: Sequence[Delivery], answers: dict[str, Receipt | Refusal], otherwise: str
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
