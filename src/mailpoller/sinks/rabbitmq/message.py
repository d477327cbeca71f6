"""What is published for a delivery: a CloudEvent in a content mode, or a task of Celery's."""

from __future__ import annotations

from pamqp.commands import Basic

from mailpoller.core.delivery import Delivery
from mailpoller.sinks.rabbitmq.config import RabbitmqQueueSettings
from mailpoller.wire import celery
from mailpoller.wire.cloudevents import attributes_of, body_size, content_of

_PERSISTENT = 2


def size_of(one: Delivery, config: RabbitmqQueueSettings) -> int:
    """Octets of the body, at most; nothing is rendered for it."""
    return body_size(one, config.mode) + (celery.AROUND if config.format == "celery" else 0)


def message_of(one: Delivery, config: RabbitmqQueueSettings) -> tuple[bytes, Basic.Properties]:
    """Body and properties. The attributes are headers in each mode, for a headers exchange; the id of the message, and
    of the task, is the delivery id."""
    headers: dict[str, object] = {
        f"cloudEvents_{name}": value
        for name, value in attributes_of(one.event.context(), raw=config.mode == "raw").items()
    }
    if config.format == "celery":
        assert config.job is not None  # the block holds no other
        properties = Basic.Properties(
            message_id=one.delivery_id,
            correlation_id=one.delivery_id,
            delivery_mode=_PERSISTENT,
            content_type=celery.CONTENT_TYPE,
            content_encoding=celery.CONTENT_ENCODING,
            app_id="mailpoller",
            headers={**headers, **celery.task_headers(config.job, one.delivery_id)},  # type: ignore[dict-item]
        )
        return celery.task_body(one.event.structured()), properties
    content = content_of(one, config.mode)
    properties = Basic.Properties(
        message_id=one.delivery_id,
        delivery_mode=_PERSISTENT,
        content_type=content.content_type,
        app_id="mailpoller",
        headers=headers,  # type: ignore[arg-type]
    )
    return content.body, properties
