"""Errors of single mailboxes, so that a service can run all the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from mailpoller.config.checked import At, Config
from mailpoller.config.merge import is_name
from mailpoller.config.node import Node, plain
from mailpoller.config.partial import partial
from mailpoller.config.problems import Problem
from mailpoller.config.sections import MAILBOXES, NAME_PATTERN
from mailpoller.core.source_config import SourceConfig

_ANSWERING = ("departments", "default_for", "outgoing", "charset")
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
    places: dict[At, Node] = {
        at: config.places.get(at, nodes[name]) for name in wrong for at in [(MAILBOXES.key, name)]
    }
    known = [name for name in nodes if name in right or name in wrong]
    made = {name: right[name] if name in right else _stand_in(places[MAILBOXES.key, name]) for name in known}
    result = replace(
        config.but(**{MAILBOXES.key: MappingProxyType(made)}),
        wrong=MappingProxyType({name: tuple(said) for name, said in wrong.items()}),
        overrides=MappingProxyType({name: own for name, own in config.overrides.items() if name in right}),
        places=MappingProxyType({**config.places, **places}),
    )
    return result if any(map(result.runs, right)) else None


def _stand_in(node: Node) -> SourceConfig:
    """A mailbox that says whether it is to be polled, and as whom it is answered from: its department's mail is not
    to leave in another one's name."""
    written = {key: child.value for key, child in node.entries.items()}
    environment, type_ = written.get("environment"), written.get("type")
    said = partial(SourceConfig, {key: plain(node.entries[key]) for key in _ANSWERING if key in node.entries})
    return SourceConfig.model_construct(
        **{key: getattr(said, key) for key in _ANSWERING if hasattr(said, key)},
        type=type_ if isinstance(type_, str) else "unknown",
        enabled=written.get("enabled") is not False,
        environment=environment if isinstance(environment, str) and is_name(environment) else None,
    )
