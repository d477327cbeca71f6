"""The sink ``webhook``: what is sent when, and what the engine is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from mailpoller.core.answers import in_order, sifted
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.webhook.answers import REFUSES, Gone, PutOff, Unavailable, trouble_of
from mailpoller.sinks.webhook.config import WebhookSettings
from mailpoller.sinks.webhook.guard import Guard
from mailpoller.sinks.webhook.post import Answer, Post
from mailpoller.sinks.webhook.presets import Login
from mailpoller.sinks.webhook.shapes import Request, request_of
from mailpoller.sinks.webhook.signature import signing_key
from mailpoller.sinks.webhook.work import Suspicion, Unit, Work
from mailpoller.storage.recent import Recent
from mailpoller.wire.http import Bearer, HttpError, error_of, retry_after

_THREAD_ABOVE = 1 << 17
"""Octets from which on a request is made in a thread."""
_LARGEST_BATCH = 4 << 20
"""Octets of the events in one request, unless one alone is larger."""
_OURS = {"user-agent": "mailpoller", "accept": "*/*", "accept-encoding": "identity"}
"""Fields of every request."""


class WebhookQueue:
    """Delivers by POST. A repeat that this process knows is not sent again; after a restart it bears the same
    ``webhook-id``.

    An error of the service's, or its silence, may be one message's doing or the service's own trouble: that is told
    by whether others are taken.
    """

    def __init__(self, config: WebhookSettings, runtime: Runtime) -> None:
        self.octets_place: OctetsPlace = "beside" if config.takes_octets else "inside"
        self._config = config
        self._clock = runtime.clock
        self._tokens = _tokens(config, runtime)
        preset = config.program
        self._url = config.url.whole(preset.path if preset else "")
        self._host = config.url.host
        self._preset = preset
        self._refuses = preset.refuses if preset else REFUSES
        self._post = Post(
            self._host,
            config.url.port,
            config.url.secure,
            policy=config.policy,
            way=config.proxy or Guard(allow_private=config.allow_private),
            timeout=config.timeout,
            connections=config.connections,
        )
        self.sifts: Literal[True] = True
        self._lanes = config.connections
        self._hands = asyncio.Semaphore(config.connections)
        self._recent = Recent()
        self._suspicion = Suspicion()
        self._gone: Gone | None = None
        self._asleep_until = 0.0
        """By the clock: until when the service wants to be left alone."""

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """POST each delivery, or several in one. A service that is down ends the batch: what it had taken is told, the
        rest may be repeated.

        Raises :class:`TransientError` if it took nothing, :class:`ConfigError` for a secret of no use.
        """
        self._stand_ready()
        answers, fresh = sifted(batch, self._recent.__contains__, self._unfit, self._repeated)
        trouble = None
        if fresh:
            login, keys = await asyncio.to_thread(self._read)
            work = Work(lambda unit: self._ask(unit, login, keys), self._suspicion, min(len(fresh), self._lanes))
            await work.run(self._units(list(fresh.values())))
            answers |= work.answers
            trouble = work.trouble
        if isinstance(trouble, TransientError):
            self._heed(trouble)
        return in_order(batch, answers, trouble, self._repeated)

    async def check(self) -> None:
        """Connect, and ask nothing: what a service would answer, only a delivery can tell. Raises as
        :meth:`deliver`."""
        self._stand_ready()
        await asyncio.to_thread(self._read)
        if self._tokens is not None:
            await self._tokens.token()
        await self._post.reach()

    @property
    def durability(self) -> Durability:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return Durability.promised("an answer of 2xx")

    async def close(self) -> None:
        """Close the connections."""
        await self._post.close()

    # --- before a request ------------------------------------------------------------------------------------------
    def _stand_ready(self) -> None:
        """Raise if the service is not to be asked now."""
        if self._gone is not None:
            raise Gone(str(self._gone))
        left = self._asleep_until - self._clock.monotonic()
        if left > 0:
            raise Unavailable(
                f"{self._host} wants to be left alone for {left:.0f} s more", retry_after=timedelta(seconds=left)
            )

    def _read(self) -> tuple[Login, list[bytes]]:
        config, preset = self._config, self._config.program
        password = config.password.reveal() if config.password else ""
        token = config.token.reveal() if config.token else ""
        username = config.username or (preset.username if preset else "")
        if any(not " " <= one <= "~" for one in token):
            raise ConfigError("token: it is of ASCII, in one line")
        keys = [signing_key(one.reveal()) for one in config.signing_secrets]
        return Login(username, password, token, now=0), keys

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._host, repeated=True)

    def _unfit(self, delivery: Delivery) -> str:
        """Why the message is not sent, whatever the service would say; empty if it may be."""
        most = self._config.max_size
        size = delivery.raw.octets.size if self._config.takes_octets else delivery.event.size
        if size > most:
            return f"{self._host}: a request of {size:,} octets is larger than max_size, {most:,}"
        if self._preset is not None and self._preset.text_only and not _is_text(delivery):
            return f"{self._host}: the message's octets are no UTF-8, and the preset sends it as text"
        return ""

    def _units(self, deliveries: Sequence[Delivery]) -> Iterator[Unit]:
        """What goes together. Whoever failed before goes alone, so that he takes nobody along."""
        together: list[Delivery] = []
        size = 0
        for one in deliveries:
            if self._config.batch == 1 or one.delivery_id in self._suspicion:
                yield (one,)
                continue
            if together and (len(together) == self._config.batch or size + one.event.size > _LARGEST_BATCH):
                yield tuple(together)
                together, size = [], 0
            together.append(one)
            size += one.event.size
        if together:
            yield tuple(together)

    # --- one request -----------------------------------------------------------------------------------------------
    async def _ask(self, unit: Unit, login: Login, keys: Sequence[bytes]) -> str:
        """Send one request, and return its answer in words if it is a receipt.

        Raises :class:`MessageRejected`, :class:`PutOff`, :class:`Unavailable` and other :class:`TransientError`;
        :class:`ConfigError`.
        """
        async with self._hands:
            for attempt in (1, 2):
                self._stand_ready()
                token = await self._tokens.token() if self._tokens is not None else login.token
                login = replace(login, token=token, now=int(self._clock.now().timestamp()))
                request = await self._request(unit, login, keys)
                fields = {**_OURS, "host": self._config.url.netloc, **request.fields}
                try:
                    answer = await self._post.send(self._url, fields, request.body)
                except HttpError as error:
                    raise PutOff(str(error)) from None
                if self._tokens is None:
                    break
                if answer.status != 401:
                    self._tokens.taken(token)
                    break
                if not await self._tokens.refused(token) or attempt == 2:
                    break
        told = self._told(answer, login, request)
        trouble = trouble_of(answer.status, told, retry_after(answer.headers, self._clock.now()), self._refuses)
        if trouble is None:
            self._recent.add(one.delivery_id for one in unit)
            return f"{self._host}: HTTP {answer.status}"
        if isinstance(trouble, Gone):
            self._gone = trouble
        raise trouble

    async def _request(self, unit: Unit, login: Login, keys: Sequence[bytes]) -> Request:
        def made() -> Request:
            config = self._config
            return request_of(
                unit,
                mode=config.mode,
                preset=config.program,
                batched=config.batch > 1 or config.lines,
                lines=config.lines,
                login=login,
                keys=keys,
            )

        if sum(one.raw.octets.size + one.event.size for one in unit) > _THREAD_ABOVE:
            return await asyncio.to_thread(made)
        return made()

    def _told(self, answer: Answer, login: Login, request: Request) -> str:
        """The answer in words, for an operator: nothing of what we sent that is secret."""
        secrets = [login.password, login.token, *self._config.url.secrets]
        secrets += [request.fields.get("authorization", "").partition(" ")[2]]
        kind = answer.headers.get("content-type", "")
        code, words = error_of(answer.beginning, kind, [one for one in secrets if one])
        more = f" {code}" * bool(code) + f": {words}" * bool(words)
        return f"{self._host}: HTTP {answer.status}{more}"

    def _heed(self, trouble: TransientError) -> None:
        """Ask again when the service wants to be asked."""
        if trouble.retry_after is not None:
            wait = trouble.retry_after.total_seconds()
            self._asleep_until = max(self._asleep_until, self._clock.monotonic() + wait)


def _tokens(config: WebhookSettings, runtime: Runtime) -> Bearer | None:
    if config.auth is None:
        return None
    from mailpoller.wire.oauth.tokens import token_source

    return token_source(config.auth.terms("imap", ""), runtime.state_directory, runtime.clock)


def _is_text(delivery: Delivery) -> bool:
    try:
        bytes(delivery.raw.octets.view()).decode()
    except UnicodeDecodeError:
        return False
    return True
