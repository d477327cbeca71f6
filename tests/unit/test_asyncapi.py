"""The document for consumers: an AsyncAPI document, of all queues that programs consume, whose schemas hold for what
these queues are given.

``tests/asyncapi-3.0.0.schema.json.gz`` is AsyncAPI's own schema (npm, ``@asyncapi/specs`` 6.11.1, Apache-2.0).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mailpoller.config import load
from mailpoller.config.asyncapi import document
from mailpoller.config.registry import known, load_plugin
from mailpoller.core.component import SinkConfig
from mailpoller.sinks.webhook import WebhookQueueConfig
from mailpoller.wire.cloudevents import attributes_of
from servers.command import mailpoller
from unit.test_event import renderer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "channels.yaml"
NOT_CONSUMED = {"command", "smtp"}
"""A program that is started, and people."""


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs" / "asyncapi.json").read_text("utf-8"))
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(where := value.get("$ref"), str):
            yield where
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def at(document: Any, where: str) -> Any:
    for step in where.removeprefix("#/").split("/"):
        document = document[step]
    return document


def holds(document: dict[str, Any], queue: str, kind: str, value: Any) -> bool:
    payload = document["channels"][queue]["messages"][kind]["payload"]
    return bool(jsonschema.Draft7Validator({**document, **payload}).is_valid(value))


def test_the_verb_prints_the_document_that_is_shown(shown: dict[str, Any]) -> None:
    assert mailpoller("channels", "--config", str(EXAMPLE)).json == shown


def test_it_is_an_asyncapi_document_whose_references_lead_somewhere(shown: dict[str, Any]) -> None:
    with gzip.open(ROOT / "tests" / "asyncapi-3.0.0.schema.json.gz") as file:
        jsonschema.Draft7Validator(json.load(file)).validate(shown)
    found = set(references(shown))
    assert len(found) > 50
    for where in found:
        assert isinstance(at(shown, where), dict)


def test_every_queue_that_programs_consume_is_in_it(shown: dict[str, Any]) -> None:
    queues = load(EXAMPLE).queues
    assert shown["channels"].keys() == shown["servers"].keys() == shown["operations"].keys() == queues.keys()
    told = {kind for kind in known("sinks") if load_plugin("sinks", kind).channel is not SinkConfig.channel}  # type: ignore[attr-defined]
    assert {queue.type for queue in queues.values()} == told  # type: ignore[attr-defined]
    assert not told & NOT_CONSUMED


def test_its_schemas_hold_for_what_queues_are_given(shown: dict[str, Any]) -> None:
    event = renderer().render(queue="a", delivery_id="d")
    whole, data = json.loads(event.structured()), json.loads(event.data())
    for queue, given in (
        ("rabbitmq", whole),
        ("kafka-binary", data),
        ("webhook-batch", [whole, whole]),
        ("redis", {"deliveryid": "d", "event": whole, "octets": "x"}),
    ):
        assert holds(shown, queue, "event", given), queue
    assert not holds(shown, "rabbitmq", "event", data)
    assert not holds(shown, "nats-binary", "event", {**data, "text": 1})
    assert not holds(shown, "webhook-batch", "event", whole)


@pytest.mark.parametrize(("queue", "prefix"), [("kafka", "ce_"), ("nats", "ce-"), ("webhook", "ce-")])
def test_every_attribute_beside_a_body_is_told(shown: dict[str, Any], queue: str, prefix: str) -> None:
    assert "headers" not in shown["channels"][queue]["messages"]["event"]
    context = renderer().render(queue="a", delivery_id="d").context()
    for mode in ("binary", "raw"):
        told = shown["channels"][f"{queue}-{mode}"]["messages"]["event"]["headers"]
        sent = {prefix + name for name in attributes_of(context, raw=mode == "raw")}
        assert sent <= told["properties"].keys()
        assert set(told["required"]) <= sent


def test_no_secret_of_a_url_is_in_it() -> None:
    url = "https://hooks.example.com:8443/T0123/abcdefghijklmnop?key=hunter2"
    told = document({"hook": WebhookQueueConfig.model_validate({"type": "webhook", "url": url})})
    assert "hunter2" not in str(told) and "abcdefghijklmnop" not in str(told)
    assert told["channels"]["hook"]["address"] == "/T0123/***"
    assert told["servers"]["hook"] == {"host": "hooks.example.com:8443", "protocol": "https"}
