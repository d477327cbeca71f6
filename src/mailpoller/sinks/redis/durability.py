"""What the answers of a Redis server are worth, by its own settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from mailpoller.core.durability import Durability

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

_WANTED = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}
"""With anything else an answer comes before the sync, or what was answered for may be removed."""


async def read(connection: AbstractConnection) -> Durability:
    """Ask the server at the other end. Raises what redis-py raises, apart from a refusal of the question."""
    role = await _role(connection)
    if role == "slave":
        return Durability("volatile", "it is a replica, and its master overrules it", "REPLICAOF NO ONE")
    settings: dict[str, str] = {}
    try:
        for name in _WANTED:
            found = [_text(one) for one in await _ask(connection, "CONFIG", "GET", name)]
            settings.update(zip(found[::2], found[1::2], strict=True))
    except ResponseError:
        settings = {}
    if not settings.keys() >= {"appendonly", "appendfsync", "maxmemory-policy"}:
        if (await _info(connection, "persistence")).get("aof_enabled") == "0":
            return Durability("volatile", "it has appendonly no", "CONFIG SET appendonly yes; CONFIG REWRITE")
        return Durability(
            "unknown",
            "it does not let us read its settings (CONFIG GET)",
            "ACL SETUSER our-user +config|get +info",
        )
    wrong = {name: value for name, value in settings.items() if value != _WANTED.get(name, value)}
    if not wrong:
        return Durability("synced", "it has appendonly yes, appendfsync always")
    commands = [f"CONFIG SET {name} {_WANTED[name]}" for name in wrong]
    setting = "it has " + ", ".join(f"{name} {value}" for name, value in wrong.items())
    return Durability("volatile", setting, "; ".join((*commands, "CONFIG REWRITE")))


async def trouble(connection: AbstractConnection) -> str:
    """Why a write could not succeed now, as far as the server tells; else empty."""
    memory = await _info(connection, "memory")
    limit = int(memory.get("maxmemory", 0))
    if limit and int(memory.get("used_memory", 0)) > limit:
        return f"it is full: maxmemory is {limit:,} octets"
    if (await _info(connection, "persistence")).get("aof_last_write_status", "ok") != "ok":
        return "it cannot write its append-only file"
    return ""


async def _role(connection: AbstractConnection) -> str:
    return (await _info(connection, "replication")).get("role", "")


async def _info(connection: AbstractConnection, section: str) -> dict[str, str]:
    """A section of INFO; nothing if we may not ask."""
    try:
        answer = _text(await _ask(connection, "INFO", section))
    except ResponseError:
        return {}
    pairs = (line.partition(":") for line in answer.splitlines() if not line.startswith("#"))
    return {name: value for name, _, value in pairs}


async def _ask(connection: AbstractConnection, *words: str) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


def _text(answer: bytes | str) -> str:
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
