"""The block ``blobs:`` of type ``filesystem``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from mailpoller.core.component import BlobsConfig
from mailpoller.core.literals import Href, Size

LEAST_KEPT = timedelta(hours=1)


class FilesystemBlobsSettings(BlobsConfig):
    """The keys of blobs of type ``filesystem``."""

    type: Literal["filesystem"]
    path: Path
    """The directory. Made at the first use, and never again while the ledger knows what lay there; nothing else may
    lie in it."""
    group: str | None = None
    """The group that may read: given to what is created. Without one it is the service's own, or that of a
    set-group-id directory above."""
    href: Href | None = None
    """What the name of a file is put behind to tell consumers where it is: a URI that ends in ``/``. The directory's
    own ``file:`` URI, if it is not given."""
    min_free: Size = 64_000_000
    """Octets of the disk that are left free: below this nothing is written."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.keep < LEAST_KEPT:
            raise ValueError("keep is at least 1h")
        return self
