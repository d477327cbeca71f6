"""The block ``blobs:`` of type ``s3``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, Self

from pydantic import model_validator

from mailpoller.core.component import BlobsConfig, Finding
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Href
from mailpoller.wire.aws.bucket import BucketSettings
from mailpoller.wire.literals import Wait

LEAST_KEPT = timedelta(days=1)


class S3BlobsSettings(BucketSettings, BlobsConfig):
    """The keys of blobs of type ``s3``."""

    type: Literal["s3"]
    href: Href | None = None
    """What the name of an object is put behind to tell consumers where it is: a URI that ends in ``/``. Else
    ``s3://BUCKET/PREFIX``."""
    timeout: Wait = timedelta(seconds=30)
    """How long the store may take to answer; a second more for each megabyte."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keep < LEAST_KEPT:
            raise ValueError("keep is at least 1d: the rules of a bucket count days")
        return self

    @property
    def base(self) -> str:
        """What names are put behind."""
        return self.href or f"s3://{self.bucket}/{self.prefix}"

    def extras(self) -> Iterator[Extra]:
        """What speaks to AWS."""
        yield from BucketSettings.extras(self)

    def findings(self) -> Iterator[Finding]:
        """What may lose mail, and a line that others can read."""
        yield from super().findings()
        yield from self.risks("endpoint")
