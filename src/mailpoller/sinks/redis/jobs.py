"""Deliveries as jobs that workers of others take from a list: Sidekiq and Celery."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

import pybase64

from mailpoller.core.delivery import Delivery
from mailpoller.core.record import record
from mailpoller.wire.celery import CONTENT_ENCODING, CONTENT_TYPE, task_body, task_headers

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
    """Celery's task in Kombu's envelope for Redis: the event is the only argument."""
    name = delivery.delivery_id
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
            "body": pybase64.b64encode(task_body(delivery.event.structured())).decode(),
            "content-encoding": CONTENT_ENCODING,
            "content-type": CONTENT_TYPE,
            "headers": task_headers(job, name),
            "properties": properties,
        }
    ).encode()


FORMATS: Mapping[str, JobFormat] = {
    "sidekiq": JobFormat("default", lambda queue: f"queue:{queue}", "queues", _sidekiq),
    "celery": JobFormat("celery", lambda queue: queue, "", _celery),
}
