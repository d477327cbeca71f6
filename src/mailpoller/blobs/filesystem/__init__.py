"""Blobs in a directory: the config class, which builds the store."""

from __future__ import annotations

from mailpoller.blobs.filesystem.config import FilesystemBlobsSettings
from mailpoller.blobs.filesystem.store import FilesystemBlobs
from mailpoller.core.component import Runtime


class FilesystemBlobsConfig(FilesystemBlobsSettings):
    """Hold blobs as files of a directory on this machine."""

    def build(self, runtime: Runtime) -> FilesystemBlobs:
        """The store. Opens nothing."""
        return FilesystemBlobs(self, runtime.clock)
