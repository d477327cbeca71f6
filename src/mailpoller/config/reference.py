"""The reference of every key, in Markdown, from the classes themselves: ``python -m mailpoller.config.reference``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mailpoller.config import sections
from mailpoller.config.dump import write_duration, write_size
from mailpoller.config.fields import key_of, may_be_size
from mailpoller.config.problems import either
from mailpoller.config.registry import BASES, INSTALLED, Registry
from mailpoller.core.delivery import Disposition
from mailpoller.core.literals import Reference, Secret, write_disposition
from mailpoller.core.prose import attribute_docstrings

_HEAD = """\
# Reference of the configuration

Every key of every block. This page is made from the code: `python -m mailpoller.config.reference > docs/reference.md`.
How the blocks work together, and what is merged with what, is in [configuration.md](configuration.md).

- A **duration** is written `500ms`, `30s`, `5m`, `1h30m`, `2d` or `1w`.
- A **size** is written `512KiB`, `10MB` or `1GB` (KB is 1000 octets, KiB is 1024), or as a number of octets.
- A **secret** is `env:NAME`, `file:/path`, `credential:NAME` (systemd's LoadCredential), or the text itself.
- A **disposition** is `seen`, `leave`, `delete`, or a block of `move: FOLDER`, `flag: KEYWORD` (or a list),
  `seen: true` and `delete: true`.
- A **name of a queue** (rule, outgoing) is one that is defined in the same configuration, in whatever file.
"""

_LOCKED = "- **`locked`** (list of keys): Keys that a mailbox or an outgoing in a drop-in file cannot set.\n"
_WORDS: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    timedelta: "duration",
    Secret: "secret",
    Disposition: "disposition",
}


def reference(registry: Registry = INSTALLED) -> str:
    """The whole page, for everything that is installed; ends with one line end."""
    parts = [_HEAD]
    described: set[str] = set()
    for section in sections.TABLE:
        place = section.place or f"`{section.key}:`"
        if not section.kind and section.model:
            parts.append(_block(section.key, section.model, place=place.removesuffix(".")))
            continue
        parts.append(f"## {section.key}\n\n{place}\n")
        if section.shape == "keys":
            parts.append(_LOCKED)
        if section.around is not None:
            place = f"Around `{sections.INSIDE}`, which is a block as told below"
            parts.append(_block(f"{section.key}: itself", section.around, place=place, level=3))
        if section.kind and section.kind not in described:
            described.add(section.kind)
            parts += _types(section.key, section.kind, registry)
        for type_ in section.own_types:
            if section.model:
                own = [key for key in section.model.model_fields if key != "type"]
                parts.append(_block(f"{section.key}: {type_}", section.model, own, place=f"`type: {type_}`", level=3))
    return "\n".join(parts).rstrip() + "\n"


def overview() -> str:
    """The sections as a table in Markdown."""
    rows = [f"| `{one.key}` | {one.summary} | {one.without} |" for one in sections.TABLE]
    return (
        "\n".join(["| block | what it says | if it is left out |", "|---|---|---|", *rows]).replace("|  |", "| |")
        + "\n"
    )


def _types(section: str, kind: str, registry: Registry) -> Iterator[str]:
    """What all plug-ins of a kind have, and what each of them has."""
    base = BASES[kind]
    shared = [key for key in base.model_fields if key != "type"]
    if shared:
        yield f"### {section}: keys of every type\n\n{_keys(base, shared)}{_inside(section, base, shared, level=4)}"
    for name in registry.known(kind):
        model = registry.load_plugin(kind, name)
        own = [key for key in model.model_fields if key != "type" and _is_news(key, model, base)]
        yield _block(f"{section}: {name}", model, own, place=f"`type: {name}`", level=3)


def _is_news(key: str, model: type[BaseModel], base: type[BaseModel]) -> bool:
    """True for a field that the base does not have, or that has another default or meaning here."""
    mine, theirs = model.model_fields[key], base.model_fields.get(key)
    return theirs is None or (_default(mine), _described(model, key)) != (_default(theirs), _described(base, key))


def _block(title: str, model: type[BaseModel], only: Sequence[str] | None = None, *, place: str, level: int = 2) -> str:
    """A block's heading, docstring and keys, then the blocks that stand inside it, each once."""
    fields = list(model.model_fields) if only is None else list(only)
    text = f"{'#' * level} {title}\n\n{place}. {_prose(model.__doc__)}\n\n" + _keys(model, fields)
    return text + _inside(title, model, fields, level=level + 1)


def _inside(title: str, model: type[BaseModel], fields: Sequence[str], *, level: int) -> str:
    """The blocks that stand inside a block, each once."""
    text = ""
    for block in blocks_inside(model, fields):
        text += f"\n{'#' * level} {title}: {_noun(block)}\n\n{_prose(block.__doc__)}\n\n"
        text += _keys(block, list(block.model_fields))
    return text


def _keys(model: type[BaseModel], fields: Sequence[str]) -> str:
    if not fields:
        return "No keys of its own.\n"
    return "".join(_key(name, model.model_fields[name], _described(model, name)) for name in fields)


def _described(model: type[BaseModel], name: str) -> str:
    return attribute_docstrings(model).get(name) or model.model_fields[name].description or ""


def _key(name: str, info: FieldInfo, words: str) -> str:
    default = _default(info)
    needed = "required" if info.is_required() else "optional" if default is None else f"default {default}"
    described = " ".join(_prose(words).split())
    return f"- **`{key_of(name, info)}`** ({_words(info.rebuild_annotation())}; {needed})" + (
        f": {described}\n" if described else "\n"
    )


def _words(annotation: Any) -> str:
    """What may be written for a value, in words."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        if found := next((entry for entry in metadata if isinstance(entry, Reference)), None):
            return f"name of {_one(found.section)}"
        return "size" if inner is int and may_be_size(annotation) else _words(inner)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"block: {_noun(annotation)}"
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return either([f"`{member}`" for member in members])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "block" if members[1] is Any else f"block of {_words(members[1])}"
    if isinstance(origin, type) and issubclass(origin, list | tuple | set | frozenset):
        return f"list of {_words(members[0]).replace('name of', 'names, each of')}" if members else "list"
    if members:
        return either(list(dict.fromkeys(_words(member) for member in members if member is not type(None))))
    return "any"


def _one(section: str) -> str:
    """``a queue``, ``an outgoing``."""
    noun = sections.noun_of(section)
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _default(info: FieldInfo) -> str | None:
    """The default as it would be written, in backquotes; None if there is none worth showing."""
    if info.is_required():
        return None
    value = info.get_default(call_default_factory=True, validated_data={})
    match value:
        case None | [] | () | "":
            return None
        case bool():
            return f"`{str(value).lower()}`"
        case timedelta():
            return f"`{write_duration(value)}`"
        case Disposition():
            return f"`{write_disposition(value)}`"
        case int() if may_be_size(info.rebuild_annotation()):
            return f"`{write_size(value)}`"
        case list() | tuple():
            return f"`[{', '.join(str(entry) for entry in value)}]`"
        case BaseModel():
            return None
        case _:
            return f"`{value}`"


def blocks_inside(model: type[BaseModel], fields: Sequence[str] | None = None) -> list[type[BaseModel]]:
    """The blocks inside a block (or inside some of its fields), at any depth, each once, in order of appearance."""
    found: dict[type[BaseModel], None] = {}

    def look(block: type[BaseModel], names: Sequence[str]) -> None:
        for name in names:
            for inner in _blocks_in(block.model_fields[name].rebuild_annotation()):
                if inner not in found:
                    found[inner] = None
                    look(inner, list(inner.model_fields))

    look(model, list(model.model_fields) if fields is None else fields)
    return list(found)


def _blocks_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _blocks_in(part)


def _noun(model: type[BaseModel]) -> str:
    """``TextTest`` -> ``text test``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__.removesuffix("Config")).lower()


def _prose(text: str | None) -> str:
    """A docstring as Markdown."""
    clean = inspect.cleandoc(text or "")
    clean = re.sub(r":\w+:`~?(?:[\w.]+\.)?([\w]+)`", r"`\1`", clean)
    return clean.replace("``", "`")


if __name__ == "__main__":
    sys.stdout.write(reference())
