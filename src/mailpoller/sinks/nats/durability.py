"""What an answer of a stream is worth, by its configuration and by what its servers' monitoring pages say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamInfo

from mailpoller.core.durability import Durability
from mailpoller.core.errors import MailpollerError
from mailpoller.wire.http.client import HttpClient

_LIMIT = 1 << 20


async def read(info: StreamInfo, connected_to: str, pages: Sequence[str], seconds: float) -> Durability:
    """What was found of the stream. ``connected_to``: the name of the server that told; ``pages``: of monitoring.

    Raises nothing: a page that does not answer leaves its server *unknown*.
    """
    if forgets := _forgets(info):
        setting, mend = forgets
        return Durability("volatile", setting, f"nats stream edit {info.config.name} {mend}")
    told = {name: always for page in pages for name, always in (await _ask(page, seconds)).items()}
    servers = _servers(info, connected_to)
    if late := sorted(name for name in servers if told.get(name) is False):
        return Durability("volatile", f"{late[0]} answers before it syncs", _SYNC)
    if unknown := sorted(servers - told.keys()):
        asked = "does not say on its monitoring page" if pages else "says on a monitoring page alone (monitoring)"
        return Durability("unknown", f"whether it syncs before it answers, {unknown[0]} {asked}", _SYNC)
    return Durability("synced", "it has sync_interval always")


_SYNC = "jetstream { sync_interval: always } in the server's configuration"


def _servers(info: StreamInfo, connected_to: str) -> Collection[str] | Any:
    if info.cluster is None or not info.cluster.leader:
        return {connected_to}
    return {info.cluster.leader, *(one.name for one in info.cluster.replicas or [] if one.name)}


def _forgets(info: StreamInfo) -> tuple[str, str] | None:
    """Why the stream may lose what it answered for, in words, and the option that mends it; None if it does not."""
    config = info.config
    limited = any((one or -1) > 0 for one in (config.max_msgs, config.max_bytes))
    if config.storage != StorageType.FILE:
        return "the stream is in memory", "--storage=file (a new stream: this cannot be changed)"
    if config.max_age:
        return f"the stream removes what is older than {config.max_age:,.0f} s", "--max-age=0"
    if limited and config.discard != DiscardPolicy.NEW:
        return "the full stream removes the oldest, taken or not", "--discard=new"
    if (config.max_msgs_per_subject or -1) > 0 and not config.discard_new_per_subject:
        return "the stream removes the oldest of a subject, taken or not", "--max-msgs-per-subject=-1"
    if config.retention == RetentionPolicy.INTEREST:
        return "the stream keeps nothing that no consumer waits for", "--retention=work (a new stream)"
    if getattr(config, "persist_mode", None) not in (None, "", "default"):
        return f"the stream has persist_mode {config.persist_mode}", "--persist-mode=default (a new stream)"
    return None


async def _ask(page: str, seconds: float) -> Mapping[str, bool]:
    """Whether the server of the page syncs before it answers, by its name; empty if it does not tell."""
    from datetime import timedelta

    client = HttpClient(page, timeout=timedelta(seconds=seconds), connections=1)
    try:
        found = (await client.request("GET", "varz", doing="read its settings", limit=_LIMIT)).object()
    except MailpollerError:
        return {}
    finally:
        await client.close()
    name, jetstream = found.get("server_name"), found.get("jetstream")
    settings = jetstream.get("config") if isinstance(jetstream, dict) else None
    if not isinstance(name, str) or not isinstance(settings, dict):
        return {}
    return {name: settings.get("sync_always") is True}
