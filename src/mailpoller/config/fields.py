"""What the classes of blocks say about their fields: keys, references to other blocks, secrets, kinds of values.

One generic walk, so that a third party's plug-in is checked like ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from mailpoller.config.node import Node
from mailpoller.core.literals import NeededFile, Reference, Secret, parse_size

Loc = tuple[str | int, ...]
Marker = Reference | NeededFile


def key_of(name: str, info: FieldInfo) -> str:
    """The key in the file of a field."""
    return info.alias or (info.validation_alias if isinstance(info.validation_alias, str) else None) or name


@cache
def keys_of(model: type[BaseModel]) -> Mapping[str, Any]:
    """key -> annotation, of all keys that a block may have; every alias counts."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        annotation = info.rebuild_annotation()
        found[key_of(name, info)] = annotation
        if isinstance(info.validation_alias, AliasChoices):
            found |= {choice: annotation for choice in info.validation_alias.choices if isinstance(choice, str)}
    return found


def required_keys(model: type[BaseModel]) -> list[str]:
    """The keys that a block must have."""
    return [key_of(name, info) for name, info in model.model_fields.items() if info.is_required()]


def arms(annotation: Any) -> list[Any]:
    """What a value may be: the members of a union, without the wrapping of Annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return arms(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [arm for member in get_args(annotation) for arm in arms(member)]
    return [annotation]


def below(annotation: Any, key: str | int) -> list[Any]:
    """The annotations of what stands under ``key`` in a value of ``annotation``."""
    found: list[Any] = []
    for arm in arms(annotation):
        if isinstance(arm, type) and issubclass(arm, BaseModel):
            found += [keys_of(arm)[str(key)]] if str(key) in keys_of(arm) else []
        elif isinstance(origin := get_origin(arm), type) and issubclass(origin, Mapping):
            found += get_args(arm)[1:2]
        elif isinstance(key, int) and get_args(arm):
            found.append(get_args(arm)[0])
    return found


def known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys that the block at ``loc`` within a block of ``model`` may have; empty if it may have any."""
    return sorted({key for block in blocks_at(model, loc) for key in keys_of(block)})


def blocks_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[type[BaseModel]]:
    """The classes that the block at ``loc`` within a block of ``model`` may be of."""
    return [arm for arm in annotations_at(model, loc) if isinstance(arm, type) and issubclass(arm, BaseModel)]


def annotations_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[Any]:
    """What the value at ``loc`` may be: the arms of its annotation; empty if nothing is known about it."""
    level: list[Any] = [model]
    for key in loc:
        deeper = [found for annotation in level for found in below(annotation, key)]
        # pydantic puts the type of a block among the keys where several types may stand.
        level = deeper or [arm for annotation in level for arm in arms(annotation) if _is_of_type(arm, key)]
    return [arm for annotation in level for arm in arms(annotation)]


def _is_of_type(arm: Any, name: str | int) -> bool:
    return isinstance(arm, type) and issubclass(arm, BaseModel) and name in get_args(keys_of(arm).get("type"))


def may_be_size(annotation: Any) -> bool:
    """True if a number in a value of ``annotation`` counts octets, as the literal ``Size`` says."""
    parts = (*get_args(annotation), *getattr(annotation, "__metadata__", ()))
    return any(part.func is parse_size if isinstance(part, BeforeValidator) else may_be_size(part) for part in parts)


# --- references and secrets ------------------------------------------------------------------------------------------
def references_of(block: BaseModel) -> Iterator[tuple[Loc, str, str]]:
    """Every name of another block in a block: (where, the section it leads to, the name)."""
    for key, name, annotation in _plan(type(block), Reference):
        if not (value := getattr(block, name, None)):
            continue  # of a thousand mailboxes most keys are left out
        for loc, found, marker in _values(value, annotation, None):
            if isinstance(marker, Reference) and isinstance(found, str):
                yield (key, *loc), marker.section, found


def names_written(node: Node, annotation: Any, marker: Reference | None = None) -> Iterator[tuple[Node, str]]:
    """As :func:`references_of`, read off what is written: for a block that is wrong, and so was not made. (node,
    section)."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield from names_written(
            node, inner, next((found for found in metadata if isinstance(found, Reference)), marker)
        )
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from names_written(node, member, marker)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for key, child in node.entries.items():
            if key in keys_of(annotation):
                yield from names_written(child, keys_of(annotation)[key])
    elif isinstance(node.value, str):
        item = get_args(annotation)[0] if get_origin(annotation) is list else annotation
        if item is not annotation:
            yield from names_written(node, item, marker)
        elif marker is not None:
            yield node, marker.section
    elif isinstance(node.value, list) and get_args(annotation):
        for child in node.value:
            yield from names_written(child, get_args(annotation)[0], marker)
    elif isinstance(node.value, dict) and len(get_args(annotation)) == 2:
        for child in node.value.values():
            yield from names_written(child, get_args(annotation)[1], marker)


def secrets_of(block: BaseModel) -> Iterator[tuple[Loc, Secret]]:
    """Every secret in a block: (where, the secret)."""
    for key, name, annotation in _plan(type(block), Secret):
        for loc, found, _ in _values(getattr(block, name, None), annotation, None):
            if isinstance(found, Secret):
                yield (key, *loc), found


def needed_files_of(block: BaseModel) -> Iterator[tuple[Loc, Path]]:
    """Every file in a block that must be there already: (where, the file)."""
    for key, name, annotation in _plan(type(block), NeededFile):
        for loc, found, marker in _values(getattr(block, name, None), annotation, None):
            if isinstance(marker, NeededFile) and isinstance(found, Path):
                yield (key, *loc), found


def require_secrets(block: BaseModel) -> None:
    """Raise :class:`~mailpoller.core.errors.ConfigError` for the first secret of a block that cannot be read now. Reads
    files."""
    for _, secret in secrets_of(block):
        secret.reveal()


def secret_keys(model: type[BaseModel]) -> set[str]:
    """The keys of a block whose value is a secret or holds one."""
    return {key for key, _, _ in _plan(model, Secret)}


@cache
def _plan(model: type[BaseModel], wanted: type) -> tuple[tuple[str, str, Any], ...]:
    """The fields (key, name, annotation) of a block that may hold what is wanted, so that the others are never
    walked."""
    return tuple(
        (key_of(name, info), name, info.rebuild_annotation())
        for name, info in model.model_fields.items()
        if _may_hold(info.rebuild_annotation(), wanted, frozenset((model,)))
    )


def _may_hold(annotation: Any, wanted: type, seen: frozenset[type]) -> bool:
    if annotation is wanted:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = annotation not in seen and any(
            _may_hold(info.rebuild_annotation(), wanted, seen | {annotation})
            for info in annotation.model_fields.values()
        )
        return inner or annotation in seen
    return any(isinstance(part, wanted) or _may_hold(part, wanted, seen) for part in get_args(annotation))


def _values(value: Any, annotation: Any, marker: Marker | None) -> Iterator[tuple[Loc, Any, Marker | None]]:
    """The scalars in a value, each with its place and what marks it."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        marker = next((entry for entry in metadata if isinstance(entry, Reference | NeededFile)), marker)
        yield from _values(value, inner, marker)
    elif isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            for loc, found, mark in _values(getattr(value, name, None), info.rebuild_annotation(), None):
                yield (key_of(name, info), *loc), found, mark
    elif get_origin(annotation) in (Union, UnionType):
        fitting = [member for member in get_args(annotation) if _fits(value, member)]
        if fitting:
            yield from _values(value, fitting[0], marker)
    elif isinstance(value, Mapping):
        item = (get_args(annotation) or (Any, Any))[-1]
        for key, child in value.items():
            for loc, found, mark in _values(child, item, None):
                yield (str(key), *loc), found, mark
    elif isinstance(value, list | tuple | set | frozenset):
        item = (get_args(annotation) or (Any,))[0]
        for number, child in enumerate(value):
            for loc, found, mark in _values(child, item, marker):
                yield (number, *loc), found, mark
    else:
        yield (), value, marker


def _fits(value: Any, annotation: Any) -> bool:
    for arm in arms(annotation):
        kind = get_origin(arm) or arm
        if kind is Any or (isinstance(kind, type) and isinstance(value, kind)):
            return True
    return False
