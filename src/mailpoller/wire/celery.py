"""A delivery as a task of Celery's, whatever carries it: version 2 of its message protocol.

Celery's documentation, "Message Protocol", "Version 2": which headers a worker reads, and that the body is arguments,
keyword arguments and what is embedded.
"""

from __future__ import annotations

from collections.abc import Mapping

CONTENT_TYPE = "application/json"
CONTENT_ENCODING = "utf-8"
_BEFORE = b"[["
_BEHIND = b'], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
AROUND = len(_BEFORE) + len(_BEHIND)
"""Octets of a body beside those of the event."""


def task_headers(task: str, delivery_id: str) -> Mapping[str, object]:
    """The headers of a task whose id is the delivery id, so that a repeat is one to workers too."""
    return {
        "lang": "py",
        "task": task,
        "id": delivery_id,
        "root_id": delivery_id,
        "parent_id": None,
        "group": None,
        "origin": "mailpoller",
        "argsrepr": "(event,)",  # workers log it, and an event is no matter for a log
        "kwargsrepr": "{}",
        "retries": 0,
        "eta": None,
        "expires": None,
        "timelimit": [None, None],
    }


def task_body(event: bytes) -> bytes:
    """The body of a task whose only argument is the event, a JSON object."""
    return _BEFORE + event + _BEHIND
