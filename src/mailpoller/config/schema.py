"""The JSON Schema of the whole file, for editors: made from the classes of everything that is installed.

It is as strict as an editor can use and no stricter than the loader: a mailbox may leave out what ``defaults`` or
``extends`` supply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator

from mailpoller.config import sections
from mailpoller.config.fields import key_of
from mailpoller.config.registry import INSTALLED, Registry
from mailpoller.config.sections import Section
from mailpoller.core.component import KINDS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(registry: Registry = INSTALLED) -> Schema:
    """The schema: draft 2020-12, self-contained, the same for the same set of installed plug-ins."""
    definitions: Schema = {}
    blocks = {
        kind: {
            name: _define(f"{kind}.{name}", registry.load_plugin(kind, name), definitions)
            for name in registry.known(kind)
        }
        for kind in KINDS
    }
    lockable = {section.kind for section in sections.TABLE if section.lockable}
    defaults = _defaults(blocks["sources"], _keys(lockable, definitions), definitions)
    for name, definition in definitions.items():
        if name.startswith(("sources.", "outgoings.")) and name.count(".") == 1:
            # defaults or extends may supply what one needs, even its type, and a disabled one may lack it
            definition.pop("required", None)
    properties: Schema = {}
    for section in sections.TABLE:
        if section.shape == "keys":
            made = defaults
        elif section.shape == "files":
            made = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
        else:
            made = _shaped(section, _block(section, blocks, definitions))
        without = f" Without it: {section.without}." if section.without else ""
        properties[section.key] = made | {"description": f"{section.summary.capitalize()}.{without}".replace("`", "")}
    return {
        "$schema": DIALECT,
        "title": "mailpoller configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _define(name: str, model: type[BaseModel], definitions: Schema) -> Schema:
    """Put a block's schema, and those of the blocks in it, among the definitions; a reference to it.

    Names begin with the kind and type, since two plug-ins may both have an ``Auth``.
    """
    made = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}", mode="validation")
    for inner, schema in made.pop("$defs", {}).items():
        definitions[f"{name}.{inner}"] = schema
    if "$ref" in made:  # a block that contains itself
        made = definitions[made["$ref"].removeprefix("#/$defs/")]
    made.pop("title", None)
    for field, info in model.model_fields.items():
        schema = made.get("properties", {}).get(key_of(field, info), {})
        if schema.get("type") == "array" and any(isinstance(entry, BeforeValidator) for entry in info.metadata):
            # Such a field takes one entry without a list, which pydantic cannot know.
            array = {key: schema.pop(key) for key in ("type", "items", "minItems", "maxItems") if key in schema}
            schema["anyOf"] = [array["items"], array]
    definitions[name] = made
    return {"$ref": f"#/$defs/{name}"}


def _block(section: Section[Any], blocks: Mapping[str, Schema], definitions: Schema) -> Schema:
    """One block of a section: of any type that it may be."""
    if not section.kind:
        return _define(section.key, section.model, definitions) if section.model else {}
    own = {
        type_: _define(f"{section.key}.{type_}", section.model, definitions)
        for type_ in section.own_types
        if section.model
    }
    alone = _one_of(own | blocks[section.kind])
    if section.around is None:
        return alone
    around = dict(definitions[_define(f"{section.key}.around", section.around, definitions)["$ref"].split("/")[-1]])
    definitions[f"{section.key}.around"] = around | {
        "properties": {**around.get("properties", {}), sections.INSIDE: alone}
    }
    return {"anyOf": [*alone["anyOf"], {"$ref": f"#/$defs/{section.key}.around"}]}


def _shaped(section: Section[Any], block: Schema) -> Schema:
    if section.shape == "listed":
        return {"type": ["array", "null"], "items": block}
    return _named(block, section.named_as) if section.shape == "named" else block


def _one_of(blocks: Schema) -> Schema:
    """One of these blocks; ``type`` decides."""
    return {"anyOf": list(blocks.values())} if len(blocks) != 1 else dict(next(iter(blocks.values())))


def _named(block: Schema, pattern: str) -> Schema:
    return {
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{pattern}$"},
        "additionalProperties": block,
    }


def _keys(kinds: set[str], definitions: Schema) -> list[str]:
    """Every key of every block of these kinds."""
    blocks = (made for name, made in definitions.items() if name.count(".") == 1 and name.split(".")[0] in kinds)
    return sorted({key for made in blocks for key in made["properties"]} - {"extends", "formerly"})


def _defaults(sources: Schema, lockable: list[str], definitions: Schema) -> Schema:
    """Every key of every source, and ``locked``."""
    keys: Schema = {}
    for source in sources:
        for key, schema in definitions[f"sources.{source}"]["properties"].items():
            known = keys.setdefault(key, [])
            if schema not in known:
                known.append(schema)
    for key in ("extends", "formerly", "default_for"):
        keys.pop(key, None)
    properties = {key: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for key, schemas in keys.items()}
    locked = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"enum": lockable}}],
        "description": "Keys that a mailbox or an outgoing in a drop-in file cannot set.",
    }
    return {"type": ["object", "null"], "properties": {**properties, "locked": locked}, "additionalProperties": False}
