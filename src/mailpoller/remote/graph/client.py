"""Graph as a client speaks to it: one mailbox, immutable ids on every request, batches, and turns taken at the gate."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from mailpoller.core.record import record
from mailpoller.core.spool import Intake
from mailpoller.remote.bearer import TellingBearer
from mailpoller.remote.graph.errors import BUSY, ITEM_GONE, refusal, words_of
from mailpoller.remote.graph.gate import AT_ONCE, Gate
from mailpoller.remote.throttle import LONGEST_PAUSE
from mailpoller.remote.web import TRIES, WebClient
from mailpoller.wire.http import Bearer, HttpAnswer, HttpClient, HttpError, retry_after
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.redaction import spoken
from mailpoller.wire.retry import as_told
from mailpoller.wire.tls import TlsPolicy

IMMUTABLE = 'IdType="ImmutableId"'
"""The preference that makes an id survive a move; it counts only for the request that bears it."""
BATCHED = 20
"""Requests that one batch may hold."""
_BATCH_LIMIT = 32 << 20
"""Octets of a batch's answer: it repeats the messages that were changed, their bodies too."""
_NO_MESSAGE = ("application/json", "text/html", "application/xml", "text/xml")
"""Media types of what is sent in place of a message, by a proxy or by the service itself."""


@record
class Ask:
    """One request of a batch. ``path`` is below the mailbox; ``body`` is JSON."""

    method: str
    path: str
    body: Mapping[str, object] | None = None


@record
class Answer:
    """What came of one request of a batch. ``status`` 0: the service said nothing about it."""

    status: int
    body: Mapping[str, Any]
    code: str = ""
    words: str = ""
    retry_after: timedelta | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The message is not there (any more)."""
        return self.status == 404 and self.code in ITEM_GONE

    @property
    def busy(self) -> bool:
        """It may pass at another time."""
        return self.status in BUSY or self.status in (0, 409, 412, 424) or (self.status >= 500 and self.status != 507)

    @property
    def reason(self) -> str:
        """What the service said, and what to do."""
        if not self.status:
            return "the service gave no answer for it"
        said = (
            f"HTTP {self.status}" + (f" {self.code}" if self.code else "") + (f": {self.words}" if self.words else "")
        )
        return words_of(said, self.code)


class GraphClient(WebClient):
    """Speaks to one mailbox. Paths are below ``/users/USER``; links are those that the service gave, of the same host.

    Every request raises :class:`SessionLost` when there is no answer that can be used (and then every later one
    does), :class:`CredentialsRefused` for a token that is not taken and for what we may not do, :class:`Busy`,
    :class:`Missing`, :class:`SyncLost`, and :class:`TransientError` for all else.
    """

    def __init__(
        self,
        url: str,
        user: str,
        tokens: Bearer,
        gate: Gate,
        *,
        policy: TlsPolicy,
        timeout: timedelta,
        proxy: Proxy | None = None,
    ) -> None:
        http = HttpClient(
            url, bearer=TellingBearer(tokens), policy=policy, timeout=timeout, proxy=proxy, connections=AT_ONCE
        )  # fmt: skip
        super().__init__(http, gate)
        self._mailbox = f"/users/{quote(user, safe='@')}"
        self._gate = gate

    # --- requests ----------------------------------------------------------------------------------------------
    async def get(self, path: str, doing: str, *, prefer: str = "", **query: str) -> HttpAnswer:
        """GET a path below the mailbox, or a link. ``query``: OData's options without their dollar sign."""
        target = path if "://" in path else self._mailbox + path
        options = {f"${name}": value for name, value in query.items()}
        return await self._ask("GET", target, doing, prefer=prefer, query=options or None)

    async def post(self, path: str, doing: str, body: Mapping[str, object]) -> HttpAnswer:
        """POST JSON to a path below the mailbox."""
        return await self._ask("POST", self._mailbox + path, doing, json=body)

    async def send(self, content: bytes, doing: str) -> HttpAnswer:
        """POST a mail as base64 to ``sendMail``. Repeated only where the service said that it did not look at it."""
        return await self._ask(
            "POST", f"{self._mailbox}/sendMail", doing, content=content, kind="text/plain", again=(429,)
        )  # fmt: skip

    async def draft(self, content: bytes, doing: str) -> HttpAnswer:
        """POST a mail as base64 to the drafts; the answer shows it. Repeated as :meth:`send` is."""
        return await self._ask(
            "POST", f"{self._mailbox}/messages", doing, content=content, kind="text/plain", again=(429,)
        )  # fmt: skip

    async def submit(self, uid: str, doing: str) -> HttpAnswer:
        """Send a draft. Repeated as :meth:`send` is."""
        target = f"{self._mailbox}/messages/{quote(uid, safe='')}/send"
        return await self._ask("POST", target, doing, content=b"", again=(429,))

    async def drop(self, uid: str, doing: str) -> None:
        """Remove a message into the folder of what was deleted."""
        await self._ask("DELETE", f"{self._mailbox}/messages/{quote(uid, safe='')}", doing)

    async def download(self, uid: str, intake: Intake, doing: str) -> bool:
        """The MIME octets of a message, as they arrive, up to the intake's limit. The caller ends the intake. False:
        a cut would look like the end."""
        target = f"{self._mailbox}/messages/{quote(uid, safe='')}/$value"

        async def once() -> bool:
            return await self._http.download(
                target, intake, doing=doing, headers={"prefer": IMMUTABLE}, refuses=_NO_MESSAGE
            )  # fmt: skip

        return await self._in_turn(self._gate.turn, once, refusal)

    async def batch(self, asks: Sequence[Ask], doing: str) -> list[Answer]:
        """Every request, twenty at a time; an answer for each, in the same order. What was throttled is asked again,
        for a while."""
        answers: list[Answer] = []
        for first in range(0, len(asks), BATCHED):
            answers += await self._batch(asks[first : first + BATCHED], doing)
        return answers

    # --- one request -------------------------------------------------------------------------------------------
    async def _ask(
        self,
        method: str,
        target: str,
        doing: str,
        *,
        prefer: str = "",
        query: Mapping[str, str] | None = None,
        json: object = None,
        content: bytes | None = None,
        kind: str = "",
        again: Collection[int] = BUSY,
        places: int = 1,
        requests: int = 1,
        limit: int | None = None,
    ) -> HttpAnswer:
        headers = {"prefer": f"{IMMUTABLE}, {prefer}" if prefer else IMMUTABLE}
        if kind:
            headers["content-type"] = kind
        options: dict[str, Any] = {} if limit is None else {"limit": limit}

        async def once() -> HttpAnswer:
            return await self._http.request(
                method, target, doing=doing, query=query, headers=headers, json=json, content=content, **options
            )

        return await self._in_turn(lambda: self._gate.turn(places, requests), once, lambda error: refusal(error, again))

    # --- batches -----------------------------------------------------------------------------------------------
    async def _batch(self, asks: Sequence[Ask], doing: str) -> list[Answer]:
        answers = [Answer(0, {})] * len(asks)
        left = list(range(len(asks)))

        async def rest() -> None:
            nonlocal left
            body = {"requests": [self._part(number, asks[number]) for number in left]}
            # A batch is worked on by as many as may at a time, so it takes every place.
            answer = await self._ask(
                "POST", "/$batch", doing, json=body, places=AT_ONCE, requests=len(left), limit=_BATCH_LIMIT
            )
            for number, one in self._parts(answer, doing, [self._mailbox + ask.path for ask in asks]):
                if number in left:
                    answers[number] = one
            left = [number for number in left if answers[number].status in BUSY]
            if left:
                told = [one.retry_after for number in left if (one := answers[number]).retry_after is not None]
                raise _Left(self._gate.throttled(max((one for one in told if one is not None), default=None)))

        with contextlib.suppress(_Left):  # who was not served has the service's last word for an answer
            await as_told(rest, _pause, tries=TRIES, sleep=self._gate.clock.sleep)
        return answers

    def _part(self, number: int, ask: Ask) -> dict[str, object]:
        # A changed message need not be sent back to us, if the service can spare it.
        headers = {"Prefer": IMMUTABLE if ask.method == "GET" else f"{IMMUTABLE}, return=minimal"}
        part: dict[str, object] = {
            "id": str(number), "method": ask.method, "url": self._mailbox + ask.path, "headers": headers
        }  # fmt: skip
        if ask.body is not None:
            part["body"] = ask.body
            headers["Content-Type"] = "application/json"
        return part

    def _parts(self, answer: HttpAnswer, doing: str, asked: Sequence[str]) -> list[tuple[int, Answer]]:
        try:
            responses = answer.object().get("responses")
        except HttpError as error:
            raise self.lose(str(error)) from None
        if not isinstance(responses, list):
            raise self.lose(f"{self.host}: {doing}: a batch was answered without responses")
        return [found for one in responses if (found := _answer(one, asked)) is not None]

    def object(self, answer: HttpAnswer) -> dict[str, Any]:
        """The answer's JSON object. An answer that is none ends the session: whoever speaks there is not Graph."""
        try:
            return answer.object()
        except HttpError as error:
            raise self.lose(str(error)) from None


class _Left(Exception):
    """Some parts of a batch were not served; ``pause``: how far away the next turn is."""

    def __init__(self, pause: float) -> None:
        super().__init__("the service is busy")
        self.pause = pause


def _pause(error: Exception, _attempt: int) -> float | None:
    """See :func:`~mailpoller.wire.retry.as_told`; the next turn waits by itself."""
    return 0.0 if isinstance(error, _Left) and error.pause <= LONGEST_PAUSE else None


def _answer(response: object, asked: Sequence[str]) -> tuple[int, Answer] | None:
    """One of a batch's responses, with the number of its request; None if it makes no sense. ``asked``: the path of
    each request, by number."""
    if not isinstance(response, dict):
        return None
    number, status = response.get("id"), response.get("status")
    if not isinstance(number, str) or not number.isdigit() or len(number) > 4 or not isinstance(status, int):
        return None
    body = response.get("body")
    body = body if isinstance(body, dict) else {}
    headers = response.get("headers")
    told = {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {}
    error = body.get("error")
    error = error if isinstance(error, dict) else {}
    code, words = error.get("code"), error.get("message")
    return int(number), Answer(
        status,
        body,
        spoken(code)[:80] if isinstance(code, str) else "",
        spoken(words, (), asked[int(number) : int(number) + 1]) if isinstance(words, str) else "",
        retry_after(told),
    )
