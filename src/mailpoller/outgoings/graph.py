"""Outgoing mail by Microsoft Graph: ``sendMail`` with the mail as it is (MIME), for tenants without SMTP AUTH."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Literal, Self
from urllib.parse import quote, urlsplit

import pybase64
import structlog
from pydantic import Field, field_validator, model_validator

from mailpoller.core.component import OutgoingConfig, Runtime
from mailpoller.core.errors import CredentialsRefused, MailpollerError, MessageRejected, TransientError
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Duration, MailAddress, Size
from mailpoller.core.ports import Draft, Keep, Mail, Outgoing, Said, Stage
from mailpoller.mail.addressed import addressed
from mailpoller.remote.drafts import Fate, posted_by_draft
from mailpoller.remote.graph import GraphClient, gate_for
from mailpoller.remote.graph.address import check_installed, check_url, check_user, service_url
from mailpoller.remote.graph.errors import LOGIN_ADVICE, Missing
from mailpoller.wire.http import HttpAnswer, HttpStatus
from mailpoller.wire.oauth import OAuthAuth
from mailpoller.wire.oauth.tokens import token_source
from mailpoller.wire.probe import WebApproach, token_step
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.smtp import EnvelopeRefused, NotCarried, RelayUnavailable, posted
from mailpoller.wire.tls import Fingerprint, TlsPolicy, check_trust

log = structlog.get_logger(__name__)

LARGEST = 3 << 20
"""Octets of a mail that fit into a request of 4 MB, the most that Graph takes, once they are base64. Larger mail
would have to be made a draft, attachment by attachment, and would not be the mail that we made."""
DOING = "send a mail"
_NOTE = 1 << 16
"""Octets of a mail in which the header of an attached message stands."""
_TOO_LARGE = frozenset(("ErrorMessageSizeExceeded", "RequestBodyTooLarge", "RequestEntityTooLarge"))
_PASSING = frozenset(("ErrorExceededMessageLimit", "ErrorQuotaExceeded", "ErrorSubmissionQuotaExceeded"))
_OF_RECIPIENTS = frozenset(("ErrorInvalidRecipients", "ErrorRecipientNotFound", "ErrorInvalidSmtpAddress"))
_OF_SENDER = frozenset(
    (
        "ErrorSendAsDenied", "ErrorMessageSubmissionBlocked", "ErrorInvalidUser", "ErrorNonExistentMailbox",
        "ErrorAccountSuspend", "MailboxNotEnabledForRESTAPI", "MailboxNotSupportedForRESTAPI",
    )
)  # fmt: skip
"""Of us, and not of the mail: whatever we send is refused like this."""
_NEVER = frozenset((400, 413, 422))


class GraphOutgoingConfig(OutgoingConfig):
    """Send mail as a user of Microsoft 365, by Microsoft Graph. The application needs ``Mail.Send``, and for ``drafts``
    ``Mail.ReadWrite``."""

    type: Literal["graph"]
    sender: MailAddress
    """The address that our mail comes from: the user's own, or one that the user may send as. It is the envelope
    sender too: Graph has no null sender."""
    user: str | None = None
    """Who sends it, by principal name or object id, if that is not ``sender``. Every mail is kept in this mailbox's
    Sent Items."""
    auth: OAuthAuth
    """How to log in: ``auth: {type: oauth2, provider: microsoft, grant: client_credentials, tenant: …, client_id:
    …}``. ``cloud`` there says which of Microsoft's clouds it is, for Graph too."""
    url: str | None = None
    """Where Graph is, with its version, if ``cloud`` does not say it: ``https://graph.microsoft.com/v1.0``."""
    ca_file: Path | None = None
    """Trust the certificates of this PEM file instead of the system's."""
    pin: Fingerprint | None = None
    """Trust exactly the certificate with this SHA-256 fingerprint."""
    proxy: Proxy | None = None
    """Reach the service through a proxy. For tokens, say it in ``auth`` too."""
    timeout: Duration = timedelta(seconds=60)
    """How long connecting may take, and how long the service may be silent."""
    max_size: Size = Field(default=LARGEST, le=LARGEST)
    """The largest mail in octets that is sent here. Graph takes requests of 4 MB, which is 3 MB of mail."""

    drafts: bool = True
    """Keep what people and programs hand in as a draft at the service before it is sent, so that a crash repeats none.
    false sends it at once: the application needs no ``Mail.ReadWrite`` then, and a crash may repeat a mail."""

    def extras(self) -> Iterator[Extra]:
        """What speaks HTTP."""
        yield Extra("type", "httpcore", "mailpoller[graph]")

    _check_url = field_validator("url")(check_url)

    @field_validator("user")
    @classmethod
    def _check_user(cls, user: str | None) -> str | None:
        return None if user is None else check_user(user)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        check_trust(self.policy)
        if self.timeout <= timedelta(0):
            raise ValueError("timeout is longer than nothing")
        service_url(self.url, self.auth)
        return self

    @property
    def username(self) -> str:
        """Who sends."""
        return self.user or self.sender

    @property
    def service(self) -> str:
        """The URL of the service, with its version."""
        return service_url(self.url, self.auth)

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin)

    @property
    def has_envelope(self) -> bool:
        return False

    def build(self, name: str, runtime: Runtime) -> Outgoing:
        """The outgoing. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        check_installed()
        return GraphOutgoing(name, self, runtime)


class GraphOutgoing:
    """See :class:`mailpoller.core.ports.Outgoing`."""

    def __init__(self, name: str, config: GraphOutgoingConfig, runtime: Runtime) -> None:
        self.name = name
        self.host = (urlsplit(config.service).hostname or "").lower()
        self.sender = config.sender
        self.drafts = config.drafts
        self._clock = runtime.clock
        self._config = config
        self._user = config.username
        terms = config.auth.terms("graph", self._user)
        self._tokens = token_source(terms, runtime.state_directory, runtime.clock)
        self._gate = gate_for(config.service, terms.client_id, self._user, runtime.clock)
        self._client: GraphClient | None = None

    async def send(self, mail: Mail) -> str:
        """Hand the mail to Exchange; it answers before it has looked at the recipients, so refusals come as mail to
        the sender.

        The same errors as by SMTP: :class:`NotCarried` (``SIZE``; ``8BITMIME``: an attached message would be
        rewritten), :class:`EnvelopeRefused`, :class:`MessageRejected`, :class:`CredentialsRefused`,
        :class:`RelayUnavailable`.
        """
        began = monotonic()
        self._check(mail)
        answer = await self._asked(self._connected().send(pybase64.b64encode(addressed(mail)), DOING))
        words = _words(answer)
        log.info(
            "mail.sent",
            outgoing=self.name,
            recipients=len(mail.recipients),
            size_bytes=len(mail.octets),
            elapsed_s=round(monotonic() - began, 3),
            answer=words,
        )
        return words

    def _check(self, mail: Mail) -> None:
        """Raise :class:`NotCarried` for what Graph does not take as it is."""
        size, limit = len(mail.octets), self._config.max_size
        if size > limit:
            raise NotCarried(
                f"{self.host}: the mail has {size:,} octets, and Graph takes at most {limit:,}",
                lacks="SIZE",
                limit=limit,
            )
        if re.search(rb"^content-type: *message/rfc822\b", mail.octets[:_NOTE], re.IGNORECASE | re.MULTILINE):
            raise NotCarried(f"{self.host}: Exchange rewrites messages that are attached as such", lacks="8BITMIME")

    async def _asked(self, answer: Awaitable[HttpAnswer]) -> HttpAnswer:
        try:
            return await answer
        except Missing as error:
            if error.item:
                raise  # of one draft, and no trouble of the service
            raise RelayUnavailable(str(error)) from None
        except HttpStatus as error:
            raise _decided(error, self._config.max_size) from None
        except TransientError as error:
            raise RelayUnavailable(str(error), retry_after=error.retry_after) from None

    def _connected(self) -> GraphClient:
        if self._client is None or self._client.lost is not None:
            self._client = self._new()
        return self._client

    def _new(self) -> GraphClient:
        config = self._config
        return GraphClient(
            config.service, self._user, self._tokens, self._gate,
            policy=config.policy, timeout=config.timeout, proxy=config.proxy,
        )  # fmt: skip

    def probe(self) -> AsyncIterator[Stage]:
        """Every stage up to the right to send, which is asked for with a mail that is none."""
        config = self._config
        client = self._new()
        way = WebApproach(config.service, config.policy, config.proxy, config.timeout, named="cloud or url")

        async def right() -> str:
            for ask in [client.send, *([client.draft] if self.drafts else [])]:
                try:
                    await ask(b"!", "ask for the right to send")
                except HttpStatus as error:
                    if error.status != 400:  # it was looked at, so we may
                        raise
            return f"may send as {self._user}" + (", by drafts" if self.drafts else "")

        def advice(stage: str, error: MailpollerError) -> str:
            if stage == "login":
                return LOGIN_ADVICE
            if isinstance(error, CredentialsRefused):
                rights = "Mail.Send and Mail.ReadWrite (or say drafts: false)" if self.drafts else "Mail.Send"
                return (
                    f"Grant the application {rights}: Entra, App registrations, API permissions, Grant admin consent."
                )
            return "Try again; if it stays, the code in the words above is what Microsoft's support asks for."

        return way.probe([token_step(self._tokens), ("right", right)], advice, client.close)

    async def post(self, mail: Mail) -> Mapping[str, Said]:
        """See :class:`~mailpoller.core.ports.Posting`. Graph answers before it has looked at the recipients."""
        return await posted(self.send, mail)

    async def post_draft(self, mail: Mail, kept: Draft | None, keep: Keep) -> Mapping[str, Said]:
        """See :class:`~mailpoller.core.ports.Drafting`."""
        return await posted_by_draft(self, mail, kept, keep, self._clock)

    # --- drafts, see mailpoller.remote.drafts ------------------------------------------------------------------
    async def place(self) -> str:
        return f"{self._config.service} {self._user.casefold()}"

    async def make(self, mail: Mail) -> Draft:
        self._check(mail)
        content = pybase64.b64encode(addressed(mail))
        made = (await self._asked(self._connected().draft(content, "make a draft"))).object()
        uid, message_id = made.get("id"), made.get("internetMessageId")
        if not isinstance(uid, str) or not uid:
            raise RelayUnavailable(f"{self.host}: a draft without an id")
        return Draft(uid, message_id if isinstance(message_id, str) else "", await self.place(), mail.recipients)

    async def submit(self, draft: Draft) -> tuple[str, str]:
        answer = await self._asked(self._connected().submit(draft.id, DOING))
        log.info("mail.sent", outgoing=self.name, recipients=len(draft.recipients), answer=_words(answer))
        return _words(answer), draft.message_id

    async def fate(self, draft: Draft) -> Fate:
        """Ids are immutable: a draft that was sent keeps its own among the sent mail."""
        target = f"/messages/{quote(draft.id, safe='')}"
        try:
            shown = (await self._asked(self._connected().get(target, "show a draft", select="id,isDraft"))).object()
        except Missing:
            return "missing"
        if not isinstance(shown.get("isDraft"), bool):
            raise RelayUnavailable(f"{self.host}: it does not say whether a mail is a draft")
        return "sent" if shown.get("isDraft") is False else "waits"

    async def drop(self, draft: Draft) -> None:
        await self._connected().drop(draft.id, "remove a draft")

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What of the login ends when (aware UTC), as far as it is known."""
        return self._tokens.expiries()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()


def _words(answer: HttpAnswer) -> str:
    request = re.sub(r"[^0-9A-Za-z-]", "", answer.headers.get("request-id", ""))[:40]
    return f"{answer.status} accepted" + (f", request {request}" if request else "")


def _decided(error: HttpStatus, limit: int) -> MailpollerError:
    """What a refusal means for this mail and for the next ones."""
    if error.status == 413 or error.code in _TOO_LARGE:
        return NotCarried(str(error), lacks="SIZE", limit=limit)
    if error.status in _NEVER and error.code in _OF_RECIPIENTS:
        return EnvelopeRefused(str(error), part="recipients", advice="Look at the addresses that it is to go to.")
    if error.status in _NEVER and error.code in _OF_SENDER:
        advice = "Look at sender and user, and whether that mailbox may send."
        return EnvelopeRefused(str(error), part="sender", advice=advice)
    if error.status in _NEVER and error.code not in _PASSING:
        return MessageRejected(str(error))
    return RelayUnavailable(str(error), retry_after=error.retry_after)
