"""Tests of rules, carried out: each mail judged as the service would, and compared with what is expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from mailpoller.cli.explaining import Explainer
from mailpoller.cli.mail_of_test import compose
from mailpoller.config import Config
from mailpoller.config.tests_found import FoundTest
from mailpoller.core.errors import ConfigError
from mailpoller.core.regular import read_regular
from mailpoller.core.source_config import SourceConfig

LARGEST_MAIL = 64 << 20
"""Octets of a file with a mail at most."""

_MISSING = object()


@dataclass(slots=True)
class Trial:
    """What came of one mail of a test. ``error``: it could not be judged, and why. ``differences``: what is not as it
    is expected, in words; nothing if the test passes. ``story``: as ``explain`` tells it."""

    found: FoundTest
    mail: str
    error: str = ""
    differences: list[str] = field(default_factory=list)
    story: dict[str, Any] = field(default_factory=dict)
    elapsed: float = 0.0

    @property
    def result(self) -> Literal["passed", "failed", "error"]:
        """``error`` if it could not be judged."""
        return "error" if self.error else "failed" if self.differences else "passed"

    @property
    def matched(self) -> list[str]:
        """The rules that matched, in their order."""
        return [rule["rule"] for rule in self.story.get("rules", ()) if rule["matched"]]


class Bench:
    """Where tests are carried out: the judging of each mailbox, made when its first test comes."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._explainers: dict[str, Explainer | str] = {}

    def carry_out(self, found: FoundTest) -> Iterator[Trial]:
        """A trial for each mail of the test. Never raises for a mail's or a file's sake."""
        for label, octets in self._mails(found):
            trial = Trial(found, label)
            begun = perf_counter()
            explainer = self._explainer(found.mailbox)
            if isinstance(octets, str) or isinstance(explainer, str):
                trial.error = explainer if isinstance(explainer, str) else str(octets)
            else:
                trial.story = explainer.explain(octets, found.test.received)
                trial.differences = list(differences(found, trial.story))
            trial.elapsed = perf_counter() - begun
            yield trial

    def _mails(self, found: FoundTest) -> Iterator[tuple[str, bytes | str]]:
        """A name and the octets of each mail, or why there are none."""
        test = found.test
        if isinstance(test.mail, str):
            yield "", test.mail.encode("utf-8", "replace")
        elif test.mail is not None:
            yield "", compose(test.mail, _address(self._config.mailboxes[found.mailbox]))
        for path in test.file or ():
            yield str(path), octets_of(found, path)

    def _explainer(self, mailbox: str) -> Explainer | str:
        if mailbox not in self._explainers:
            try:
                if mailbox in self._config.incomplete:
                    self._config.require(mailbox)
                self._explainers[mailbox] = Explainer(self._config, mailbox, events=True)
            except ConfigError as error:
                self._explainers[mailbox] = f"the mailbox {mailbox} cannot judge: {error}"
        return self._explainers[mailbox]


def octets_of(found: FoundTest, path: Path) -> bytes | str:
    """The octets of a test's file, or why they cannot be had."""
    try:
        return read_regular(found.node.file.parent / path, LARGEST_MAIL)
    except (OSError, ValueError) as error:
        return f"{path}: {getattr(error, 'strerror', None) or 'not a usable name'}"


def _address(mailbox: SourceConfig) -> str:
    written = getattr(mailbox, "address", None)
    return written if isinstance(written, str) else written[0] if written else "support@example.org"


def differences(found: FoundTest, story: Mapping[str, Any]) -> Iterator[str]:
    """A line for each thing that is not as it is expected."""
    expect = found.test.expect
    for key, wanted, got in (
        ("verdict", expect.verdict, story["verdict"]),
        ("queues", _unordered(expect.queues), _unordered(story.get("queues", ()))),
        ("topic", expect.topic, story.get("topic")),
        ("priority", expect.priority, story.get("priority")),
        ("tags", _unordered(expect.tags), _unordered(story.get("tags", ()))),
        ("reason", expect.reason, story.get("reason")),
        ("class", expect.class_, story["class"]),
        ("rules", expect.rules, [rule["rule"] for rule in story["rules"] if rule["matched"]]),
    ):
        if wanted is not None and wanted != got:
            yield f"{key}: expected {said(wanted)}, got {said(got)}"
    for path, wanted in (expect.event or {}).items():
        got = _at(story["event"]["data"], path)
        if got is _MISSING:
            yield f"event {path}: expected {said(wanted)}, and there is no such field"
        elif wanted != got:
            yield f"event {path}: expected {said(wanted)}, got {said(got)}"


def _unordered(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else sorted(texts)


def _at(value: Any, path: str) -> Any:
    """What stands in the event's data at a path such as ``attachments.0.name``."""
    for key in path.split("."):
        if isinstance(value, dict):
            value = value.get(key, _MISSING)
        elif isinstance(value, list) and key.isdecimal() and len(key) < 9 and int(key) < len(value):
            value = value[int(key)]
        else:
            return _MISSING
    return value


def said(value: Any) -> str:
    """A value as a person reads it."""
    if value is None or value in ([], ""):
        return "none"
    if isinstance(value, list):
        return ", ".join(map(said, value))
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 300 else text[:300] + "…"


def unmatched(config: Config, matched: set[str]) -> list[str]:
    """The rules that some mailbox asks and none of the tests met."""
    asked = dict.fromkeys(rule for mailbox in config.mailboxes for rule in config.rules_of(mailbox))
    return [rule for rule in asked if rule not in matched]
