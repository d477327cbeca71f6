"""Shapes that existing programs already parse: where they take mail, in what form, and how they want to be asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode

import pybase64

from mailpoller.sinks.webhook.answers import REFUSES
from mailpoller.sinks.webhook.signature import mailroom_token

PresetName = Literal["generic", "rails", "gitlab", "discourse", "redmine", "osticket"]

FORM = "application/x-www-form-urlencoded"
RFC822 = "message/rfc822"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we say we are. ``now``: when we ask, in seconds since 1970."""

    username: str
    password: str
    token: str
    now: int


@dataclass(frozen=True, slots=True)
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
    # api/tickets.email: 201; 401 for a wrong key, or for our address.
    "osticket": Preset("/api/tickets.email", RFC822, needs=("token",), fields=lambda login: {"X-API-Key": login.token}),
}
