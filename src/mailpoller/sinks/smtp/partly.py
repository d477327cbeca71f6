"""Mails that a relay took for some of their recipients: who has each, so that the others get it and nobody gets it
twice."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from mailpoller.core.record import record
from mailpoller.storage.disk import make_directory, sync_directory

log = structlog.get_logger(__name__)

_LIMIT = 10_000
"""Mails that are remembered; the oldest is forgotten, and would come again to whoever has it."""


@record
class Share:
    """Of one mail: who has it, and who refused it for good."""

    taken: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class Partly:
    """Shares by delivery id, kept in a file, so that they survive the process. The file is there only while it is
    needed.

    A file that cannot be read or written is told (``recipient.unrecorded``) and costs a repeat after a restart, and
    nothing else.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._shares: dict[str, Share] | None = None
        self._writing = asyncio.Lock()

    async def of(self, delivery_id: str) -> Share:
        """What is known of a mail."""
        if self._shares is None:
            async with self._writing:
                if self._shares is None:
                    self._shares = await asyncio.to_thread(self._read)
        return self._shares.get(delivery_id, Share())

    async def keep(self, delivery_id: str, share: Share) -> None:
        """Remember it; durable when this returns, unless the file cannot be written."""
        shares = self._known()
        shares[delivery_id] = share
        while len(shares) > _LIMIT:
            del shares[next(iter(shares))]
        await self._write()

    async def drop(self, delivery_id: str) -> None:
        """All have it that ever will."""
        if self._known().pop(delivery_id, None) is not None:
            await self._write()

    def _known(self) -> dict[str, Share]:
        if self._shares is None:
            self._shares = {}
        return self._shares

    async def _write(self) -> None:
        async with self._writing:
            shares = dict(self._known())
            try:
                # A thread cannot be cancelled, and the next one must not overtake it.
                await asyncio.shield(asyncio.to_thread(self._replace, shares))
            except OSError as error:
                log.warning("recipient.unrecorded", file=str(self._file), reason=error.strerror or str(error))

    def _read(self) -> dict[str, Share]:
        try:
            found = json.loads(self._file.read_bytes())
            return {name: Share(tuple(one["taken"]), tuple(one["refused"])) for name, one in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("recipient.unrecorded", file=str(self._file), reason=f"cannot be read: {error}"[:200])
            return {}

    def _replace(self, shares: Mapping[str, Share]) -> None:
        if not shares:
            self._file.unlink(missing_ok=True)
            return
        make_directory(self._file.parent, mode=0o750)
        fresh = self._file.with_suffix(".partial")
        told = {name: {"taken": one.taken, "refused": one.refused} for name, one in shares.items()}
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._file)
        sync_directory(self._file.parent)
