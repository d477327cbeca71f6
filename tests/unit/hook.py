"""A queue of type ``webhook`` and the service it leads to, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sink_runtime import HandClock, make_runtime

from mailpoller.sinks.webhook import WebhookQueueConfig
from mailpoller.sinks.webhook.sink import WebhookQueue
from servers.web import Reply, Web, script

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd"


def configured(url: str, **keys: object) -> WebhookQueueConfig:
    return WebhookQueueConfig.model_validate({"type": "webhook", "url": url, **keys})


def queue_to(url: str, directory: Path, clock: HandClock | None = None, **keys: object) -> WebhookQueue:
    made = configured(url, **keys).build("support", make_runtime(directory, clock))
    assert isinstance(made, WebhookQueue)
    return made


@asynccontextmanager
async def service(
    directory: Path, *replies: Reply, clock: HandClock | None = None, path: str = "/hook", **keys: object
) -> AsyncIterator[tuple[Web, WebhookQueue]]:
    """A service that gives these answers, and a queue that leads there."""
    async with Web(script(*(replies or (Reply(204),)))) as web:
        queue = queue_to(web.url + path, directory, clock, **keys)
        try:
            yield web, queue
        finally:
            await queue.close()
