"""``mailpoller status``: how the mailboxes, queues and alarms stand."""

from __future__ import annotations

from typing import Any

import typer

from mailpoller.cli.exits import TEMPFAIL, explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import print_json, print_table
from mailpoller.core.errors import TransientError


def status(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show how mailboxes, queues and alarms stand; exits with 75 if no daemon answers."""
    from mailpoller.cli.service import ask, loaded

    with explained():
        found = loaded(config)
        try:
            report = ask(found, {"do": "status"})
        except TransientError as error:
            report = {"line": str(error), "mailboxes": _from_the_ledger(found), "queues": [], "alarms": []}
        if as_json:
            print_json(report)
        else:
            _show(report)
        if "pid" not in report:
            raise typer.Exit(TEMPFAIL)


def _from_the_ledger(config: Any) -> list[dict[str, Any]]:
    """What the ledger alone can tell."""
    from mailpoller.cli.service import reader

    try:
        with reader(config) as ledger:
            return [
                {"mailbox": name, "condition": "no daemon", "ledger": dict(ledger.counts(name))}
                for name in ledger.mailboxes()
            ]
    except TransientError:
        return []


def _show(report: dict[str, Any]) -> None:
    typer.echo(report["line"])
    print_table(
        ("mailbox", "condition", "last poll", "waiting", "settled", "to dispose", "reason"),
        (
            (
                box["mailbox"],
                box["condition"] + (" (behind)" if box.get("behind") else ""),
                box.get("last_poll_at") or "never",
                box["ledger"].get("deferred", 0),
                box["ledger"].get("settled", 0),
                box["ledger"].get("undisposed", 0),
                box.get("reason"),
            )
            for box in report["mailboxes"]
        ),
        empty="no mailbox is known",
    )
    troubled = [queue for queue in report["queues"] if queue["state"] != "up"]
    if troubled:
        rows = ((queue["queue"], queue["state"], queue["reason"]) for queue in troubled)
        print_table(("queue", "state", "reason"), rows, empty="")
    if report["alarms"]:
        rows = ((alarm["raised_at"], alarm["key"], alarm["summary"]) for alarm in report["alarms"])
        print_table(("alarm since", "what", "summary"), rows, empty="")
