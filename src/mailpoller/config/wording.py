"""What pydantic found wrong, in a sysadmin's words and at the place where it was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, core_schema

from mailpoller.config.fields import annotations_at, blocks_at, keys_of, known_keys, required_keys
from mailpoller.config.node import Node, join
from mailpoller.config.problems import Problem, did_you_mean, either
from mailpoller.core.component import Component
from mailpoller.core.errors import ConfigError, KeysMissing
from mailpoller.core.literals import Secret

_BLOCK = "a block of keys"
_LIST = "a list ([A, B], or a line with a hyphen for each)"
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
    "model_type": _BLOCK,
    "model_attributes_type": _BLOCK,
    "dict_type": _BLOCK,
    "mapping_type": _BLOCK,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
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
_NO_SECRET = ("", "env:", "file:", "credential:")
_ELSEWHERE = {
    "ssl": "tls: tls", "use_ssl": "tls: tls", "starttls": "tls: starttls-required", "sslproto": "tls",
    "encryption": "tls", "security": "tls", "server": "host", "hostname": "host",
    "user": "username", "login": "username", "user_name": "username",
    "pass": "password", "passwd": "password", "passwordeval": "password",
    "passcmd": "password", "folder": "folders", "mailbox": "folders",
    "interval": "poll_interval", "delay": "poll_interval", "polling_interval": "poll_interval",
    "delete": "disposition: delete", "expunge": "disposition: delete", "nokeep": "disposition: delete",
    "leave_on_server": "disposition: leave", "mark_as_read": "disposition: seen", "mark_seen": "disposition: seen",
    "move_to": "disposition: {move: FOLDER}", "archive": "disposition: {move: FOLDER}", "protocol": "type",
    "proto": "type", "queue": "default_queue", "destination": "default_queue", "filters": "rules", "filter": "rules",
    "max_size": "max_message_size", "size_limit": "max_message_size", "sslcertfile": "ca_file", "cafile": "ca_file",
    "active": "enabled", "disabled": "enabled: false",
}  # fmt: skip
"""What other programs call a key of ours."""
_BUILT_IN = frozenset(get_args(core_schema.ErrorType))
_SHOWN_KEYS = 12
_SHORT_BLOCK = 4
"""A block of so few keys is told by all of them, where none is required."""

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
        said = _once(self.sentences) or [f"expected {either(_once(self.expected))}{_quote(self.node, self.expected)}"]
        # What may be one of two things was compared with both; the shorter complaint first.
        made = self.node.problem("; or else ".join(sorted(said, key=len)), key=self.missing)
        return [replace(made, path=_hide_last(made.path)) if self.hidden else made]


def lacking(node: Node, key: str, more: str) -> _Complaint:
    """That a block lacks a key, as it is."""
    return _Complaint(node, key, sentences=[f"{REQUIRED}; {more}" if more else REQUIRED])


def translate(error: ValidationError, node: Node, model: type[BaseModel]) -> list[Problem]:
    """One problem for each place that pydantic complained about; several complaints about one value become one."""
    complaints: dict[str, _Complaint] = {}
    for detail in error.errors(include_url=False, include_input=False):
        found, rest = locate(node, detail["loc"])
        if detail["type"] == "union_tag_invalid":
            found = found.entries.get("type", found)
        why = detail.get("ctx", {}).get("error")
        if isinstance(why, KeysMissing):
            for key, more in why.keys.items():
                complaints[f"{found.place()} {join(found.path, key)}"] = lacking(found, key, more)
            continue
        missing = rest if detail["type"] == "missing" else ""
        if detail["type"] == "union_tag_not_found":
            missing = str(detail.get("ctx", {}).get("discriminator", "")).strip("'")
        path = join(found.path, missing) if missing else found.path
        complaint = complaints.setdefault(f"{found.place()} {path}", _Complaint(found, missing))
        if (expected := _EXPECTED.get(detail["type"])) == _BLOCK:
            expected += _needed(model, detail["loc"])
        if expected:
            complaint.expected.append(expected)
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


def _needed(model: type[BaseModel], loc: Sequence[str | int]) -> str:
    """What must stand in the block that is wanted at ``loc``: ``: type, host and port``; nothing if that cannot be
    told."""
    blocks = blocks_at(model, loc)
    if not blocks:
        return ""
    required = [key for key in required_keys(blocks[0]) if all(key in required_keys(block) for block in blocks)]
    known = list(keys_of(blocks[0]))
    if not required and "type" in known:
        required = ["type"]  # the rest depends on it
    if not required and len(blocks) == 1 and len(known) <= _SHORT_BLOCK:
        required = known
    return f": {', '.join(required)}" if required else ""


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
    if kind in ("missing", "union_tag_not_found"):
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
        return _literal(str(context.get("expected_tags", "")), node)
    # A built-in message may quote a part of the value (a UUID's odd character); a plug-in's own says what it means to
    # say.
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
    if (other := _ELSEWHERE.get(key.casefold().replace("-", "_"))) and other.partition(":")[0] in known:
        return f"there is no such key; here it is {other}"
    if hint := did_you_mean(key, known):
        return f"there is no such key{hint}"
    if 0 < len(known) <= _SHOWN_KEYS:
        return f"there is no such key; there is {either(list(known))}"
    return "there is no such key"


def validate(model: type[Any], node: Node, written: dict[str, Any]) -> tuple[Any, list[Problem]]:
    """The block made of what is written, or None and what is wrong with it."""
    problems = list(_misread(model, node, ()))
    try:
        block = model.model_validate(written)
    except ValidationError as error:
        problems += translate(error, node, model)
    except ConfigError as error:
        problems.append(node.problem(str(error)))
    except OverflowError:
        problems.append(node.problem("a number in this block is larger than any that can be meant"))
    if issubclass(model, Component) and isinstance(written, dict):
        mistyped = [problem.message for problem in problems]
        for key, more in model.lacking(written).items():
            if not any(message.endswith(f'did you mean "{key}"?') for message in mistyped):
                problems += lacking(node, key, more).problems()
    return (None if problems else block), list(dict.fromkeys(problems))


def is_lack(problem: Problem) -> bool:
    """True for a problem that is mended by writing one more key."""
    return problem.message.startswith(REQUIRED)


def _misread(model: type[Any], node: Node, loc: tuple[str | int, ...]) -> Iterator[Problem]:
    """What pydantic would take, and nobody can mean: ``port: yes`` as 1, a path below a directory called ``~``."""
    children: Iterable[tuple[str | int, Node]] = ()
    if isinstance(node.value, dict):
        children = node.value.items()
    elif isinstance(node.value, list):
        children = enumerate(node.value)
    elif isinstance(node.value, (bool, str)):
        wanted = annotations_at(model, loc)
        if isinstance(node.value, bool):
            if {int, float} & set(wanted) and not {bool, Any} & set(wanted):
                yield node.problem(_BOOLEAN)
        elif Path in wanted and str not in wanted:
            if not node.value:
                yield node.problem("expected a path, and nothing is written")
            elif node.value.startswith("~"):
                yield node.problem("a path is written in full: ~ is the shell's word for a home directory")
        elif Secret in wanted and node.value in _NO_SECRET:
            yield node.problem("expected a secret, and nothing is written" + (" after the colon" if node.value else ""))
    for key, child in children:
        yield from _misread(model, child, (*loc, key))
