"""Which outgoing holds where none is named."""

from __future__ import annotations

from collections.abc import Mapping

from mailpoller.config.fields import keys_of, names_written
from mailpoller.config.node import Node, plain
from mailpoller.config.problems import Problem
from mailpoller.config.sections import OUTGOING
from mailpoller.core.component import Block
from mailpoller.core.record import record
from mailpoller.core.standing import ROOT

_KEY = OUTGOING.key


@record
class Chosen:
    """An outgoing, where it is written, and why it holds, in words."""

    name: str
    node: Node
    why: str


def is_off(node: Node) -> bool:
    """True of a block that says ``enabled: false``."""
    enabled = node.entries.get("enabled")
    return enabled is not None and enabled.value is False


def usual(outgoings: Mapping[str, Node], problems: list[Problem]) -> Chosen | None:
    """The one that says ``default: true``, else the only one; of those that are enabled. Two defaults are a problem."""
    enabled = {name: node for name, node in outgoings.items() if not is_off(node)}
    marked = [name for name, node in enabled.items() if (said := node.entries.get("default")) and said.value is True]
    problems += [
        enabled[name].entries["default"].problem(f"the outgoing {marked[0]} is the default already")
        for name in marked[1:]
    ]
    if marked:
        return Chosen(marked[0], enabled[marked[0]].entries["default"], f"{marked[0]} says default: true")
    if len(enabled) == 1:
        ((name, node),) = enabled.items()
        return Chosen(name, node, f"{name} is the only outgoing")
    return None


def by_department(mailboxes: Mapping[str, Node]) -> dict[str, Chosen]:
    """department -> the outgoing that its default mailbox names."""
    found: dict[str, Chosen] = {}
    for name, node in mailboxes.items():
        named = node.entries.get(_KEY)
        if named is not None and isinstance(named.value, str):
            for department in _texts(node, "default_for"):
                why = f"that of {name}, the default mailbox of {department}"
                found.setdefault(department, Chosen(named.value, named, why))
    return found


def of_department(mailbox: Node, identities: Mapping[str, Chosen]) -> Chosen | None:
    """The outgoing of the first of a mailbox's departments that has one."""
    departments = _texts(mailbox, "departments") or [ROOT]
    return next((identities[one] for one in departments if one in identities), None)


def _texts(node: Node, key: str) -> list[str]:
    written = plain(node.entries[key]) if key in node.entries else None
    return [one for one in written if isinstance(one, str)] if isinstance(written, list) else []


def with_outgoing(model: type[Block], node: Node, chosen: Chosen) -> Node:
    """The block with its ``outgoing``, if it has such a key and names none; else as it is."""
    if not isinstance(node.value, dict) or _KEY not in keys_of(model):
        return node
    written = node.entries.get(_KEY)
    if written is not None and written.value is not None:
        return node
    named = chosen.node.like(chosen.name)
    if not any(section == _KEY for _, section in names_written(named, keys_of(model)[_KEY])):
        return node  # some other thing of that name
    return node.like({**node.entries, _KEY: named})
