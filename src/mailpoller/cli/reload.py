"""``mailpoller reload``: the running daemon reads its configuration anew, and changes only what changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mailpoller.cli.exits import CONFIG, DATAERR, TEMPFAIL, UNAVAILABLE, complain, explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, one_line, print_json

PATIENCE_S = 80.0
"""systemd gives ``ExecReload=`` ninety seconds."""
SHOWN = 50

_WORDS = {
    "same": "nothing has changed",
    "applied": "the new configuration holds",
    "partly": "the new configuration holds in part; a reload tries the rest again",
    "refused": "nothing was changed",
    "bad": "the configuration cannot be used; the one that was read before goes on",
}
_CODES = {"bad": CONFIG, "refused": DATAERR, "partly": TEMPFAIL, "running": TEMPFAIL}


def reload(
    config: ConfigOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would change, secrets masked, and change nothing.")
    ] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="NAME",
            help="This mailbox, queue or outgoing may go although it is in use or holds something. If several of "
            "the name go: queue:NAME.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have the running daemon read its configuration anew.

    The file is checked whole first; if it has an error, nothing changes. Then only the mailboxes, queues and outgoings
    that changed are added, replaced or removed: a mailbox ends what it has in hand first, and all others keep their
    sessions. Files with secrets and lists are read again. What needs a restart is named.

    \b
    Examples:
      mailpoller reload --dry-run            what would change?
      mailpoller reload
      mailpoller reload --remove support     support may go although it is polled

    Exits with 78 if the configuration cannot be used, 65 if it would remove what is in use or holds something, 69 if
    no daemon answers, and 75 if a part could not be changed or it takes longer than 80 s; status tells more then.
    """
    from mailpoller.cli.service import daemon_of
    from mailpoller.core.errors import LedgerUnavailable, TransientError
    from mailpoller.engine.control import ask

    with explained():
        socket = daemon_of(config)
        end = time.monotonic() + PATIENCE_S
        try:
            report = ask(socket, {"do": "reload", "dry_run": dry_run, "remove": remove or []})
            while report["outcome"] == "running" and time.monotonic() < end:
                report = ask(socket, {"do": "reload", "number": report["number"]})
        except LedgerUnavailable:
            raise
        except TransientError as error:
            complain(str(error))
            raise typer.Exit(UNAVAILABLE) from None
        if as_json:
            print_json(report)
        else:
            _show(report, dry_run=dry_run)
        raise typer.Exit(_CODES.get(report["outcome"], 0))


def _show(report: dict[str, Any], *, dry_run: bool) -> None:
    if report["outcome"] == "running":
        complain("it is still under way: mailpoller status tells what comes of it")
        return
    changes = report["changes"]
    for change in changes[:SHOWN]:
        typer.echo(f"{change['change']:<8} {change['part']}" + (" (needs a restart)" if change["restart"] else ""))
        for key in change["keys"]:
            typer.echo(one_line(f"           {key['key']}: {_value(key['before'])} → {_value(key['after'])}"))
        if change["change"] == "changed" and not change["keys"]:
            typer.echo("           a secret, which is not shown")
    if (more := len(changes) - SHOWN + report["more"].get("changes", 0)) > 0:
        typer.echo(f"and {counted(more, 'change')} more; --json shows them")
    for problem in report["problems"]:
        complain(("warning: " if problem["severity"] == "warning" else "") + problem["text"])
    _complain("needs a restart: ", report["restart"])
    _complain("", report["refusals"])
    _complain("not done: ", report["failed"])
    _complain("waits for what it lacks: ", report["waiting"])
    would = dry_run and report["outcome"] == "applied"
    typer.echo("this would be changed" if would else _WORDS[report["outcome"]])


def _complain(before: str, lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        complain(f"{before}{line}")


def _value(value: str | None) -> str:
    return "nothing" if value is None else value
