"""What is remembered of tests that passed, so that ``mailpoller test --changed`` passes over them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from mailpoller import __version__
from mailpoller.assembly.plans import concerned
from mailpoller.cli.trials import octets_of
from mailpoller.config import Config, effective
from mailpoller.config.node import plain
from mailpoller.config.tests_found import FoundTest
from mailpoller.core.regular import read_regular

LARGEST = 16 << 20
"""Octets of what is remembered at most; if it is more, all tests are carried out."""


class Passed:
    """Fingerprint of a test -> the rules that its mails met. A fingerprint is of all that could change the result: the
    test, its mails, the mailbox, its rules and the files that they name, and the version of the program."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._settings = effective(config)
        self._place = _directory() / f"tests-{_digest(str(config.files[0].absolute()))[:16]}.json"
        self._known = self._read()
        self._now: dict[str, list[str]] = {}
        self._of_mailbox: dict[str, str] = {}

    def rules_met(self, found: FoundTest) -> list[str] | None:
        """The rules that a test met when it passed as it is now; None if it did not."""
        met = self._known.get(self._fingerprint(found))
        if met is not None:
            self._now[self._fingerprint(found)] = met
        return met

    def note(self, found: FoundTest, met: list[str]) -> None:
        """It passed."""
        self._now[self._fingerprint(found)] = met

    def keep(self) -> None:
        """Write down what passed now. A cache that cannot be written costs time at the next run, and nothing else."""
        partial = self._place.with_suffix(f".{os.getpid()}.partial")
        with contextlib.suppress(OSError):
            self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._now), "utf-8")
            partial.replace(self._place)

    def _read(self) -> Mapping[str, list[str]]:
        try:
            found = json.loads(read_regular(self._place, LARGEST))
        except (OSError, ValueError, RecursionError):
            return {}
        usable = isinstance(found, dict) and all(isinstance(met, list) for met in found.values())
        return found if usable else {}

    def _fingerprint(self, found: FoundTest) -> str:
        mails = []
        for path in found.test.file or ():
            octets = octets_of(found, path)
            mails.append(octets if isinstance(octets, str) else sha256(octets).hexdigest())
        return _digest([plain(found.node), mails, self._mailbox(found.mailbox)])

    def _mailbox(self, name: str) -> str:
        if name not in self._of_mailbox:
            settings, rules = self._settings, self._config.rules_of(name)
            written = {rule["name"]: rule for rule in settings.get("rules", ())}
            asked = [*rules, *(written[rule] for rule in sorted(concerned(self._config, rules)))]
            files = [_content(path) for path in sorted(_paths([asked, settings["mailboxes"][name]]))]
            parts = [settings["mailboxes"][name], asked, files, settings.get("conversations"), settings["service"]]
            self._of_mailbox[name] = _digest([__version__, parts])
        return self._of_mailbox[name]


def _paths(value: Any) -> set[str]:
    """The lists of senders and the like that are named below a key ``file`` or ``list``."""
    if isinstance(value, list):
        return set().union(*map(_paths, value))
    if not isinstance(value, dict):
        return set()
    own = {found for key, found in value.items() if key in ("file", "list") and isinstance(found, str)}
    return own.union(*map(_paths, value.values()))


def _content(path: str) -> str:
    try:
        return sha256(read_regular(Path(path), LARGEST)).hexdigest()
    except (OSError, ValueError):
        return ""


def _directory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root.startswith("/") else Path.home() / ".cache") / "mailpoller"


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8", "replace")).hexdigest()
