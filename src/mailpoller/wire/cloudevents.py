"""The content modes of CloudEvents 1.0.2 that its protocol bindings share: what is the body, and what goes beside it.

A binding says how the attributes are called and written beside the body: ``ce-`` fields in HTTP (section 3.1.3) and
NATS (section 3.1), ``ce_`` in Kafka (section 3.2), ``cloudEvents:`` in AMQP (section 3.1.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal
from urllib.parse import quote

from mailpoller.core.delivery import Delivery
from mailpoller.core.record import record

Mode = Literal["structured", "binary", "raw"]
"""``structured``: attributes and data in one JSON object. ``binary``: the data is the body, the attributes go beside
it. ``raw``: as ``binary``, and the body is the message as it came (RFC 5322)."""

STRUCTURED = "application/cloudevents+json; charset=UTF-8"
RFC822 = "message/rfc822"

_PLAIN = "".join(chr(one) for one in range(0x21, 0x7F) if chr(one) not in '"%')
"""Characters of a field's value that stay as they are (HTTP binding, section 3.1.3.2)."""


@record
class Content:
    """What a broker is handed. ``attributes``: by their names of CloudEvents, none in structured mode. The body is
    mail and is not shown."""

    content_type: str
    attributes: Mapping[str, str]
    body: bytes = field(repr=False)


def content_of(delivery: Delivery, mode: Mode) -> Content:
    """The delivery in a content mode."""
    if mode == "structured":
        return Content(STRUCTURED, {}, delivery.event.structured())
    context = delivery.event.context()
    kind = RFC822 if mode == "raw" else context.get("datacontenttype", "application/json")
    body = bytes(delivery.raw.octets.view()) if mode == "raw" else delivery.event.data()
    return Content(kind, attributes_of(context, raw=mode == "raw"), body)


def body_size(delivery: Delivery, mode: Mode) -> int:
    """Octets of the body, at most; nothing is rendered for it."""
    return delivery.raw.octets.size if mode == "raw" else delivery.event.size


def attributes_of(context: Mapping[str, str], *, raw: bool) -> dict[str, str]:
    """The attributes that go beside the body. ``raw``: the body is not ``data``, so what describes ``data`` is left
    away."""
    left_away = {"datacontenttype", "dataschema"} if raw else {"datacontenttype"}
    return {name: value for name, value in context.items() if name not in left_away}


def written(value: str) -> str:
    """A value as HTTP and NATS take it: percent-encoded UTF-8 (HTTP binding, section 3.1.3.2)."""
    return quote(value, safe=_PLAIN, errors="replace")
