"""Outgoing mail by the Gmail API, with the mail as it is: for accounts without SMTP AUTH."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

import structlog
from pydantic import Field, model_validator

from mailpoller.core.component import OutgoingConfig, Runtime
from mailpoller.core.errors import MailpollerError, MessageRejected, TransientError
from mailpoller.core.literals import MailAddress, Size
from mailpoller.core.ports import Draft, Keep, Mail, Outgoing, Said, Stage
from mailpoller.mail.addressed import addressed
from mailpoller.remote.drafts import Fate, posted_by_draft
from mailpoller.remote.gmail.account import ME, GmailAccount
from mailpoller.remote.gmail.client import (
    DRAFTS_CREATE,
    DRAFTS_DELETE,
    DRAFTS_GET,
    DRAFTS_SEND,
    MESSAGES_GET,
    MESSAGES_LIST,
    MESSAGES_SEND,
    PROFILE,
    SEND_AS,
    GmailClient,
)
from mailpoller.remote.gmail.errors import Invalid, Missing
from mailpoller.remote.gmail.quota import quota_for
from mailpoller.wire.http import HttpStatus
from mailpoller.wire.oauth.tokens import token_source
from mailpoller.wire.probe import WebApproach, token_step
from mailpoller.wire.smtp import NotCarried, RelayUnavailable, posted

log = structlog.get_logger(__name__)

LARGEST = 35_000_000
"""Octets of a mail that the service takes in one upload."""
DOING = "send a mail"

T = TypeVar("T")


class GmailOutgoingConfig(GmailAccount, OutgoingConfig):
    """Send mail as a user of Gmail, by the Gmail API. The token needs the scope ``gmail.modify``, as a mailbox's."""

    type: Literal["gmail"]
    sender: MailAddress
    """The address that our mail comes from: the user's own, or one that Gmail lets the user send as. It is the
    envelope sender too: Gmail has no null sender. Another address Gmail replaces by the user's own."""
    max_size: Size = Field(default=25_000_000, le=LARGEST)
    """The largest mail in octets that is sent here. Gmail sends 25 MB, and some accounts more."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self.check_login()
        return self

    @property
    def has_envelope(self) -> bool:
        return False

    def build(self, name: str, runtime: Runtime) -> Outgoing:
        """The outgoing. Opens nothing."""
        return GmailOutgoing(name, self, runtime)


class GmailOutgoing:
    """See :class:`mailpoller.core.ports.Outgoing` and :class:`~mailpoller.core.ports.Drafting`."""

    drafts = True

    def __init__(self, name: str, config: GmailOutgoingConfig, runtime: Runtime) -> None:
        self.name = name
        self.host = config.host
        self.sender = config.sender
        self._config = config
        self._clock = runtime.clock
        terms = config.auth.terms("gmail", config.user)
        self._tokens = token_source(terms, runtime.state_directory, runtime.clock)
        whose = config.user if config.user != ME else f"{terms.owner} {terms.client_id}"
        self._quota = quota_for(config.url, whose, runtime.clock)
        self._client: GmailClient | None = None
        self._address = ""
        """Whose mailbox it is, as the service said to this client."""

    async def send(self, mail: Mail) -> str:
        """Hand the mail to Gmail; it answers before it has looked for the recipients, so refusals come as mail to the
        sender.

        The same errors as by SMTP: :class:`NotCarried` (``SIZE``), :class:`MessageRejected`,
        :class:`CredentialsRefused`, :class:`RelayUnavailable`.
        """
        began = monotonic()
        self._check(mail)
        octets, options = addressed(mail), {"fields": "id"}
        sent = self._connected().upload("/messages/send", octets, {}, options, MESSAGES_SEND, DOING)
        words = _words(await self._asked(sent))
        elapsed = round(monotonic() - began, 3)
        self._tell(len(mail.recipients), words, size_bytes=len(mail.octets), elapsed_s=elapsed)
        return words

    async def post(self, mail: Mail) -> Mapping[str, Said]:
        """See :class:`~mailpoller.core.ports.Posting`."""
        return await posted(self.send, mail)

    async def post_draft(self, mail: Mail, kept: Draft | None, keep: Keep) -> Mapping[str, Said]:
        """See :class:`~mailpoller.core.ports.Drafting`."""
        return await posted_by_draft(self, mail, kept, keep, self._clock)

    # --- drafts, see mailpoller.remote.drafts ------------------------------------------------------------------
    async def place(self) -> str:
        """By the address that the service says: ``me`` is whoever the token is of."""
        client = self._connected()
        if not self._address:
            profile = await self._asked(
                client.get("/profile", "let us into the mailbox", PROFILE, [("fields", "emailAddress")])
            )
            self._address = _text(profile, "emailAddress", self.host)
        return f"{self.host} {self._address.casefold()}"

    async def make(self, mail: Mail) -> Draft:
        self._check(mail)
        place, client, options = await self.place(), self._connected(), {"fields": "id,message(id)"}
        octets = addressed(mail)
        made = await self._asked(client.upload("/drafts", octets, {}, options, DRAFTS_CREATE, "make a draft"))
        uid = _text(made, "id", self.host)
        try:
            message_id = await self._message_id(_text(made.get("message"), "id", self.host))
        except MailpollerError:
            await client.ask_once("DELETE", f"/drafts/{quote(uid, safe='')}", "remove a draft", DRAFTS_DELETE)
            raise
        return Draft(uid, message_id, place, mail.recipients)

    async def submit(self, draft: Draft) -> tuple[str, str]:
        asked = self._connected().ask_once("POST", "/drafts/send", DOING, DRAFTS_SEND, {"id": draft.id})
        sent = (await self._asked(asked)).object()
        words = _words(sent)
        self._tell(len(draft.recipients), words)
        try:  # Gmail may have given it another one
            return words, await self._message_id(_text(sent, "id", self.host)) or draft.message_id
        except MailpollerError:
            return words, draft.message_id

    async def fate(self, draft: Draft) -> Fate:
        client, path = self._connected(), f"/drafts/{quote(draft.id, safe='')}"
        try:
            await self._asked(client.get(path, "show a draft", DRAFTS_GET, [("format", "minimal"), ("fields", "id")]))
            return "waits"
        except Missing:
            pass
        wanted = draft.message_id.strip("<>")
        if not wanted or any(one.isspace() or one in '"(){}' for one in wanted):
            return "missing"  # no search would take it as it is
        query = [
            ("labelIds", "SENT"),
            ("q", f"rfc822msgid:{wanted}"),
            ("includeSpamTrash", "true"),
            ("maxResults", "1"),
        ]
        asked = client.get("/messages", "look among the sent mail", MESSAGES_LIST, [*query, ("fields", "messages(id)")])
        return "sent" if (await self._asked(asked)).get("messages") else "missing"

    async def drop(self, draft: Draft) -> None:
        path = f"/drafts/{quote(draft.id, safe='')}"
        await self._asked(self._connected().ask_once("DELETE", path, "remove a draft", DRAFTS_DELETE))

    async def _message_id(self, uid: str) -> str:
        """Of a message, with its brackets; empty if it has none."""
        query = [("format", "metadata"), ("metadataHeaders", "Message-ID"), ("fields", "payload(headers)")]
        path = f"/messages/{quote(uid, safe='')}"
        shown = await self._asked(self._connected().get(path, "show a draft", MESSAGES_GET, query))
        payload = shown.get("payload")
        fields = payload.get("headers") if isinstance(payload, dict) else None
        for one in fields if isinstance(fields, list) else []:
            if isinstance(one, dict) and str(one.get("name", "")).lower() == "message-id":
                return str(one.get("value", "")).strip()
        return ""

    # --- asking ------------------------------------------------------------------------------------------------
    def _check(self, mail: Mail) -> None:
        size, limit = len(mail.octets), self._config.max_size
        if size > limit:
            words = f"{self.host}: the mail has {size:,} octets, and max_size is {limit:,}"
            raise NotCarried(words, lacks="SIZE", limit=limit)

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except Missing:
            raise  # of one draft, and no trouble of the service
        except Invalid as error:
            raise MessageRejected(str(error)) from None
        except HttpStatus as error:
            if error.status == 413:
                raise NotCarried(str(error), lacks="SIZE", limit=self._config.max_size) from None
            raise RelayUnavailable(str(error), retry_after=error.retry_after) from None
        except TransientError as error:
            raise RelayUnavailable(str(error), retry_after=error.retry_after) from None

    def _connected(self) -> GmailClient:
        if self._client is None or self._client.lost is not None:
            self._client, self._address = self._new(), ""
        return self._client

    def _new(self) -> GmailClient:
        config = self._config
        return GmailClient(
            config.url, config.user, self._tokens, self._quota,
            policy=config.policy, timeout=config.timeout, proxy=config.proxy,
        )  # fmt: skip

    def _tell(self, recipients: int, words: str, **more: Any) -> None:
        log.info("mail.sent", outgoing=self.name, recipients=recipients, answer=words, **more)

    # --- for check ---------------------------------------------------------------------------------------------
    def probe(self) -> AsyncIterator[Stage]:
        """Every stage up to the right to send, and whether Gmail lets the user send as ``sender``."""
        config, client = self._config, self._new()
        way = WebApproach(config.url, config.policy, config.proxy, config.timeout, named="url")

        async def right() -> str:
            try:
                await client.ask_once("POST", "/drafts/send", "ask for the right to send", DRAFTS_SEND, {"id": "none"})
            except (Missing, Invalid):
                pass  # it was looked for, so we may
            return "may send, by drafts"

        async def sender() -> str:
            shown = await client.get("/settings/sendAs", "show whom the user may send as", SEND_AS)
            known = [one for one in shown.get("sendAs", []) if isinstance(one, dict)]
            for one in known:
                if str(one.get("sendAsEmail", "")).casefold() == (config.from_ or config.sender).casefold() and (
                    one.get("isPrimary") is True or one.get("verificationStatus") == "accepted"
                ):
                    return f"may send as {one['sendAsEmail']}"
            raise TransientError(f"Gmail would replace {config.from_ or config.sender} by the user's own address")

        def advice(stage: str, error: MailpollerError) -> str:
            return _ADVICE[stage]

        return way.probe([token_step(self._tokens), ("right", right), ("sender", sender)], advice, client.close)

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What of the login ends when (aware UTC), as far as it is known."""
        return self._tokens.expiries()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()


_ADVICE = {
    "login": "Check auth: the service account's key and its delegation, or log in again with mailpoller oauth login.",
    "right": "Check user, and that the token has the scope https://www.googleapis.com/auth/gmail.modify.",
    "sender": "Add the address in Gmail (Settings, Accounts, Send mail as) and confirm it, or say the user's own.",
}


def _words(sent: Mapping[str, Any]) -> str:
    uid = sent.get("id")
    return "200 sent" + (f", message {uid}" if isinstance(uid, str) and uid.isalnum() else "")


def _text(found: object, key: str, host: str) -> str:
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, str) or not value:
        raise RelayUnavailable(f"{host}: an answer without {key}")
    return value
