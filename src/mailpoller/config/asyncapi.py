"""The AsyncAPI document of a configuration's queues: where consumers find them, and what they get there.

AsyncAPI 3.0.0. The schemas of events are those of the package, as the JSON Schema that the document's own tools follow:
definitions beside one another, and draft 7 where they are written in a later one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from mailpoller import __version__
from mailpoller.core.channel import Body, Channel
from mailpoller.core.component import SinkConfig

_SCHEMAS = {"event": "event.schema.json", "outgoing": "outgoing-event.schema.json"}
_MAIL = {"type": "string", "description": "The mail as it came, octet for octet (RFC 5322)."}
_CONTENT_TYPES: Mapping[Body, str] = {
    "structured": "application/cloudevents+json",
    "binary": "application/json",
    "raw": "message/rfc822",
    "batch": "application/cloudevents-batch+json",
    "lines": "application/x-ndjson",
    "fields": "application/json",
    "job": "application/json",
    "mail": "message/rfc822",
}


def document(queues: Mapping[str, SinkConfig]) -> dict[str, Any]:
    """The document of those queues that have a channel. Nothing is connected to, and no secret is shown."""
    found = {name: (block, block.channel(name)) for name, block in queues.items()}
    told = {name: (block, channel) for name, (block, channel) in found.items() if channel is not None}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "mailpoller",
            "version": __version__,
            "description": "Mail, as queues hold it. A message may come twice under one deliveryid: process it once.",
        },
        "defaultContentType": "application/json",
        "servers": {name: {"host": one.host, "protocol": one.protocol} for name, (_, one) in told.items()},
        "channels": {name: _channel(name, block, one) for name, (block, one) in told.items()},
        "operations": {
            name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}, "summary": f"Mail for {name}."}
            for name in told
        },
        "components": {"schemas": dict(_schemas())},
    }


def _channel(name: str, block: SinkConfig, channel: Channel) -> dict[str, Any]:
    kinds = ["event", "outgoing"] if block.takes_events and channel.body not in ("raw", "mail") else ["event"]
    found: dict[str, Any] = {
        "address": channel.address,
        "servers": [{"$ref": f"#/servers/{name}"}],
        "messages": {kind: _message(kind, channel) for kind in kinds},
    }
    if channel.bindings:
        found["bindings"] = dict(channel.bindings)
    return found


def _message(kind: str, channel: Channel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": kind,
        "contentType": _CONTENT_TYPES[channel.body],
        "payload": _payload(kind, channel),
    }
    if channel.prefix is not None:
        names = [name for name in _read(kind)["properties"] if name not in ("data", "datacontenttype")]
        if channel.body == "raw":
            names.remove("dataschema")
        found["headers"] = {
            "type": "object",
            "properties": {channel.prefix + name: {"type": "string"} for name in names},
            "required": [channel.prefix + name for name in ("id", "source", "type", "deliveryid")],
        }
    return found


def _payload(kind: str, channel: Channel) -> dict[str, Any]:
    event = {"$ref": f"#/components/schemas/{kind}"}
    if channel.body in ("raw", "mail"):
        return _MAIL
    if channel.body == "binary":
        return {"$ref": f"#/components/schemas/{kind}/properties/data"}
    if channel.body == "batch":
        return {"type": "array", "items": event}
    if channel.body == "fields":
        named = {name: {"description": f"See docs/sinks.md, {channel.protocol}."} for name in channel.fields}
        return {"type": "object", "properties": {**named, "event": event}, "required": ["event"]}
    if channel.body == "job":
        return {"description": "A job whose only argument is the event (components/schemas)."}
    return event


def _read(kind: str) -> dict[str, Any]:
    text = resources.files("mailpoller.mail").joinpath(_SCHEMAS[kind]).read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _schemas() -> Iterator[tuple[str, Any]]:
    for kind in _SCHEMAS:
        whole = _read(kind)
        apart = whole.pop("$defs", {})
        for word in ("$schema", "$id"):
            whole.pop(word, None)
        yield kind, _rewritten(whole, kind)
        for name, one in apart.items():
            yield f"{kind}.{name}", _rewritten(one, kind)


def _rewritten(value: Any, kind: str) -> Any:
    """The schema with its references into this document."""
    if isinstance(value, list):
        return [_rewritten(one, kind) for one in value]
    if not isinstance(value, dict):
        return value
    found = {("items" if key == "prefixItems" else key): _rewritten(one, kind) for key, one in value.items()}
    if isinstance(where := found.get("$ref"), str):
        found["$ref"] = where.replace("#/$defs/", f"#/components/schemas/{kind}.").replace(
            "#/properties/", f"#/components/schemas/{kind}/properties/"
        )
    return found
