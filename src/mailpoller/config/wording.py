"""What pydantic found wrong, in a sysadmin's words and at the place where it was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, core_schema

from mailpoller.config.fields import annotations_at, known_keys
from mailpoller.config.node import Node, join
from mailpoller.config.problems import Problem, did_you_mean, either
from mailpoller.core.errors import ConfigError

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "model_type": "a block of keys",
    "model_attributes_type": "a block of keys",
    "dict_type": "a block of keys",
    "mapping_type": "a block of keys",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "path_type": "a path",
    "none_required": "nothing",
    "date_type": "a date, YYYY-MM-DD",
    "date_parsing": "a date, YYYY-MM-DD",
    "date_from_datetime_parsing": "a date, YYYY-MM-DD",
}
_BOUNDS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
    "multiple_of": ("multiple_of", "must be a multiple of"),
}
_BUILT_IN = frozenset(get_args(core_schema.ErrorType))
_SHOWN_KEYS = 12

_BOOLEAN = "expected a number: YAML reads a bare yes, no, on, off, true or false as true or false"

REQUIRED = "this key is required"


def locate(node: Node, loc: Sequence[str | int]) -> tuple[Node, str]:
    """The node at ``loc`` and, if its last key is not written there, that key.

    pydantic puts the names of union members among the keys; what is not in the file is stepped over.
    """
    rest = ""
    for key in loc:
        value = node.value
        child: Node | None = None
        if isinstance(value, dict) and isinstance(key, str):
            child = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
            child = value[key]
        node, rest = (child, "") if child is not None else (node, str(key))
    return node, rest


@dataclass(slots=True)
class _Complaint:
    """All that pydantic said about one place."""

    node: Node
    missing: str
    hidden: bool = False
    expected: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def problems(self) -> list[Problem]:
        """Sentences if there are any: they are more exact than what a type expected."""
        said = self.sentences or [f"expected {either(_once(self.expected))}{_quote(self.node, self.expected)}"]
        made = [self.node.problem(sentence, key=self.missing) for sentence in _once(said)]
        return [replace(problem, path=_hide_last(problem.path)) for problem in made] if self.hidden else made


def translate(error: ValidationError, node: Node, model: type[BaseModel]) -> list[Problem]:
    """One problem for each place that pydantic complained about; several complaints about one value become one."""
    complaints: dict[str, _Complaint] = {}
    for detail in error.errors(include_url=False, include_input=False):
        found, rest = locate(node, detail["loc"])
        missing = rest if detail["type"] == "missing" else ""
        path = join(found.path, missing) if missing else found.path
        complaint = complaints.setdefault(f"{found.place()} {path}", _Complaint(found, missing))
        if detail["type"] in _EXPECTED:
            complaint.expected.append(_EXPECTED[detail["type"]])
        elif detail["type"] == "extra_forbidden":
            key, known = str(detail["loc"][-1]), known_keys(model, detail["loc"][:-1])
            complaint.sentences.append(unknown_key(key, known))
            # {password: some, secret} is a key "secret" without a value
            complaint.hidden = found.value is None and not did_you_mean(key, known)
        else:
            complaint.sentences.append(_sentence(detail, found))
    deeper = [complaint.node.path for complaint in complaints.values()]
    return [
        problem
        for complaint in complaints.values()
        # Another member of the union fits better: it is complained about more exactly.
        if complaint.sentences
        or not any(path.startswith((complaint.node.path + ".", complaint.node.path + "[")) for path in deeper)
        for problem in complaint.problems()
    ]


def _once(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _hide_last(path: str) -> str:
    return f"{path.rpartition('.')[0]}.…"


def _quote(node: Node, wanted: list[str]) -> str:
    """The commonest reason why text is no text: YAML took the bare word for something else."""
    if node.value is None:
        return ", and nothing is written"
    if "text" not in wanted and "a path" not in wanted:
        return ""
    if isinstance(node.value, bool):
        return ": YAML reads a bare yes, no, on, off, true or false as true or false; put it in quotes"
    if isinstance(node.value, int | float):
        return ": YAML reads a bare number as a number; put it in quotes"
    if isinstance(node.value, date):
        return ": YAML reads a bare date as a date; put it in quotes"
    return ""


def _sentence(detail: ErrorDetails, node: Node) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return REQUIRED
    if kind in ("literal_error", "enum"):
        return _literal(str(context.get("expected", "")), node)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {context.get(name)}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error") or "is not valid")
    if kind in ("too_short", "string_too_short"):
        least = context.get("min_length")
        return "must not be empty" if least == 1 else f"must have at least {least} {_unit(kind)}"
    if kind in ("too_long", "string_too_long"):
        return f"must have at most {context.get('max_length')} {_unit(kind)}"
    if kind == "string_pattern_mismatch":
        return f"must be of the form {context.get('pattern')}"
    if kind == "union_tag_invalid":
        return f"expected {context.get('expected_tags')}"
    if kind == "union_tag_not_found":
        return f"the key {context.get('discriminator')} is required"
    # A built-in message may quote a part of the value (a UUID's odd character); a plug-in's own says what it means to say.
    return f"is not valid ({kind.replace('_', ' ')})" if kind in _BUILT_IN else detail["msg"]


def _unit(kind: str) -> str:
    return "characters" if kind.startswith("string") else "entries"


def _literal(expected: str, node: Node) -> str:
    options = [option.strip("'") for option in expected.replace(" or ", ", ").split(", ") if option]
    if node.value is None:
        return f"expected {either(options)}, and nothing is written"
    hint = did_you_mean(node.value, options)
    return f"expected {either(options)}{hint or _quote(node, ['text'])}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """The sentence about a key that nobody knows. The key itself is in the problem's path, its value nowhere."""
    if hint := did_you_mean(key, known):
        return f"there is no such key{hint}"
    if 0 < len(known) <= _SHOWN_KEYS:
        return f"there is no such key; there is {either(list(known))}"
    return "there is no such key"


def validate(model: type[Any], node: Node, written: dict[str, Any]) -> tuple[Any, list[Problem]]:
    """The block made of what is written, or None and what is wrong with it."""
    problems = [wrong.problem(_BOOLEAN) for wrong in _booleans_for_numbers(model, node, ())]
    try:
        block = model.model_validate(written)
    except ValidationError as error:
        problems += translate(error, node, model)
    except ConfigError as error:
        problems.append(node.problem(str(error)))
    return (None if problems else block), problems


def _booleans_for_numbers(model: type[Any], node: Node, loc: tuple[str | int, ...]) -> list[Node]:
    """Nodes where a number is wanted and a boolean stands: pydantic would take ``port: yes`` as 1."""
    if isinstance(node.value, bool):
        wanted = annotations_at(model, loc)
        return [node] if wanted and any(arm in (int, float) for arm in wanted) and not {bool, Any} & set(wanted) else []
    children: Iterable[tuple[str | int, Node]] = ()
    if isinstance(node.value, dict):
        children = node.value.items()
    elif isinstance(node.value, list):
        children = enumerate(node.value)
    return [found for key, child in children for found in _booleans_for_numbers(model, child, (*loc, key))]
