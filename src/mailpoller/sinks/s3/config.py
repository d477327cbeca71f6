"""The block of a queue of type ``s3``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Size
from mailpoller.wire.aws.bucket import BucketSettings
from mailpoller.wire.literals import Wait


class S3QueueSettings(BucketSettings, SinkConfig):
    """The keys of a queue of type ``s3``."""

    type: Literal["s3"]
    max_size: Size = 100_000_000
    """A message whose event or octets are larger is refused, and goes to quarantine."""
    timeout: Wait = timedelta(seconds=30)
    """How long the store may take to answer; a second more for each megabyte."""
    connections: int = Field(default=8, ge=1, le=64)
    """Objects that are put at once; each is held in memory."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    def extras(self) -> Iterator[Extra]:
        """What speaks to AWS."""
        yield from BucketSettings.extras(self)

    def channel(self, name: str) -> Channel:
        """See the parent's. The octets lie beside the event, under ``data.sha256`` and ``.eml``."""
        host = urlsplit(self.endpoint).netloc if self.endpoint else f"s3.{self.region}.amazonaws.com"
        address = f"{self.bucket}/{self.prefix}{{deliveryid}}.json"
        return Channel(protocol="s3", host=host, address=address, body="structured")

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        yield from super().findings()
        yield from self.risks("endpoint")
