"""The block of a queue of type ``redis``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, SinkConfig
from mailpoller.core.durability import DurabilityWord
from mailpoller.core.errors import KeysMissing
from mailpoller.core.literals import Duration, Size
from mailpoller.remote.redis.server import RedisServer, stream_key
from mailpoller.sinks.redis.jobs import FORMATS, FormatName


class RedisQueueSettings(RedisServer, SinkConfig):
    """The keys of a queue of type ``redis``."""

    type: Literal["redis"]
    stream: Annotated[str, AfterValidator(stream_key)] | None = None
    """The stream's key; ``{mailpoller:QUEUE}`` with the queue's name if it is not given. Ids that are remembered lie
    in keys of the same hash slot."""
    format: FormatName = "stream"
    """``stream``; or ``sidekiq`` or ``celery``: jobs in a list, as their workers take them."""
    job: str | None = Field(default=None, min_length=1, max_length=200)
    """With ``sidekiq`` the worker's class, with ``celery`` the task's name. Its only argument is the event."""
    job_queue: Annotated[str, AfterValidator(stream_key)] | None = None
    """The workers' queue; ``default`` for ``sidekiq``, ``celery`` for ``celery``, if it is not given."""
    maxlen: int | None = Field(default=None, ge=1)
    """Keep about so many entries and let the server remove the oldest, **whether anybody took them or not**. Without
    it nothing is removed but by consumers."""
    remember: Duration = timedelta(days=180)
    """How long a delivery id is kept to recognise a repeat, also when its entry was removed: longer than the
    mailboxes' ``keep``."""
    replicas: int = Field(default=0, ge=0)
    """How many replicas must have a message too before it counts as held (``WAIT``)."""
    max_size: Size = 100_000_000
    """A message whose event and octets are larger is refused, and goes to quarantine."""
    durability: DurabilityWord = "strict"
    """``strict``: the server must sync each write before it answers (``appendonly yes``, ``appendfsync always``).
    ``declared``: also one that does not let us read its settings. ``warn``: also one that answers first."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.remember < timedelta(seconds=1):
            raise ValueError("remember is at least 1s")
        if self.format == "stream" and (self.job is not None or self.job_queue is not None):
            raise ValueError("job and job_queue are for format: sidekiq or celery")
        if self.format != "stream" and self.job is None:
            raise KeysMissing({"job": f"format: {self.format} asks who does the work"})
        if self.format != "stream" and (self.stream is not None or self.maxlen is not None):
            raise ValueError(f"format: {self.format} has a list and no stream: leave stream and maxlen away")
        return self

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """Who does the work."""
        name = written.get("format", "stream")
        wanted = name in FORMATS if isinstance(name, str) else False
        return {"job": f"format: {name} asks who does the work"} if wanted and written.get("job") is None else {}

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        place = self.host or (str(self.socket) if self.socket is not None else self.sentinels[0])
        host = f"{place}:{self.port}" if self.host is not None else place
        protocol = "redis" if self.tls == "none" or self.socket is not None else "redis-secure"
        if self.format != "stream":
            jobs = FORMATS[self.format]
            return Channel(protocol, host, jobs.key(self.job_queue or jobs.usual), "job")
        address = self.stream or f"{{mailpoller:{name}}}"
        return Channel(protocol, host, address, "fields", fields=("deliveryid", "event", "octets"))

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        if self.durability != "strict":
            yield Finding("durability", "mail that such a server has answered for may be lost in a power cut")
        if self.maxlen is not None:
            yield Finding("maxlen", "the server removes what nobody has taken yet, and that mail is lost")
        if self.sentinels and not self.replicas:
            yield Finding("sentinels", "a failover loses what only the failed server had: say replicas: 1")
        yield from super().findings()
