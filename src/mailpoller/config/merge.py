"""How several files and several layers become one: sections are joined, mailboxes inherit.

A mailbox beats what it ``extends``, which beats ``defaults``; maps merge, lists replace. Every value keeps the place
where it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mailpoller.config import sections as table
from mailpoller.config.node import Node
from mailpoller.config.problems import Problem, did_you_mean, either
from mailpoller.config.sections import Section
from mailpoller.config.wording import REQUIRED, unknown_key

NOT_INHERITED = ("enabled", "extends", "formerly", "default", "default_for")
"""Keys that ``extends`` does not copy: they are about the one mailbox or outgoing, so that a disabled one can serve as
a template."""

_NAME = re.compile(table.NAME_PATTERN)
_SHOWN_NAMES = 6


def merge(over: Node, under: Node) -> Node:
    """``over`` on top of ``under``: maps merge key by key, everything else is replaced, also a block of another
    ``type``."""
    if not (isinstance(over.value, dict) and isinstance(under.value, dict)):
        return over
    mine, theirs = over.value.get("type"), under.value.get("type")
    if mine is not None and theirs is not None and mine.value != theirs.value:
        return over
    merged = dict(under.value)
    for key, child in over.value.items():
        merged[key] = merge(child, merged[key]) if key in merged else child
    return over.like(merged)


def layered(node: Node, *under: Node) -> Node:
    """A mailbox's keys over each of ``under``, nearest first; unlike :func:`merge`, also if their types differ."""
    keys = dict(node.entries)
    for layer in under:
        for key, child in layer.entries.items():
            keys[key] = merge(keys[key], child) if key in keys else child
    return node.like(keys)


@dataclass(slots=True)
class Sections:
    """All files joined: single blocks from the main file, named blocks from every file."""

    main: Node
    blocks: dict[str, dict[str, Node]] = field(default_factory=lambda: {one.key: {} for one in table.TABLE if one.many})
    names: dict[str, set[str]] = field(default_factory=lambda: {one.key: set() for one in table.TABLE if one.many})
    """Every name that is defined, also by a block that is no block: it is not missing, it is wrong."""
    drop_ins: set[tuple[str, str]] = field(default_factory=set)
    """(section, name) of each block that a drop-in file defines."""

    def single(self, name: str) -> Node | None:
        """A block of the main file that is there and not empty."""
        node = self.main.entries.get(name)
        return None if node is None or node.value is None else node


def join_files(main: Node, drop_ins: Iterable[Node], problems: list[Problem]) -> Sections:
    """The named blocks of all files. A name that occurs twice is a problem that names both places."""
    sections = Sections(main)
    rows = {row.key: row for row in table.TABLE}
    for file in (main, *drop_ins):
        allowed = table.allowed(drop_in=file is not main)
        if not isinstance(file.value, dict):
            problems.append(file.problem("expected a block of keys"))
            continue
        for key, node in file.value.items():
            if key not in allowed:
                problems.append(node.problem(_misplaced(key, allowed)))
            elif rows[key].many:
                if rows[key].shape == "listed":
                    added = _join_listed(key, node, sections, problems, titled=rows[key].titled)
                else:
                    added = _join_named(rows[key], node, sections, problems)
                if file is not main:
                    sections.drop_ins.update((key, name) for name in added)
    return sections


def _misplaced(key: str, allowed: tuple[str, ...]) -> str:
    if key in table.allowed():
        return f"only the main file may have this key; a drop-in may define {', '.join(allowed)}"
    return unknown_key(key, allowed)


def _join_named(row: Section[Any], section: Node, sections: Sections, problems: list[Problem]) -> list[str]:
    key = row.key
    known = sections.blocks[key]
    if section.value is None:
        return []
    if not isinstance(section.value, dict):
        problems.append(section.problem("expected a block of keys, one for each name"))
        return []
    added: list[str] = []
    for name, node in section.value.items():
        sections.names[key].add(name)
        if not re.fullmatch(row.named_as, name):
            problems.append(node.problem(row.name_words))
        elif name in known:
            problems.append(node.problem(f"this name is taken by {known[name].place()}"))
        elif not isinstance(node.value, dict):
            problems.append(node.problem("expected a block of keys"))
        else:
            known[name] = node
            added.append(name)
    return added


def _join_listed(key: str, section: Node, sections: Sections, problems: list[Problem], *, titled: bool) -> list[str]:
    known = sections.blocks[key]
    if section.value is None:
        return []
    if not isinstance(section.value, list):
        problems.append(section.problem(f"expected a list of {key}, each with a name"))
        return []
    added: list[str] = []
    for node in section.value:
        name = node.entries.get("name")
        if not isinstance(node.value, dict):
            problems.append(node.problem("expected a block of keys"))
        elif name is None:
            problems.append(node.problem(REQUIRED, key="name"))
        elif not isinstance(name.value, str):
            problems.append(name.problem("expected text: put the name in quotes"))
        elif titled and not is_title(name.value):
            problems.append(name.problem("a name is at most 200 characters on one line"))
        elif not titled and not _NAME.fullmatch(name.value):
            problems.append(name.problem("a name is letters, digits, - and _, at most 40"))
        elif name.value in known:
            first = known[name.value].entries["name"]
            problems.append(name.problem(f"this name is taken by {first.place()}"))
        else:
            known[name.value] = node
            sections.names[key].add(name.value)
            added.append(name.value)
    return added


# --- inheritance
# -------------------------------------------------------------------------------------------------------
def inherit(
    sections: Sections, defaults: Node | None, problems: list[Problem], section: str = "mailboxes"
) -> dict[str, Node]:
    """name -> the mailbox (outgoing) over what it extends over ``defaults``. Those in or behind a circle are left
    out."""
    mailboxes = sections.blocks[section]
    done: dict[str, Node] = {}
    broken: set[str] = set()
    for name in mailboxes:
        _resolve(name, mailboxes, done, broken, problems)
    return {name: layered(done[name], *([defaults] if defaults else [])) for name in mailboxes if name in done}


def _resolve(
    name: str, mailboxes: dict[str, Node], done: dict[str, Node], broken: set[str], problems: list[Problem]
) -> None:
    """Put ``name`` and all that it extends into ``done`` or ``broken``. Iterative: a chain may be as long as the
    file."""
    chain: list[str] = []
    at: str | None = name
    while at is not None and at not in done and at not in broken and at not in chain:
        chain.append(at)
        at = _base(at, mailboxes)
    if at is not None and at in chain:
        circle = chain[chain.index(at) :]
        ways = " -> ".join([*circle, at]) if len(circle) <= 6 else f"{at} -> {circle[1]} -> … -> {at}"
        problems.append(mailboxes[at].entries["extends"].problem(f"extends goes in a circle: {ways}"))
    for link in reversed(chain):
        if at is not None and (at in broken or at in chain):
            broken.add(link)
            continue
        own = mailboxes[link]
        base = done.get(at) if at is not None else None
        copied = {key: node for key, node in base.entries.items() if key not in NOT_INHERITED} if base else {}
        done[link] = layered(own, own.like(copied))
        at = link


def _base(name: str, mailboxes: dict[str, Node]) -> str | None:
    """The mailbox that ``name`` extends, if there is one of that name."""
    extends = mailboxes[name].entries.get("extends")
    return extends.value if extends and isinstance(extends.value, str) and extends.value in mailboxes else None


def orphans(sections: Sections, section: str = "mailboxes") -> dict[str, Node]:
    """name -> where it says so, of the mailboxes (outgoings) that extend one that does not exist."""
    written = {name: node.entries.get("extends") for name, node in sections.blocks[section].items()}
    return {
        name: extends
        for name, extends in written.items()
        if extends and isinstance(extends.value, str) and extends.value not in sections.names[section]
    }


def dangling(noun: str, name: str, known: Iterable[str]) -> str:
    """The sentence about a name that leads nowhere."""
    names = sorted(known)
    shown = name if _NAME.fullmatch(name) else "that"
    some = f"; there is {either(names)}" if 0 < len(names) <= _SHOWN_NAMES else ""
    return f"no {noun} is called {shown}{did_you_mean(name, names) or some}"


def is_name(text: str) -> bool:
    """True for what may be the name of a mailbox, queue, rule or outgoing."""
    return _NAME.fullmatch(text) is not None


def is_title(text: str) -> bool:
    """True for what may be the name of a test."""
    return 0 < len(text) <= 200 and text.isprintable()
