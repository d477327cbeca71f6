"""How consumers get what a queue holds, as far as its block tells: what a document for them is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from mailpoller.core.record import record

Body = Literal["structured", "binary", "raw", "batch", "lines", "fields", "job", "mail"]
"""What the body of a message there is. ``structured``: the event. ``binary``: its data, the attributes beside it.
``raw``: the mail as it came, the attributes beside it. ``batch``, ``lines``: several events, in an array or one a line.
``fields``: a record of several fields, one of them the event. ``job``: a job of somebody else's, whose argument is the
event. ``mail``: the mail, and nothing of the event."""


@record
class Channel:
    """Where the messages of a queue are taken from. ``protocol``: as AsyncAPI calls it. ``host``: with its port.
    ``address``: queue, topic, subject, path, table. ``prefix``: before the names of attributes that go beside the body;
    None if none go there. ``fields``: those of the body ``fields``. ``bindings``: what AsyncAPI's binding of the
    protocol says of the channel. No secret is in any of it."""

    protocol: str
    host: str
    address: str
    body: Body
    prefix: str | None = None
    fields: tuple[str, ...] = ()
    bindings: Mapping[str, Any] = field(default_factory=dict)
