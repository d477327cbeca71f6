"""Odd and hostile mail: every message is parsed, read and rendered, in bounded time, to a valid event."""

from __future__ import annotations

import contextlib
import json
import time
from functools import cache
from importlib import resources

import jsonschema
import pytest

import odd_mail
from mailpoller.core.attributes import Attributes
from mailpoller.core.message import Message
from mailpoller.core.spool import Octets, Spool
from mailpoller.core.verdict import Deliver
from mailpoller.mail.event import EventRenderer
from odd_mail.reading import NOW, read
from pace import paced

EVERY = (*odd_mail.files(), *odd_mail.MADE)
PROCESSOR_SECONDS = 1.0


@cache
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(resources.files("mailpoller.mail").joinpath("event.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def octets_of(name: str) -> bytes:
    return odd_mail.MADE[name]() if name in odd_mail.MADE else odd_mail.files()[name]


def event_of(message: Message) -> bytes:
    renderer = EventRenderer(message, verdict=Deliver(("q",), Attributes("t")), source="mailpoller/support", now=NOW)
    return renderer.render(queue="q", delivery_id="d", payload="parsed").structured()


def timed_event_of(octets: Octets) -> bytes:
    """The event; that it took less than a second is asserted."""
    began = time.process_time()
    event = event_of(read(octets))
    assert time.process_time() - began < paced(PROCESSOR_SECONDS)
    return event


@pytest.mark.parametrize("name", EVERY)
def test_odd_mail_becomes_a_valid_event_within_a_second_and_the_same_from_a_file(name, tmp_path):
    held = octets_of(name)
    in_memory = timed_event_of(Octets.of(held))
    decoded = json.loads(in_memory.decode("utf-8"))
    validator().validate(decoded)
    assert decoded["data"]["size"] == len(held)
    intake = Spool(tmp_path, threshold=1).begin(len(held) + 1)
    intake.write(held)
    with contextlib.closing(intake.finish()) as spooled:
        assert timed_event_of(spooled) == in_memory
