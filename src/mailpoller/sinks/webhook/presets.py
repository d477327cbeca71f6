"""Shapes that existing programs already parse: where they take mail, in what form, and how they want to be asked."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import field
from hashlib import sha256
from typing import Literal
from urllib.parse import urlencode

import orjson
import pybase64

from mailpoller.core.record import record
from mailpoller.sinks.webhook.answers import REFUSES
from mailpoller.sinks.webhook.signature import mailroom_token
from mailpoller.wire.cloudevents import RFC822

PresetName = Literal[
    "generic", "rails", "gitlab", "discourse", "redmine", "osticket", "mailgun", "sendgrid", "postmark"
]

FORM = "application/x-www-form-urlencoded"


@record
class Login:
    """Who we say we are. ``now``: when we ask, in seconds since 1970; ``about``: the delivery id."""

    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    now: int
    about: str = ""


@record
class Preset:
    """How one program wants mail.

    ``path``: where, unless the URL says it. ``body``: the request's body of a message's octets. ``fields``: its header
    fields besides. ``needs``: the keys without which it takes nothing. ``username``: whom it usually knows us as.
    ``refuses``: statuses that speak of the message.
    """

    path: str
    content_type: str
    needs: Collection[str]
    body: Callable[[bytes, Login], bytes] = lambda octets, login: octets
    fields: Callable[[Login], Mapping[str, str]] = lambda login: {}
    username: str = ""
    refuses: Collection[int] = REFUSES
    text_only: bool = False
    """The shape holds the message as text, and so none whose octets are no UTF-8."""


PRESETS: Mapping[str, Preset] = {
    # Action Mailbox: app/controllers/action_mailbox/ingresses/relay. 204; 415 for another media type.
    "rails": Preset(
        "/rails/action_mailbox/relay/inbound_emails", RFC822, needs=("password",), username="actionmailbox"
    ),
    # lib/api/internal/mail_room.rb: 200; 400 if it is too large for Sidekiq; the token is at most five minutes old.
    "gitlab": Preset(
        "/api/v4/internal/mail_room/incoming_email",
        "text/plain",
        needs=("token",),
        fields=lambda login: {"Gitlab-Mailroom-Api-Request": mailroom_token(login.token, login.now)},
    ),
    # As discourse/mail-receiver asks.
    "discourse": Preset(
        "/admin/email/handle_mail",
        FORM,
        needs=("token",),
        body=lambda octets, login: urlencode({"email_encoded": pybase64.b64encode(octets).decode()}).encode(),
        fields=lambda login: {"Api-Key": login.token, "Api-Username": login.username},
        username="system",
    ),
    # MailHandlerController: 201; 422 for what it makes no issue of; 403 for a wrong key. Options stand in the query.
    "redmine": Preset(
        "/mail_handler",
        FORM,
        needs=("token",),
        body=lambda octets, login: urlencode({"key": login.token, "email": octets}).encode(),
    ),
    # A route's "forward" to a URL that ends in "mime": what django-anymail and its like take. The token, by which they
    # know a repeat, is the delivery's. django-anymail answers 400 to a wrong signature; 406 is Mailgun's "never".
    "mailgun": Preset(
        "/",
        FORM,
        needs=("token",),
        body=lambda octets, login: _as_mailgun(octets, login),
        refuses=(REFUSES - {400}) | {406},
    ),
    # Inbound Parse with "send raw": a form whose field "email" is the message. No envelope: we know none. 204 from
    # Action Mailbox, 200 from django-anymail, which answers 400 to a wrong login.
    "sendgrid": Preset(
        "/",
        "multipart/form-data",
        needs=("password",),
        body=lambda octets, login: _as_sendgrid(octets, _boundary(login)),
        fields=lambda login: {"content-type": f"multipart/form-data; boundary={_boundary(login)}"},
        username="actionmailbox",
        refuses=REFUSES - {400},
    ),
    # Inbound webhook with "include raw email content in JSON payload". No envelope and no parsed fields: who takes
    # RawEmail reads neither. 204 from Action Mailbox, 200 from django-anymail, which answers 400 to a wrong login.
    "postmark": Preset(
        "/",
        "application/json",
        needs=("password",),
        body=lambda octets, login: _as_postmark(octets, login),
        username="actionmailbox",
        refuses=REFUSES - {400},
        text_only=True,
    ),
    # api/tickets.email: 201; 401 for a wrong key, or for our address.
    "osticket": Preset("/api/tickets.email", RFC822, needs=("token",), fields=lambda login: {"X-API-Key": login.token}),
}


def _boundary(login: Login) -> str:
    """One that no stranger can put into his mail (RFC 7578 section 4.1)."""
    return hmac.new(login.password.encode(), login.about.encode(), "sha256").hexdigest()


def _as_sendgrid(octets: bytes, boundary: str) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="email"\r\n\r\n'
    return head.encode() + octets + f"\r\n--{boundary}--\r\n".encode()


def _as_postmark(octets: bytes, login: Login) -> bytes:
    event = {"MessageID": login.about, "MessageStream": "inbound", "Headers": [], "RawEmail": octets.decode()}
    return orjson.dumps(event)


def _as_mailgun(octets: bytes, login: Login) -> bytes:
    about = sha256(login.about.encode()).hexdigest()[:50]
    signature = hmac.new(login.token.encode(), f"{login.now}{about}".encode(), "sha256").hexdigest()
    fields = {"timestamp": str(login.now), "token": about, "signature": signature, "body-mime": octets}
    return urlencode(fields).encode()
