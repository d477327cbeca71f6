"""Which of the extras that blocks need are not installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import invalidate_caches
from importlib.util import find_spec

from pydantic import BaseModel

from mailpoller.core.errors import ConfigError
from mailpoller.core.extras import Extra


def missing_extras(block: BaseModel) -> Iterator[tuple[tuple[str | int, ...], Extra]]:
    """Every extra of a block, and of the blocks inside of it, that is not installed now: (where, which). Each module
    once, as the outermost block that needs it calls it."""
    invalidate_caches()  # one may have been installed since the last look
    told: set[str] = set()
    for at, extra in _extras_of(block):
        if extra.module not in told and not _installed(extra.module):
            told.add(extra.module)
            yield (*at, extra.key), extra


def require_extras(block: BaseModel) -> None:
    """Raise :class:`ConfigError` that names all that is missing."""
    if missing := dict.fromkeys(str(extra) for _, extra in missing_extras(block)):
        raise ConfigError(f"type: {getattr(block, 'type', '')} {'; '.join(missing)}")


def _installed(module: str) -> bool:
    """True if it is there. Imports nothing."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _extras_of(block: BaseModel) -> Iterator[tuple[tuple[str | int, ...], Extra]]:
    yield from (((), extra) for extra in getattr(block, "extras", tuple)())
    for name, info in type(block).model_fields.items():
        yield from _below((info.alias or name,), getattr(block, name, None))


def _below(at: tuple[str | int, ...], value: object) -> Iterator[tuple[tuple[str | int, ...], Extra]]:
    if isinstance(value, BaseModel):
        yield from (((*at, *deeper), extra) for deeper, extra in _extras_of(value))
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _below((*at, str(key)), child)
    elif isinstance(value, list | tuple):
        for number, child in enumerate(value):
            yield from _below((*at, number), child)
