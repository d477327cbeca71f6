"""The tests of the rules: those of the configuration, and those in files of their own beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from mailpoller.config.checked import Config
from mailpoller.config.document import read
from mailpoller.config.files import TESTS as TESTS_END
from mailpoller.config.merge import dangling, is_title
from mailpoller.config.node import Node, plain
from mailpoller.config.problems import ConfigErrors, Problem, in_order
from mailpoller.config.sections import TESTS
from mailpoller.config.tests_of_rules import RuleTest
from mailpoller.config.wording import REQUIRED, unknown_key, validate
from mailpoller.core.record import record

MAX_FILES = 10_000


@record
class FoundTest:
    """A test with its mailbox, and the place where it is written."""

    test: RuleTest
    mailbox: str
    node: Node


def beside(files: Iterable[Path]) -> list[Path]:
    """The files of tests in the directories of these files, in order of their names."""
    directories = dict.fromkeys(file.parent for file in files)
    found = (file for one in directories for file in sorted(one.glob(f"*{TESTS_END}")) if not file.name.startswith("."))
    return list(islice(found, MAX_FILES))


def find_tests(config: Config, files: Sequence[Path] | None = None) -> list[FoundTest]:
    """Every test of the configuration and of the files beside it; or those of ``files`` alone.

    Raises :class:`ConfigErrors` with all that is wrong in any of them.
    """
    problems: list[Problem] = []
    found: list[FoundTest] = []
    if files is None:
        for name, test in config.of(TESTS).items():
            found += _placed(config, test, config.places[TESTS.key, name], test.mailbox, problems)
    sources = beside(config.files) if files is None else files
    for file in sources:
        if (tree := read(file, problems)) is not None:
            found += _of_file(config, tree, problems)
    if problems:
        raise ConfigErrors(in_order(problems, [*config.files, *sources]))
    return found


def _of_file(config: Config, tree: Node, problems: list[Problem]) -> Iterator[FoundTest]:
    if not isinstance(tree.value, dict):
        problems.append(tree.problem("expected a block of keys: tests"))
        return
    problems += [
        node.problem(unknown_key(key, ["mailbox", "tests"])) for key, node in tree.value.items() if key not in _KEYS
    ]
    usual = tree.entries.get("mailbox")
    if usual is not None and (not isinstance(usual.value, str) or usual.value not in config.mailboxes):
        problems.append(usual.problem(dangling("mailbox", str(usual.value), config.mailboxes)))
        return
    written = tree.entries.get("tests")
    if written is None or not isinstance(written.value, list):
        problems.append((written or tree).problem("expected a list of tests, each with a name"))
        return
    names: dict[str, Node] = {}
    for node in written.value:
        name = node.entries.get("name")
        if name is None or not isinstance(name.value, str) or not is_title(name.value):
            problems.append((name or node).problem(f"{REQUIRED}: what is promised, on one line", key="name"))
            continue
        if (first := names.setdefault(name.value, name)) is not name:
            problems.append(name.problem(f"this name is taken by {first.place()}"))
            continue
        test, wrong = validate(RuleTest, node, plain(node))
        problems += wrong
        if test is not None:
            mailbox = test.mailbox or (str(usual.value) if usual is not None else None)
            yield from _placed(config, test, node, mailbox, problems)


_KEYS = frozenset(("mailbox", "tests"))


def _placed(
    config: Config, test: RuleTest, node: Node, mailbox: str | None, problems: list[Problem]
) -> Iterator[FoundTest]:
    for name in test.expect.queues or ():
        if name not in config.queues:
            place = node.entries["expect"].entries["queues"]
            problems.append(place.problem(dangling("queue", name, config.queues)))
    for name in test.expect.rules or ():
        if name not in config.rules:
            place = node.entries["expect"].entries["rules"]
            problems.append(place.problem(dangling("rule", name, config.rules)))
    if mailbox is None and len(config.mailboxes) == 1:
        mailbox = next(iter(config.mailboxes))
    if mailbox is None:
        problems.append(node.problem("name one of the mailboxes, which judges the mail", key="mailbox"))
    elif mailbox not in config.mailboxes:
        problems.append(node.entries["mailbox"].problem(dangling("mailbox", mailbox, config.mailboxes)))
    else:
        yield FoundTest(test, mailbox, node)
