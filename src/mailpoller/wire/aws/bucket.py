"""Objects of a bucket that are put once: under a name that says what they are, and never over one that is there."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator

from mailpoller.core.errors import TransientError
from mailpoller.wire.aws.settings import AwsSettings, Endpoint, Region

if TYPE_CHECKING:
    from mailpoller.wire.aws.client import AwsClient

_THERE = frozenset(("PreconditionFailed", "412"))
_NO_RULES = frozenset(("NoSuchLifecycleConfiguration", "NotImplemented", "MethodNotAllowed"))
_MEANWHILE = frozenset(("ConditionalRequestConflict",))
"""Somebody else is putting something under the same name just now: whoever asks again is told how that ended."""
_TRIES = 3
_GONE = frozenset(("NoSuchKey", "404", "NotFound"))


def _bucket(written: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", written) or ".." in written:
        raise ValueError("a bucket's name is 3 to 63 small letters, digits, dots and hyphens")
    return written


def _prefix(written: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9!_.*'()=-]+/)*", written) or len(written) > 900:
        raise ValueError("a prefix is words with a slash behind each, such as mail/support/")
    if any(word in (".", "..") for word in written.split("/")):
        raise ValueError("a prefix has no . and .. in it")
    return written


class BucketSettings(AwsSettings):
    """The keys that say which bucket, and where."""

    bucket: Annotated[str, AfterValidator(_bucket)]
    """The bucket, which has to be there."""
    prefix: Annotated[str, AfterValidator(_prefix)] = ""
    """What the names of the objects begin with, such as ``mail/``."""
    region: Region
    """The bucket's region; of a store that knows none, mostly ``us-east-1``."""
    endpoint: Endpoint | None = None
    """The URL of another store than Amazon's that speaks like S3, or of a VPC endpoint."""
    addressing: Literal["auto", "virtual", "path"] = "auto"
    """Where the bucket's name stands: before the host's (``virtual``) or in the path. ``auto``: in the path if there is
    an ``endpoint``."""

    @property
    def service_region(self) -> str:
        """See the parent's."""
        return self.region

    @property
    def service_endpoint(self) -> str | None:
        """See the parent's."""
        return self.endpoint

    @property
    def addressing_style(self) -> str:
        """As the library calls it."""
        return "path" if self.addressing == "auto" and self.endpoint is not None else self.addressing


class Bucket:
    """The bucket of a block. Every method raises :class:`~mailpoller.wire.aws.client.AwsError`,
    :class:`TransientError` and :class:`ConfigError`, as the client does."""

    def __init__(self, client: AwsClient, config: BucketSettings) -> None:
        self._client = client
        self._config = config

    def key(self, name: str) -> str:
        """The whole name of an object."""
        return self._config.prefix + name

    async def look(self) -> None:
        """Return if the bucket is there and we may list it."""
        await self._client.ask("list_objects_v2", Bucket=self._config.bucket, Prefix=self._config.prefix, MaxKeys=1)

    async def put(self, name: str, octets: bytes, kind: str, digest: bytes | None = None) -> bool:
        """Return when these octets are held under ``name``: True if they were put there now, False if something is
        there, which nobody has looked at. The store is sent their SHA-256 (``digest``, if it is known) and compares."""
        return await self._put(name, octets, kind, digest or sha256(octets).digest(), IfNoneMatch="*")

    async def overwrite(self, name: str, octets: bytes, kind: str, digest: bytes) -> None:
        """Return when these octets are held under ``name``, whatever was there."""
        await self._put(name, octets, kind, digest)

    async def _put(self, name: str, octets: bytes, kind: str, digest: bytes, **more: str) -> bool:
        """False if something is there."""
        from mailpoller.wire.aws.client import AwsError

        checksum = b64encode(digest).decode()

        for left in reversed(range(_TRIES)):
            try:
                answer = await self._client.ask(
                    "put_object", octets=len(octets), Bucket=self._config.bucket, Key=self.key(name), Body=octets,
                    ContentType=kind, ChecksumSHA256=checksum, **more,
                )  # fmt: skip
                break
            except AwsError as error:
                if error.code in _THERE:
                    return False
                if error.code not in _MEANWHILE or not left:
                    raise
        if answer.get("ChecksumSHA256", checksum) != checksum:
            raise TransientError(f"{self._client.place}: an answer that is not about what was sent")
        return True

    async def renew(self, name: str, kind: str) -> bool:
        """Return when what is there under ``name`` is as young as if it had been put now; False if nothing is."""
        from mailpoller.wire.aws.client import AwsError

        bucket, key = self._config.bucket, self.key(name)
        try:
            await self._client.ask(
                "copy_object", Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": key},
                MetadataDirective="REPLACE", ContentType=kind, ChecksumAlgorithm="SHA256",
            )  # fmt: skip
        except AwsError as error:
            if error.code in _GONE:
                return False
            raise
        return True

    async def rules(self) -> Sequence[Mapping[str, Any]]:
        """The rules by which the bucket removes objects; none of a store that knows none."""
        from mailpoller.wire.aws.client import AwsError

        try:
            answer = await self._client.ask("get_bucket_lifecycle_configuration", Bucket=self._config.bucket)
        except AwsError as error:
            if error.code in _NO_RULES:
                return ()
            raise
        found: Sequence[Mapping[str, Any]] = answer.get("Rules") or ()
        return found

    async def holds(self, name: str, digest: bytes, size: int) -> bool:
        """Whether what is there under ``name`` are the octets of this SHA-256 and size: by the store's word, which it
        has computed itself, else by reading them."""
        from mailpoller.wire.aws.client import AwsError

        words: dict[str, Any] = {"Bucket": self._config.bucket, "Key": self.key(name)}
        try:
            told = await self._client.ask("head_object", ChecksumMode="ENABLED", **words)
        except AwsError as error:
            if error.code in _GONE:
                return False
            raise
        if told.get("ContentLength") != size:
            return False
        if checksum := told.get("ChecksumSHA256"):
            return bool(checksum == b64encode(digest).decode())
        found = await self.read(name, size)
        return found is not None and sha256(found).digest() == digest

    async def read(self, name: str, size: int) -> bytes | None:
        """What is there under ``name``; None if nothing is. ``size``: what is expected, for the deadline."""
        from mailpoller.wire.aws.client import AwsError

        try:
            answer = await self._client.ask("get_object", octets=size, Bucket=self._config.bucket, Key=self.key(name))
        except AwsError as error:
            if error.code in _GONE:
                return None
            raise
        body: bytes = await answer["Body"].read()
        return body
