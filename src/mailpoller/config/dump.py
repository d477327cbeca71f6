"""The effective configuration: merged, defaults filled in, secrets masked, in the words of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mailpoller.config import sections
from mailpoller.config.checked import Config
from mailpoller.config.fields import key_of, may_be_size
from mailpoller.config.node import Node, join
from mailpoller.core.delivery import Disposition
from mailpoller.core.literals import Secret, write_disposition

_DURATIONS = (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_SIZES = (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20), ("KB", 10**3), ("KiB", 2**10))


def effective(config: Config) -> dict[str, Any]:
    """The whole configuration as plain dicts, lists and scalars, ready for YAML or JSON.

    What it gives is itself a configuration: loaded again it means the same, but for secrets written in the file,
    which are masked. Keys without a value are left out; every mailbox is complete, so ``defaults``, ``extends`` and
    ``include`` are gone. Queues that rules make are in their rules.
    """
    whole: dict[str, Any] = {}
    for section in sections.TABLE:
        made: Any = config.made.get(section.key)
        if section.key in config.around:
            inside = {sections.INSIDE: _block(made)} if isinstance(made, BaseModel) else {}
            whole[section.key] = _block(config.around[section.key]) | inside
        elif isinstance(made, BaseModel):
            whole[section.key] = _block(made)
        elif made is not None and section.shape == "named":
            written = re.compile(section.named_as).fullmatch
            whole[section.key] = {name: _block(block) for name, block in made.items() if written(name)}
        elif made is not None:
            whole[section.key] = [_block(block) for block in made.values()]
    for outgoing in whole["outgoing"].values():
        outgoing.pop("extends", None)
    for name, mailbox in whole["mailboxes"].items():
        mailbox.pop("extends", None)
        if name in config.overrides:
            mailbox["quarantine"] = _block(config.overrides[name])
    return whole


def origins(config: Config) -> dict[str, tuple[Any, str]]:
    """path of a key -> its value, and where that comes from: ``FILE:LINE``, with the reason if it was chosen for the
    block, or ``default``. In the order of :func:`effective`."""
    found: dict[str, tuple[Any, str]] = {}

    def walk(at: tuple[str, ...], node: Node | None, value: Any, path: str) -> None:
        if isinstance(value, Mapping) and value:
            for key, child in value.items():
                below = (*at, key)
                inner = config.places.get(below) or (node.entries.get(key) if node is not None else None)
                walk(below, inner, child, join(path, key))
            return
        origin = "default" if node is None else f"{node.file}:{node.line}"
        if at[-1] == sections.OUTGOING.key and (why := config.chosen.get(at[:-1])):
            origin += f" ({why})"
        found[path] = (value, origin)

    for key, value in effective(config).items():
        if isinstance(value, list):  # of blocks with names
            value = {block["name"]: block for block in value}
        walk((key,), config.places.get((key,)), value, key)
    return found


def write_duration(value: timedelta) -> str:
    """``1h30m``: the inverse of :func:`~mailpoller.core.literals.parse_duration`, to the millisecond.

    Weeks and days only where they come out even: ``90d``, ``36h``.
    """
    left = round(value / timedelta(milliseconds=1))
    for unit, length in _DURATIONS:
        if left and left % length == 0 and (unit != "w" or left < 8 * length):
            return f"{left // length}{unit}"
    text = ""
    for unit, length in _DURATIONS[2:]:
        if left >= length:
            text += f"{left // length}{unit}"
            left %= length
    return text or "0s"


def write_size(octets: int) -> str | int:
    """``20MB``, ``64KiB``, or the bare number: the inverse of :func:`~mailpoller.core.literals.parse_size`."""
    for unit, length in _SIZES:
        if octets and octets % length == 0:
            return f"{octets // length}{unit}"
    return octets


def _block(block: BaseModel) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for name, info in type(block).model_fields.items():
        value = getattr(block, name, None)
        if value is None and (info.default is None or not hasattr(block, name)):
            continue  # the latter: a disabled mailbox that lacks it
        written[key_of(name, info)] = (
            write_size(value) if isinstance(value, int) and name in _size_fields(type(block)) else _value(value)
        )
    if "type" in written:
        written = {"type": written.pop("type")} | written
    return written


def _value(value: Any) -> Any:
    match value:
        case BaseModel():
            return _block(value)
        case timedelta():
            return write_duration(value)
        case Secret() | Path():
            return str(value)
        case Disposition():
            return write_disposition(value)
        case Enum():
            return _value(value.value)
        case Mapping():
            return {str(key): _value(child) for key, child in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_value(child) for child in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


@cache
def _size_fields(model: type[BaseModel]) -> frozenset[str]:
    """The fields whose number counts octets."""
    return frozenset(name for name, info in model.model_fields.items() if may_be_size(info.rebuild_annotation()))
