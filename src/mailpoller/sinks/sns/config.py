"""The block of a queue of type ``sns``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Size
from mailpoller.wire.aws.literals import LONGEST_KEPT, Group
from mailpoller.wire.aws.settings import AwsSettings, Endpoint


def _topic(written: str) -> str:
    found = re.fullmatch(r"arn:aws[a-z-]*:sns:[a-z0-9]+(?:-[a-z0-9]+)*:\d{12}:([A-Za-z0-9_-]{1,256}(\.fifo)?)", written)
    if found is None or len(found[1]) > 256:
        raise ValueError("a topic is its ARN: arn:aws:sns:eu-central-1:123456789012:mail")
    return written


class SnsQueueSettings(AwsSettings, SinkConfig):
    """The keys of a queue of type ``sns``."""

    type: Literal["sns"]
    topic: Annotated[str, AfterValidator(_topic)]
    """The topic's ARN. One whose name ends in ``.fifo`` is a FIFO topic, which refuses repeats for five minutes."""
    endpoint: Endpoint | None = None
    """The URL of another service than Amazon's that speaks like SNS, or of a VPC endpoint."""
    group: Group | None = None
    """The message group: ``{topic}``, ``{mailbox}`` or ``{deliveryid}`` stand for the message's, all else for itself.
    In a FIFO topic each message is a group of its own, if nothing is said; a standard one hands it on to its queues."""
    blobs_above: Size | None = 120_000
    """Raw octets of a larger message are put into ``blobs:``, if there is that block, and the event names them
    (``data.raw_blob``): more would not fit into a message of SNS."""
    max_size: Size = 262_144
    """A message of which more would be sent, as it is rendered and with its attributes, is refused, and goes to
    quarantine."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    def extras(self) -> Iterator[Extra]:
        """What speaks to AWS."""
        yield from AwsSettings.extras(self)

    def events_kept(self) -> timedelta:
        """As long as a queue that is subscribed may be told to."""
        return LONGEST_KEPT

    @property
    def fifo(self) -> bool:
        """Whether it is a FIFO topic."""
        return self.topic.endswith(".fifo")

    @property
    def topic_name(self) -> str:
        """The topic's name."""
        return self.topic.rpartition(":")[2]

    @property
    def service_region(self) -> str:
        """See the parent's."""
        return self.topic.split(":")[3]

    @property
    def service_endpoint(self) -> str | None:
        """See the parent's."""
        return self.endpoint

    def channel(self, name: str) -> Channel:
        """See the parent's. What stands in the message's attributes stands in the event, too."""
        host = urlsplit(self.endpoint).netloc if self.endpoint else f"sns.{self.service_region}.amazonaws.com"
        ordering = {"type": "FIFO" if self.fifo else "standard"}
        return Channel(
            protocol="sns",
            host=host,
            address=self.topic,
            body="structured",
            bindings={"sns": {"name": self.topic_name, "ordering": ordering, "bindingVersion": "0.1.0"}},
        )

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        yield from super().findings()
        yield from self.risks("endpoint")
