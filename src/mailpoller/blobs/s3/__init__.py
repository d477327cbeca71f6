"""Blobs in a bucket of Amazon S3: the config class, which builds the store.

Nothing but ``config`` is imported unless there is such a block.
"""

from __future__ import annotations

from mailpoller.blobs.s3.config import S3BlobsSettings
from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import BlobStore


class S3BlobsConfig(S3BlobsSettings):
    """Hold blobs as objects of a bucket of Amazon S3, which a rule of the bucket removes."""

    def build(self, runtime: Runtime) -> BlobStore:
        """The store. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.blobs.s3.store import S3Blobs
        except ImportError as error:
            raise ConfigError(f"blobs of type s3 need {error.name}: pip install 'mailpoller[aws]'") from None
        return S3Blobs(self, runtime.clock, runtime.state_directory)
