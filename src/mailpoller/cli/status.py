"""``mailpoller status``: how the mailboxes, queues and alarms stand."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from mailpoller.cli.exits import TEMPFAIL, complain, explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import one_line, print_json, print_table
from mailpoller.core.errors import TransientError

if TYPE_CHECKING:
    from mailpoller.config import Config


def status(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show how mailboxes, queues and alarms stand.

    \b
    Examples:
      mailpoller status
      mailpoller status --json | jq -e .ok
      mailpoller status --json | jq -r '.mailboxes[] | select(.behind) | .mailbox'

    Exits with 75 if no daemon answers, or it cannot read its ledger; what the other can tell is shown then too.
    """
    from mailpoller.cli.service import ask, entered
    from mailpoller.engine.assessment import assess

    with explained():
        found = entered(config)
        try:
            report = ask(found, {"do": "status"}, seconds=10)
        except TransientError as error:
            report = {
                "line": str(error),
                "mailboxes": [],
                "queues": [],
                "alarms": [],
                "stuck": [],
                **_from_the_ledger(found),
            }
        assessment = assess(report)
        if as_json:
            print_json({"ok": assessment.ok, "level": assessment.level.name.lower(), **report})
        else:
            _show(report)
        if "pid" not in report or "ledger_error" in report:
            raise typer.Exit(TEMPFAIL)


def _from_the_ledger(config: Config) -> dict[str, Any]:
    """What the ledger alone can tell; ``ledger_error`` if there is none, or none that can be read."""
    from mailpoller.cli.service import reader
    from mailpoller.core.ports import Standing
    from mailpoller.engine.overdue import SHOWN_AFTER, stuck_report

    try:
        with reader(config) as ledger:
            held = {folder.mailbox: folder.held for folder in ledger.folders() if folder.present and folder.held}
            polls, standings = ledger.last_polls(), ledger.standings()
            mailboxes = [
                {
                    "mailbox": name,
                    "condition": "held" if name in held else "no daemon",
                    "reason": held.get(name, ""),
                    "last_poll_at": polls[name].isoformat(timespec="seconds") if name in polls else None,
                    "ledger": asdict(standings.get(name, Standing())),
                }
                for name in ledger.mailboxes()
            ]
            alarms = [
                {"key": alarm.key, "summary": alarm.summary, "raised_at": alarm.raised_at.isoformat()}
                for alarm in ledger.alarms()
            ]
            now = datetime.now(UTC)
            stuck = stuck_report(ledger.stuck(now - SHOWN_AFTER, now))
            return {"mailboxes": mailboxes, "alarms": alarms, "stuck": stuck}
    except TransientError as error:
        return {"ledger_error": str(error)}


def _show(report: dict[str, Any]) -> None:
    typer.echo(one_line(report["line"]))
    if "ledger_error" in report:
        complain(report["ledger_error"])
    print_table(
        ("mailbox", "condition", "last poll", "next try", "waiting", "settled", "to dispose", "reason"),
        (
            (
                box["mailbox"],
                box["condition"] + (" (behind)" if box.get("behind") else ""),
                box.get("last_poll_at") or "never",
                box.get("next_try_at"),
                box["ledger"].get("deferred", 0),
                box["ledger"].get("settled", 0),
                box["ledger"].get("undisposed", 0),
                box.get("reason"),
            )
            for box in report["mailboxes"]
        ),
        empty="no mailbox is known",
    )
    if troubled := [queue for queue in report["queues"] if queue["state"] != "up" or queue.get("concerns")]:
        rows = ((queue["queue"], queue["state"], queue["reason"]) for queue in troubled)
        print_table(("queue", "state", "reason"), rows, empty="")
    if report.get("stuck"):
        waiting = (
            (
                one["mailbox"], one["folder"], one["uid"], one["what"], one["since"], one["received"] or "",
                "" if one["size"] is None else one["size"], one["mid"], one["reason"],
            )
            for one in report["stuck"]
        )  # fmt: skip
        print_table(
            ("mailbox", "folder", "uid", "stuck", "since", "received", "octets", "mid", "reason"), waiting, empty=""
        )
    if report["alarms"]:
        rows = (
            (datetime.fromisoformat(alarm["raised_at"]), alarm["key"], alarm["summary"]) for alarm in report["alarms"]
        )
        print_table(("alarm since", "what", "summary"), rows, empty="")
