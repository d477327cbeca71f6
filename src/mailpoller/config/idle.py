"""What is written and has no effect: warnings, for whoever wrote it meant something by it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mailpoller.config import sections
from mailpoller.config.checked import Config
from mailpoller.config.fields import references_of, secrets_of
from mailpoller.config.merge import is_name
from mailpoller.config.model import PRODUCTION
from mailpoller.config.problems import Problem
from mailpoller.config.wording import locate
from mailpoller.core.regular import read_regular

_NAMED = (sections.QUEUES, sections.RULES, sections.RULE_SETS)
"""Sections whose blocks do nothing unless another block names them."""
_TRIAL = re.compile(r"(?<![a-z])(test|tests|testing|dev|devel|staging|sandbox|uat|qa)(?![a-z])")
_CUT_OFF = re.compile(r"""^\s*(?:- )?[\w-]+:\s+(?!["'|>&*{\[])\S[^#]*\s#""")
"""A key with a bare word, and a comment behind it."""
_SUFFIXES = (".yaml", ".yml")
_MOST = 16 << 20


def without_effect(config: Config) -> Iterator[Problem]:
    """A warning for each."""
    yield from _nobody_names(config)
    yield from _left_out(config)
    yield from _cut_off(config)
    yield from _trials(config)


def _nobody_names(config: Config) -> Iterator[Problem]:
    named = {(section, name) for _, block in config.blocks() for _, section, name in references_of(block)}
    for section in _NAMED:
        for name in filter(is_name, config.made[section.key]):
            if (section.key, name) not in named and (node := config.places.get((section.key, name))) is not None:
                verb = "nothing is brought to it" if section is sections.QUEUES else "it judges nothing"
                yield node.problem(f"nobody names this {section.noun}: {verb}", "warning")


def _left_out(config: Config) -> Iterator[Problem]:
    """Files beside the drop-ins that look like some and are not read, for their names end otherwise."""
    for directory in {file.parent for file in config.files[1:]}:
        read = {file for file in config.files if file.parent == directory}
        try:
            beside = sorted(directory.iterdir())[:10_000]
        except OSError:
            continue
        for file in beside:
            looks_like_one = file.suffix in _SUFFIXES and not file.name.startswith(".")
            if looks_like_one and file not in read and not file.name.endswith(".test.yaml"):
                words = "it lies beside the drop-ins and no pattern of include has it: it is not read"
                yield Problem(file, 1, 1, "", words, "warning")


def _cut_off(config: Config) -> Iterator[Problem]:
    """Secrets that are written in the file and followed by what YAML takes for a comment."""
    lines: dict[Path, list[str]] = {}
    for at, block in config.blocks():
        for keys, secret in secrets_of(block):
            if secret.kind != "plain":
                continue
            node, rest = locate(config.places[at], keys)
            if rest or not isinstance(node.value, str):
                continue
            if node.file not in lines:
                lines[node.file] = _lines_of(node.file)
            here = lines[node.file][node.line - 1 : node.line]
            if here and _CUT_OFF.match(here[0]):
                words = "what follows the # is a comment and no part of the secret: quote it if it is meant"
                yield node.problem(words, "warning")


def _lines_of(file: Path) -> list[str]:
    try:
        return read_regular(file, _MOST).decode("utf-8-sig", "replace").splitlines()
    except (OSError, ValueError):
        return []


def _trials(config: Config) -> Iterator[Problem]:
    if config.service.environment != PRODUCTION:
        return
    for name, block in config.mailboxes.items():
        if not config.runs(name):
            continue
        host = str(getattr(block, "host", "") or "").lower()
        for what, written in (("name", name.lower()), ("host", host)):
            if found := _TRIAL.search(written):
                words = f"its {what} says {found[0]}, and this is {PRODUCTION}: if that is a slip, say environment"
                yield config.places["mailboxes", name].problem(words, "warning")
                break
