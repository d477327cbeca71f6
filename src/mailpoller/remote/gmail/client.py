"""The Gmail API as a client of one mailbox speaks it: every request takes its turn, pays its units, and fails with a
decision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

import orjson

from mailpoller.core.spool import Intake
from mailpoller.remote.bearer import TellingBearer
from mailpoller.remote.gmail.errors import refusal
from mailpoller.remote.gmail.quota import Quota
from mailpoller.remote.web import Refusal, WebClient
from mailpoller.wire.http import Bearer, HttpAnswer, HttpClient, HttpCut, HttpStatus, Unauthorized
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.retry import briefly
from mailpoller.wire.tls import TlsPolicy

AT_ONCE = 6
"""Requests in flight in one session."""

# What a request costs, in quota units (Gmail API, Usage limits).
PROFILE = LABELS_LIST = 1
HISTORY_LIST = 2
MESSAGES_IMPORT = 25
LABELS_CREATE = MESSAGES_LIST = MESSAGES_GET = MESSAGES_MODIFY = 5
BATCH_MODIFY = 50
DRAFTS_GET = 5
DRAFTS_CREATE = DRAFTS_DELETE = 10
MESSAGES_SEND = DRAFTS_SEND = 100
SEND_AS = 1

Query = Sequence[tuple[str, str]]
"""The options of a request; one may occur twice."""

T = TypeVar("T")


class GmailClient(WebClient):
    """Speaks to one mailbox. Paths are below ``/gmail/v1/users/USER``; ``units`` is what a request costs.

    Every request raises :class:`SessionLost` when there is no answer that can be used (and then every later one
    does), :class:`CredentialsRefused` for a token that is not taken and for what we may not do, :class:`Busy`,
    :class:`Missing`, :class:`Invalid`, and :class:`TransientError` for all else. All requests but
    :meth:`put`, :meth:`upload` and :meth:`ask_once` are harmless when repeated.
    """

    def __init__(
        self,
        url: str,
        user: str,
        tokens: Bearer,
        quota: Quota,
        *,
        policy: TlsPolicy,
        timeout: timedelta,
        proxy: Proxy | None = None,
    ) -> None:
        http = HttpClient(
            url, bearer=TellingBearer(tokens), policy=policy, timeout=timeout, proxy=proxy, connections=AT_ONCE,
            headers={"accept": "application/json"},
        )  # fmt: skip
        super().__init__(http, quota)
        self._mailbox = f"/gmail/v1/users/{quote(user, safe='@')}"
        self._quota = quota

    async def get(self, path: str, doing: str, units: int, query: Query = ()) -> dict[str, Any]:
        """GET a JSON object."""

        async def once() -> dict[str, Any]:
            return (await self._http.request("GET", self._target(path, query), doing=doing)).object()

        return await self._paid(units, once)

    async def post(
        self, path: str, doing: str, units: int, body: Mapping[str, object], query: Query = ()
    ) -> HttpAnswer:
        """POST JSON. A connection that breaks is made anew at once, for what is asked for twice is done once."""

        async def once() -> HttpAnswer:
            return await self._http.request("POST", self._target(path, query), doing=doing, json=body)

        return await self._paid(units, lambda: briefly(once, on=HttpCut))

    async def download(self, path: str, doing: str, units: int, query: Query, begin: Callable[[], Intake]) -> Intake:
        """GET into an intake that ``begin`` makes for each attempt, as it arrives. The caller ends it; that of a
        failed attempt is ended."""

        async def once() -> Intake:
            intake = begin()
            try:
                await self._http.download(self._target(path, query), intake, doing=doing)
            except BaseException:
                intake.abort()
                raise
            return intake

        return await self._paid(units, lambda: briefly(once, on=HttpCut))

    async def put(self, octets: bytes, labels: Sequence[str], doing: str) -> dict[str, Any]:
        """Import a message (``messages.import``) under the labels with these ids, as :meth:`upload` does."""
        options = {"internalDateSource": "dateHeader", "fields": "id,labelIds"}
        return await self.upload(
            "/messages/import", octets, {"labelIds": list(labels)}, options, MESSAGES_IMPORT, doing
        )

    async def upload(
        self,
        path: str,
        octets: bytes,
        about: Mapping[str, object],
        options: Mapping[str, str],
        units: int,
        doing: str,
    ) -> dict[str, Any]:
        """POST a message as it is (multipart upload). Not repeated unless the service says that it did not even begin:
        twice would be two messages."""
        boundary = f"mailpoller-{uuid4().hex}"
        body = b"".join(
            (
                f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n".encode(), orjson.dumps(about),
                f"\r\n--{boundary}\r\nContent-Type: message/rfc822\r\n\r\n".encode(), octets,
                f"\r\n--{boundary}--\r\n".encode(),
            )
        )  # fmt: skip
        target = f"/upload{self._mailbox}{path}?{urlencode({'uploadType': 'multipart', **options})}"
        kind = {"content-type": f"multipart/related; boundary={boundary}"}

        async def once() -> dict[str, Any]:
            return (await self._http.request("POST", target, doing=doing, content=body, headers=kind)).object()

        return await self._in_turn(lambda: self._quota.turn(units), once, self._once_only)

    async def ask_once(
        self, method: str, path: str, doing: str, units: int, body: Mapping[str, object] | None = None
    ) -> HttpAnswer:
        """A request that is not harmless when repeated: repeated as :meth:`upload` is."""

        async def once() -> HttpAnswer:
            return await self._http.request(method, self._target(path, ()), doing=doing, json=body)

        return await self._in_turn(lambda: self._quota.turn(units), once, self._once_only)

    def _once_only(self, error: HttpStatus | Unauthorized) -> Refusal:
        found = refusal(error, self._quota.clock.now())
        # 503 and a 403 for backendError are said of what was begun, too: a mail that is out may be answered so.
        begun = not found.throttled or (
            isinstance(error, HttpStatus)
            and (error.status == 503 or (error.status == 403 and error.code == "backendError"))
        )
        return replace(found, again=False) if begun else found

    def _target(self, path: str, query: Query) -> str:
        return f"{self._mailbox}{path}" + (f"?{urlencode(query)}" if query else "")

    async def _paid(self, units: int, once: Callable[[], Awaitable[T]]) -> T:
        return await self._in_turn(
            lambda: self._quota.turn(units), once, lambda error: refusal(error, self._quota.clock.now())
        )
