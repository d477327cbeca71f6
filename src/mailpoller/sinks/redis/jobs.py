"""Deliveries as jobs that workers of others take from a list: Sidekiq and Celery."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

import pybase64

from mailpoller.core.delivery import Delivery
from mailpoller.core.record import record

FormatName = Literal["stream", "sidekiq", "celery"]


@record
class JobFormat:
    """How one kind of worker wants its jobs. ``usual``: its usual queue. ``key``: where that lies. ``known``: the key
    of a set in which its queues' names stand, or empty. ``render``: the job of a delivery, named ``job``, in ``queue``.
    """

    usual: str
    key: Callable[[str], str]
    known: str
    render: Callable[[Delivery, str, str, datetime], bytes]


def _sidekiq(delivery: Delivery, job: str, queue: str, now: datetime) -> bytes:
    """As ``Sidekiq::Client`` pushes it: the event is the only argument. The job id is the same for a repeat."""
    seconds = now.timestamp()
    head = {
        "class": job,
        "queue": queue,
        "retry": True,
        "jid": delivery.delivery_id.replace("-", "")[:24],
        "created_at": seconds,
        "enqueued_at": seconds,
    }
    return json.dumps(head).encode()[:-1] + b', "args": [' + delivery.event.structured() + b"]}"


def _celery(delivery: Delivery, job: str, queue: str, now: datetime) -> bytes:
    """Celery's message protocol 2 in Kombu's envelope for Redis: the event is the only argument, the delivery id the
    task's id."""
    name = delivery.delivery_id
    embed = b'{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'
    body = b"[[" + delivery.event.structured() + b"], {}, " + embed + b"]"
    headers: Mapping[str, object] = {
        "lang": "py",
        "task": job,
        "id": name,
        "root_id": name,
        "parent_id": None,
        "group": None,
        "origin": "mailpoller",
        "argsrepr": "(event,)",
        "kwargsrepr": "{}",
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
    }
    properties: Mapping[str, object] = {
        "correlation_id": name,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": name,
    }
    return json.dumps(
        {
            "body": pybase64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    ).encode()


FORMATS: Mapping[str, JobFormat] = {
    "sidekiq": JobFormat("default", lambda queue: f"queue:{queue}", "queues", _sidekiq),
    "celery": JobFormat("celery", lambda queue: queue, "", _celery),
}
