"""A block of what is written so far: of a mailbox that is disabled and not complete."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from mailpoller.config.fields import blocks_at, key_of, keys_of

B = TypeVar("B", bound=BaseModel)

_ANYTHING = ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True)


def partial(model: type[B], written: Mapping[str, Any]) -> B:
    """A ``model`` with the defaults and with what of ``written`` is complete and right.

    It has no attribute for a key that it lacks, and nothing has looked at it as a whole: it is good for showing, not
    for building.
    """
    made: dict[str, Any] = {}
    unknown: list[str] = []
    for name, info in model.model_fields.items():
        key = key_of(name, info)
        if key not in written:
            unknown += [name] if info.is_required() else []
            continue
        try:
            made[key] = _alone(model, name).model_validate({"value": written[key]}).__dict__["value"]
        except ValidationError:
            if (inner := _block_of(model, key, written[key])) is None:
                unknown.append(name)
            else:
                made[key] = partial(inner, written[key])
    block = model.model_construct(**made)
    for name in unknown:
        block.__dict__.pop(name, None)
    return block


@cache
def _alone(model: type[BaseModel], name: str) -> type[BaseModel]:
    """A block with one field of ``model``, called ``value``."""
    annotation = model.model_fields[name].rebuild_annotation()
    return create_model(f"{model.__name__}_{name}", __config__=_ANYTHING, value=(annotation, ...))


def _block_of(model: type[BaseModel], key: str, written: object) -> type[BaseModel] | None:
    """The class of the block that stands under ``key``, as far as its ``type`` tells."""
    if not isinstance(written, Mapping):
        return None
    blocks = blocks_at(model, (key,))
    fitting = [block for block in blocks if written.get("type") in get_args(keys_of(block).get("type"))]
    found = fitting or blocks
    return found[0] if len(found) == 1 else None
