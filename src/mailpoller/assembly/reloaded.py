"""What came of a reload, for whoever asked for it, for ``status`` and for the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from mailpoller.config.difference import Change
from mailpoller.config.problems import Problem
from mailpoller.core.record import record

Outcome = Literal["same", "applied", "partly", "refused", "bad"]
"""``bad``: the file has errors. ``refused``: it would remove what is in use. In both cases nothing was changed."""

TOLD = 1000


@record
class Reloaded:
    """``restart``: what comes into force when the service is started anew. ``refusals``: why nothing was done.
    ``problems``: errors and warnings of the files. ``parts``: what was added, replaced or removed; ``failed``: what
    was not, and is as it was; ``waiting``: what lacks something, and is looked for."""

    at: datetime
    outcome: Outcome
    changes: tuple[Change, ...] = ()
    restart: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    problems: tuple[Problem | str, ...] = ()
    parts: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    def but(self, **said: Any) -> Reloaded:
        """The same with something else in it."""
        return replace(self, **said)

    @property
    def well(self) -> bool:
        """True if what the files say holds, but for what needs a restart."""
        return self.outcome in ("same", "applied")

    def told(self) -> dict[str, Any]:
        """As plain data: of each list the first :data:`TOLD`, and in ``more`` how many were left out."""
        lists: dict[str, list[Any]] = {
            "changes": [_change(change) for change in self.changes],
            "restart": list(self.restart),
            "refusals": list(self.refusals),
            "problems": [_problem(problem) for problem in self.problems],
            "parts": list(self.parts),
            "failed": list(self.failed),
            "waiting": list(self.waiting),
        }
        return {
            "at": self.at.isoformat(timespec="seconds"),
            "outcome": self.outcome,
            **{key: found[:TOLD] for key, found in lists.items()},
            "more": {key: len(found) - TOLD for key, found in lists.items() if len(found) > TOLD},
        }


def _change(change: Change) -> dict[str, Any]:
    return {
        "section": change.section,
        "name": change.name,
        "part": change.part,
        "change": change.what,
        "restart": change.restart,
        "keys": [{"key": one.key, "before": one.before, "after": one.after} for one in change.keys],
    }


def _problem(problem: Problem | str) -> Mapping[str, Any]:
    if isinstance(problem, str):
        return {"message": problem, "severity": "error", "line": None, "text": problem}
    return {**problem.told(), "text": str(problem)}
