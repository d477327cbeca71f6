"""``/metrics``, ``/healthz`` and ``/readyz``: what programs that watch the service may ask."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog

from mailpoller.config.model import MetricsConfig
from mailpoller.engine.assessment import Level, assess
from mailpoller.engine.metrics import FREE, LEDGER_LOG, LEDGER_SIZE, SPOOL, Metrics
from mailpoller.storage.local_socket import listen_at, remove

log = structlog.get_logger(__name__)

AGAIN_S = 60.0
"""An address that cannot be had is tried again so often."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"

Report = Callable[[], Awaitable[Mapping[str, Any]]]
"""How everything fares, as ``status`` reports it, without counts of messages."""


async def serve(config: MetricsConfig, metrics: Metrics, report: Report, ended: asyncio.Event) -> None:
    """Answer until ``ended``. An address that cannot be had, or a package that is missing, costs the figures and not
    the mail: it is tried again every minute."""
    said = ""
    while not ended.is_set():
        try:
            await _served(config, metrics, report, ended)
        except (OSError, ModuleNotFoundError) as error:
            reason = str(error)
            if reason != said:
                log.warning("metrics.unavailable", reason=reason)
                said = reason
            waiting = asyncio.ensure_future(ended.wait())
            await asyncio.wait((waiting,), timeout=AGAIN_S)
            waiting.cancel()


async def _served(config: MetricsConfig, metrics: Metrics, report: Report, ended: asyncio.Event) -> None:
    from mailpoller.wire.http.server import LONGEST_HEAD, HttpService, Page, plain

    async def page(path: str) -> Page | None:
        if path == "/metrics":
            return Page(200, TEXT, metrics.text())
        if path not in ("/healthz", "/readyz"):
            return None
        found = await report()
        assessment = assess(found)
        well = assessment.level < Level.CRITICAL and _has_polled(found)
        if path == "/healthz":
            well = "ledger_error" not in found
        words = f"{assessment.level.name}: {assessment.line}\n"
        return Page(200 if well else 503, "text/plain; charset=utf-8", plain(words))

    service = HttpService(page)
    async with AsyncExitStack() as closing:
        closing.callback(service.close)
        if config.socket is not None:
            listening = listen_at(config.socket)
            closing.callback(remove, config.socket, config.socket.lstat())
            server = await asyncio.start_unix_server(service.talk, sock=listening, limit=LONGEST_HEAD)
            await closing.enter_async_context(server)
        if config.port is not None:
            server = await asyncio.start_server(service.talk, "127.0.0.1", config.port, limit=LONGEST_HEAD)
            await closing.enter_async_context(server)
        log.info("metrics.served", socket=config.socket and str(config.socket), port=config.port)
        await ended.wait()


def _has_polled(report: Mapping[str, Any]) -> bool:
    """True if this process completed a poll: what an earlier one saw says nothing of this one."""
    return any((box["last_poll_at"] or "") >= report["started_at"] for box in report["mailboxes"])


def sizes_of(ledger: Path | None, state: Path) -> Callable[[], dict[str, int]]:
    """What :class:`Metrics` asks for in a thread: octets of files, of those that can be looked at."""

    def sizes() -> dict[str, int]:
        found: dict[str, int] = {}
        wal = None if ledger is None else ledger.with_name(ledger.name + "-wal")
        for family, path in ((LEDGER_SIZE, ledger), (LEDGER_LOG, wal)):
            try:
                if path is not None:
                    found[family.name] = path.stat().st_size
            except OSError:
                continue
        try:
            with os.scandir(state / "spool") as entries:
                found[SPOOL.name] = sum(_size(entry) for entry in entries)
            free = os.statvfs(state)
            found[FREE.name] = free.f_bavail * free.f_frsize
        except OSError:
            pass
        return found

    return sizes


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
