"""Errors of single mailboxes, so that a service can run all the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from mailpoller.config.checked import At, Config
from mailpoller.config.merge import NAME_PATTERN, is_name
from mailpoller.config.node import Node
from mailpoller.config.problems import Problem
from mailpoller.config.sections import MAILBOXES
from mailpoller.core.source_config import SourceConfig

_OF_A_MAILBOX = re.compile(rf"{MAILBOXES.key}\.({NAME_PATTERN})(?=[.\[]|$)")


def spared(
    config: Config, errors: Sequence[Problem], unmade: Mapping[str, Sequence[Problem]], nodes: Mapping[str, Node]
) -> Config | None:
    """The configuration in which every mailbox that has an error is known to have it, and nothing but that: see
    :attr:`Config.wrong`. None if an error is anybody else's, or no mailbox is left that is polled.

    ``unmade``: mailboxes of which nothing could be made, with what was said of each; it may stand where another one
    is written, which they extend. ``nodes``: what is written of every mailbox.
    """
    wrong: dict[str, list[Problem]] = {name: list(said) for name, said in unmade.items()}
    for error in errors:
        found = _OF_A_MAILBOX.match(error.path)
        if found is None or found[1] not in nodes:
            return None
        said = wrong.setdefault(found[1], [])
        if error not in said:
            said.append(error)
    right = {name: block for name, block in config.mailboxes.items() if name not in wrong}
    places: dict[At, Node] = {(MAILBOXES.key, name): nodes[name] for name in wrong}
    known = [name for name in nodes if name in right or name in wrong]
    made = {name: right[name] if name in right else _stand_in(nodes[name]) for name in known}
    result = replace(
        config.but(**{MAILBOXES.key: MappingProxyType(made)}),
        wrong=MappingProxyType({name: tuple(said) for name, said in wrong.items()}),
        overrides=MappingProxyType({name: own for name, own in config.overrides.items() if name in right}),
        places=MappingProxyType({**config.places, **places}),
    )
    return result if any(map(result.runs, right)) else None


def _stand_in(node: Node) -> SourceConfig:
    """A mailbox that says whether it is to be polled, and nothing else."""
    written = {key: child.value for key, child in node.entries.items()}
    environment, type_ = written.get("environment"), written.get("type")
    return SourceConfig.model_construct(
        type=type_ if isinstance(type_, str) else "unknown",
        enabled=written.get("enabled") is not False,
        environment=environment if isinstance(environment, str) and is_name(environment) else None,
    )
