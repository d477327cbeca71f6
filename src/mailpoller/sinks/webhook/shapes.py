"""From deliveries to a request: the content modes of CloudEvents' HTTP binding (1.0.2 section 3), and the presets."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from uuid import NAMESPACE_URL, uuid5

from mailpoller.core.delivery import Delivery
from mailpoller.core.record import record
from mailpoller.sinks.webhook.presets import Login, Preset
from mailpoller.sinks.webhook.signature import sign
from mailpoller.wire.cloudevents import Mode, content_of, written

BATCH = "application/cloudevents-batch+json; charset=UTF-8"
LINES = "application/x-ndjson"
"""One event a line; an event has no line break in it."""


@record
class Request:
    """What is sent. Its fields hold what we log in with, and its body is mail: neither is shown."""

    fields: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def identity(deliveries: Sequence[Delivery]) -> str:
    """``webhook-id``: the delivery id; for several, one that is the same for the same ones in the same order."""
    if len(deliveries) == 1:
        return deliveries[0].delivery_id
    return str(uuid5(NAMESPACE_URL, "\n".join(one.delivery_id for one in deliveries)))


def request_of(
    deliveries: Sequence[Delivery],
    *,
    mode: Mode,
    preset: Preset | None,
    batched: bool,
    lines: bool = False,
    login: Login,
    keys: Sequence[bytes],
) -> Request:
    """The request for one delivery, or for several if ``batched``: in an array, or as ``lines``. Raises
    :class:`ConfigError` for a secret of no use."""
    fields: dict[str, str] = {}
    first = deliveries[0]
    login = replace(login, about=first.delivery_id)
    if preset is not None:
        fields |= {"content-type": preset.content_type, **preset.fields(login)}
        body = preset.body(bytes(first.raw.octets.view()), login)
    elif batched and lines:
        fields["content-type"] = LINES
        body = b"".join(one.event.structured() + b"\n" for one in deliveries)
    elif batched:
        fields["content-type"] = BATCH
        body = b"[" + b",".join(one.event.structured() for one in deliveries) + b"]"
    else:
        content = content_of(first, mode)
        fields |= {f"ce-{name}": written(value) for name, value in content.attributes.items()}
        fields["content-type"] = content.content_type
        body = content.body
    if (preset is not None or mode == "raw") and first.raw.truncated:
        fields["mailpoller-truncated"] = str(first.raw.announced or "true")
    fields |= _authorization(preset, login)
    name = identity(deliveries)
    fields |= {"idempotency-key": name, "webhook-id": name, "webhook-timestamp": str(login.now)}
    if keys:
        fields["webhook-signature"] = sign(keys, name, login.now, body)
    return Request(fields, body)


def _authorization(preset: Preset | None, login: Login) -> dict[str, str]:
    if login.password:
        pair = f"{login.username}:{login.password}".encode()
        return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
    if login.token and preset is None:
        return {"authorization": f"Bearer {login.token}"}
    return {}
