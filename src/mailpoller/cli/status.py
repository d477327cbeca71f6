"""``mailpoller status``: how the mailboxes, queues, outgoings and alarms stand."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import TEMPFAIL, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import print_json
from mailpoller.core.errors import TransientError

if TYPE_CHECKING:
    from pathlib import Path

    from mailpoller.config import Config, ConfigErrors

PERIOD_S = 2.0
"""Of ``--watch``."""


def status(
    config: ConfigOption,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A mailbox, queue or outgoing: all that is known of it.")
    ] = None,
    failing: Annotated[bool, typer.Option("--failing", help="Only what is not well.")] = False,
    inbound: Annotated[bool, typer.Option("--inbound", help="Only mailboxes.")] = False,
    outbound: Annotated[bool, typer.Option("--outbound", help="Only outgoings.")] = False,
    department: Annotated[
        str | None, typer.Option("--department", metavar="NAME", help="Only mailboxes that serve this department.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="HOST", help="Only what is at this host.")] = None,
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="TEXT", help="Only where this is part of a name, user, address or host."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it anew every two seconds, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how mailboxes, queues and outgoings stand, worst first.

    \b
    Examples:
      mailpoller status
      mailpoller status support
      mailpoller status --failing --watch
      mailpoller status --inbound --department sales
      mailpoller status --json | jq -e .ok
      mailpoller status --json | jq -r '.mailboxes[] | select(.state != "up") | .mailbox'

    Exits with 75 if no daemon answers, or it cannot read its ledger; what the other can tell is shown then too. With
    78 if the configuration on disk cannot be used; a daemon goes on with the one that it read before, and is shown.
    """
    from mailpoller.cli.standing import Filter, shown

    if watch and (as_json or not sys.stdout.isatty()):
        refuse("--watch draws on a terminal: elsewhere ask again")
    wanted = Filter(name, failing, inbound, outbound, department, host, search)
    with explained():
        found, report, wrong = _asked(config)
        if wrong is None:
            wanted.require_known(found, report)
        while watch:
            typer.echo("\x1b[2J\x1b[H", nl=False)
            shown(wanted.of(report, found), name)
            time.sleep(PERIOD_S)
            found, report, wrong = _asked(config)
        part = wanted.of(report, found)
        if as_json:
            print_json(part)
        else:
            shown(part, name)
            _show_reload(report.get("configuration"))
            if "ledger_error" in report:
                complain(report["ledger_error"])
        if wrong is not None:
            raise wrong
        if "pid" not in report or "ledger_error" in report:
            raise typer.Exit(TEMPFAIL)


def _asked(path: Path) -> tuple[Config, dict[str, Any], ConfigErrors | None]:
    """The configuration, and how all that is in it stands; ``ok`` and ``level`` are of the whole.

    If the configuration cannot be used, why, and an empty one: a daemon goes on with what it read before. Raises that
    if none answers.
    """
    from mailpoller.cli.service import daemon_of, entered
    from mailpoller.cli.standing import outgoings_of
    from mailpoller.config import ConfigErrors
    from mailpoller.config.glimpse import empty
    from mailpoller.engine.assessment import assess
    from mailpoller.engine.control import ask

    wrong: ConfigErrors | None = None
    try:
        found = entered(path)
        socket = found.service.control_socket
    except ConfigErrors as error:
        found, socket, wrong = empty(path), daemon_of(path), error
    try:
        report = ask(socket, {"do": "status"}, deadline=timedelta(seconds=10))
    except TransientError as error:
        if wrong is not None:
            raise wrong from None
        report = {
            "line": str(error),
            "mailboxes": [],
            "queues": [],
            "alarms": [],
            "stuck": [],
            **_from_the_ledger(found),
        }
    assessment = assess(report)
    told = {"ok": assessment.ok, "level": assessment.level.name.lower(), **report}
    return found, told | {"outgoings": outgoings_of(found, report)}, wrong


def _show_reload(reload: dict[str, Any] | None) -> None:
    """What came of the last reload, as far as somebody has to do something about it."""
    if reload is None:
        return
    if reload["outcome"] not in ("same", "applied"):
        complain(f"the reload at {reload['at']} was {reload['outcome']}")
    wrong = [one["text"] for one in reload["problems"] if one["severity"] == "error"]
    for line in (*wrong, *reload["refusals"], *reload["failed"]):
        complain(line)
    for part in reload["restart"]:
        complain(f"needs a restart: {part}")


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
                    "state": "held" if name in held else "no daemon",
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
