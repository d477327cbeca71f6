"""Refresh tokens on disk: written whole or not at all, ours alone, and never in the configuration.

One file a login, ``tokens/NAME.json`` below the state directory. A provider may end a refresh token the moment it
gives the next one, and take the use of an old one for theft. So whoever refreshes holds the file's lock, reads the
token from it, and has written the next one, synced, before anybody uses what came with it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from weakref import WeakValueDictionary

import orjson

from mailpoller.core.errors import TransientError
from mailpoller.core.regular import read_regular
from mailpoller.storage.disk import in_words, make_directory, sync_directory

_FILE_LIMIT = 256 << 10
_LOCK_PATIENCE = 30.0

_locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
"""flock is between processes; between tasks of one process it is this."""


@dataclass(frozen=True, slots=True, repr=False)
class Kept:
    """A refresh token as it is kept. ``seed`` is the fingerprint of the configured token that it descends from, empty
    after a login in a terminal; ``expires_at``: when it ends, if the provider said so."""

    refresh_token: str
    obtained_at: datetime
    seed: str = ""
    expires_at: datetime | None = None


class TokenFile:
    """The file of one login. Its methods block on the disk for a moment, except :meth:`locked`."""

    def __init__(self, state_directory: Path, *, client_id: str, token_url: str, owner: str) -> None:
        name = sha256("\0".join((token_url, client_id, owner.casefold())).encode()).hexdigest()[:32]
        self.path = state_directory / "tokens" / f"{name}.json"
        self._state_directory = state_directory

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Alone with the file, among all tasks and all processes. Raises :class:`TransientError` after half a
        minute."""
        lock = _locks.setdefault(self.path, asyncio.Lock())
        try:
            async with asyncio.timeout(_LOCK_PATIENCE):
                await lock.acquire()
        except TimeoutError:
            raise TransientError("another task is refreshing the same token and does not come to an end") from None
        try:
            descriptor = await self._flock()
            try:
                yield
            finally:
                os.close(descriptor)
        finally:
            lock.release()

    async def _flock(self) -> int:
        try:
            self._prepare()
            descriptor = os.open(
                self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise TransientError(in_words(error, f"use {self.path.parent}")) from error
        deadline = asyncio.get_running_loop().time() + _LOCK_PATIENCE
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return descriptor
                except BlockingIOError:
                    if asyncio.get_running_loop().time() > deadline:
                        raise TransientError(f"another process holds {self.path.with_suffix('.lock')}") from None
                    await asyncio.sleep(0.05)
        except BaseException:
            os.close(descriptor)
            raise

    def read(self) -> Kept | None:
        """What is kept, or None if nothing is, or nothing that can be understood. Raises :class:`TransientError`."""
        try:
            found = orjson.loads(read_regular(self.path, _FILE_LIMIT))
            expires = found.get("expires_at")
            return Kept(
                refresh_token=str(found["refresh_token"]),
                obtained_at=datetime.fromisoformat(found["obtained_at"]),
                seed=str(found.get("seed", "")),
                expires_at=None if expires is None else datetime.fromisoformat(expires),
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransientError(in_words(error, f"read {self.path}")) from error
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, kept: Kept) -> None:
        """Keep it: durable when this returns, and the old one until then. Raises :class:`TransientError`."""
        octets = orjson.dumps(
            {
                "refresh_token": kept.refresh_token,
                "obtained_at": kept.obtained_at.isoformat(),
                "seed": kept.seed,
                "expires_at": None if kept.expires_at is None else kept.expires_at.isoformat(),
            }
        )
        temporary = ""
        try:
            self._prepare()
            descriptor, temporary = tempfile.mkstemp(prefix=".token-", dir=self.path.parent)  # mode 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(descriptor)
            Path(temporary).replace(self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                Path(temporary or self.path.parent / ".none").unlink(missing_ok=True)
            raise TransientError(in_words(error, "keep the new refresh token")) from error

    def _prepare(self) -> None:
        directory = self.path.parent
        if not directory.is_dir():
            make_directory(self._state_directory, mode=0o750)
            make_directory(directory, mode=0o700)


def fingerprint(secret: str) -> str:
    """Tells whether a configured token is still the same, without keeping it."""
    return sha256(b"mailpoller refresh token\0" + secret.encode()).hexdigest()
