"""The block of a queue of type ``sqs``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Size
from mailpoller.wire.aws.literals import LONGEST_KEPT, Group
from mailpoller.wire.aws.settings import AwsSettings, Region, endpoint


def _queue(written: str) -> str:
    parts = re.fullmatch(
        r"(https?://[^/]+)/([A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*/)?([A-Za-z0-9_-]{1,80}(\.fifo)?)", written
    )
    if parts is None or len(parts[3]) > 80:
        raise ValueError("a queue is its URL: https://sqs.eu-central-1.amazonaws.com/123456789012/mail")
    endpoint(parts[1])
    return written


class SqsQueueSettings(AwsSettings, SinkConfig):
    """The keys of a queue of type ``sqs``."""

    type: Literal["sqs"]
    queue: Annotated[str, AfterValidator(_queue)]
    """The queue's URL. One whose name ends in ``.fifo`` is a FIFO queue, which refuses repeats for five minutes."""
    region: Region | None = None
    """The queue's region, if its URL does not name it."""
    group: Group | None = None
    """The message group: ``{topic}``, ``{mailbox}`` or ``{deliveryid}`` stand for the message's, all else for itself.
    A FIFO queue hands out one group in order: while a message of it is not done, those behind it wait. So each message
    is a group of its own, if nothing is said. In a standard queue it is for fair shares, and left away."""
    blobs_above: Size | None = 500_000
    """Raw octets of a larger message are put into ``blobs:``, if there is that block, and the event names them
    (``data.raw_blob``): more would not fit into a message of SQS."""
    max_size: Size = 1_048_576
    """A message of which more would be sent, as it is rendered and with its attributes, is refused, and goes to
    quarantine; the queue's own limit (``MaximumMessageSize``) holds as well."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    def extras(self) -> Iterator[Extra]:
        """What speaks to AWS."""
        yield from AwsSettings.extras(self)

    def events_kept(self) -> timedelta:
        """As long as a queue may be told to."""
        return LONGEST_KEPT

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.region is None and not _told_region(self.queue):
            raise ValueError("region is missing: the queue's URL does not name it")
        return self

    @property
    def fifo(self) -> bool:
        """Whether it is a FIFO queue."""
        return self.queue.endswith(".fifo")

    @property
    def queue_name(self) -> str:
        """The queue's name."""
        return self.queue.rpartition("/")[2]

    @property
    def account(self) -> str:
        """Whose queue it is, as far as the URL tells."""
        return (urlsplit(self.queue).path.strip("/").split("/")[:-1] or ["*"])[-1]

    @property
    def service_region(self) -> str:
        """See the parent's."""
        return self.region or _told_region(self.queue)

    @property
    def service_endpoint(self) -> str:
        """See the parent's: where the queue is."""
        parts = urlsplit(self.queue)
        return f"{parts.scheme}://{parts.netloc}"

    def channel(self, name: str) -> Channel:
        """See the parent's. What stands in the message's attributes stands in the event, too."""
        queue = {"name": self.queue_name, "fifoQueue": self.fifo}
        return Channel(
            protocol="sqs",
            host=urlsplit(self.queue).netloc,
            address=self.queue_name,
            body="structured",
            bindings={"sqs": {"queue": queue, "bindingVersion": "0.2.0"}},
        )

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        yield from super().findings()
        yield from self.risks("queue")


def attributes_of_a_queue(config: SqsQueueSettings) -> dict[str, str]:
    """What a queue is made with."""
    usual = {"MessageRetentionPeriod": str(int(LONGEST_KEPT.total_seconds())), "MaximumMessageSize": "1048576"}
    return {**usual, "FifoQueue": "true"} if config.fifo else usual


def _told_region(queue: str) -> str:
    """The region that the URL of a queue at AWS names; empty if it names none."""
    host = urlsplit(queue).hostname or ""
    named = re.search(
        r"(?:^|\.)sqs(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.(?:com|com\.cn|eu)|api\.aws)$", host
    )
    return named[1] if named else ""
