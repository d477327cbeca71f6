"""By what a changed configuration is known, without keeping any of it: a sum of each key's value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from mailpoller.config.checked import Config
from mailpoller.config.dump import effective

Sums = Mapping[str, Mapping[str, str]]
"""Block -> key -> sum of its value. Secrets are masked before, so one that was changed is no change here."""


def sums(config: Config) -> dict[str, dict[str, str]]:
    """Of the whole configuration as it is in effect."""
    found: dict[str, dict[str, str]] = {}
    for section, made in effective(config).items():
        if isinstance(made, list):
            made = {str(block.get("name", number)): block for number, block in enumerate(made)}
        if made and all(isinstance(block, Mapping) for block in made.values()):
            found.update({f"{section}.{name}": _of(block) for name, block in made.items()})
        else:
            found[section] = _of(made)
    return found


def differences(before: Sums, after: Sums) -> list[str]:
    """What was added, removed and changed, a line for each block."""
    lines = [f"{block} added" for block in after if block not in before]
    lines += [f"{block} removed" for block in before if block not in after]
    for block, now in after.items():
        was = before.get(block, now)
        if keys := sorted(key for key in {*was, *now} if was.get(key) != now.get(key)):
            lines.append(f"{block}: {', '.join(keys)}")
    return sorted(lines)


def _of(block: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(key): sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
        for key, value in block.items()
    }
