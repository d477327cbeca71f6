"""``mailpoller health``: is it well? One line and an exit code, for monitors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

from mailpoller.cli.exits import expected_errors
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import one_line, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from mailpoller.engine.assessment import Assessment

SECONDS = 8
"""For the daemon's answer: monitors give a plug-in ten."""


def health(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Tell in one line whether all is well, for a monitor.

    The exit codes of this verb are those of monitoring plug-ins: 0 all is well; 1 a warning: an alarm stands, a
    mailbox waits out a failure or was never polled, a message is stuck; 2 critical: no daemon answers, its ledger
    cannot be read, a mailbox is behind, refused or held, a queue is down; 3 unknown: the configuration cannot be
    used, or the daemon may not be asked.

    \b
    Examples:
      mailpoller health
      mailpoller health --json | jq -e .ok
    """
    assessment, report = _assessed(config)
    line = one_line(assessment.line).replace("|", "/")  # a monitor takes what follows a bar for figures
    if as_json:
        findings = [
            {"level": one.level.name.lower(), "subject": one.subject, "what": one.what} for one in assessment.findings
        ]
        told = {key: report[key] for key in ("version", "pid", "started_at") if key in report}
        print_json(
            {"ok": assessment.ok, "level": assessment.level.name.lower(), "line": line, **told, "findings": findings}
        )
    else:
        typer.echo(f"{assessment.level.name}: {line}{_figures(report)}")
    raise typer.Exit(int(assessment.level))


def _assessed(path: Path) -> tuple[Assessment, dict[str, Any]]:
    """What the daemon's report comes to, and the report. Whatever keeps us from asking is unknown, never well."""
    from mailpoller.cli.service import ask, denied, entered
    from mailpoller.core.errors import MailpollerError, TransientError
    from mailpoller.engine.assessment import Assessment, Level, assess

    try:
        config = entered(path)
        where = config.service.control_socket
        if denied(where, os.R_OK | os.W_OK):
            return Assessment(Level.UNKNOWN, f"{where}: permission denied; its group may ask the daemon"), {}
        report = ask(config, {"do": "status", "counts": False}, seconds=SECONDS)
    except TransientError as error:
        return assess({"line": str(error)}), {}
    except (MailpollerError, ExceptionGroup) as error:
        if not (expected := expected_errors(error)):
            raise
        words = [str(one) for problem in expected for one in getattr(problem, "problems", ()) or (problem,)]
        return Assessment(Level.UNKNOWN, "; ".join(words[:3])), {}
    try:
        return assess(report), report
    except (LookupError, TypeError, ValueError):
        return Assessment(Level.UNKNOWN, "the daemon's answer is not one of this version: restart it"), {}


def _figures(report: dict[str, Any]) -> str:
    """Figures as monitoring plug-ins give them, behind a bar."""
    if "pid" not in report:
        return ""
    boxes = report["mailboxes"]
    behind = sum(bool(box.get("behind")) for box in boxes)
    return f" | mailboxes={len(boxes)} behind={behind} alarms={len(report['alarms'])} stuck={len(report['stuck'])}"
