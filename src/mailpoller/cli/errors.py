"""``mailpoller errors``: what went wrong lately, of each mailbox, queue or outgoing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mailpoller.cli.exits import explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, print_json, print_table
from mailpoller.cli.since import SinceOption, instant_of

if TYPE_CHECKING:
    from mailpoller.config import Config


def errors(
    config: ConfigOption,
    subject: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A mailbox or outgoing; all of them if left out.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 50,
    since: SinceOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Forget them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the last errors, newest first, or clear them.

    The ledger keeps 1,000 of each mailbox and outgoing; those of a queue stand under queue:NAME.

    \b
    Examples:
      mailpoller errors support
      mailpoller errors --since 1h
      mailpoller errors --clear
    """
    from mailpoller.cli.service import carry_out, entered, reader

    begin = instant_of(since)
    with explained():
        found = entered(config)
        if clear:
            cleared = carry_out(found, {"do": "clear-errors", "subject": subject})["cleared"]
            if as_json:
                print_json({"cleared": cleared})
            else:
                typer.echo(f"{counted(cleared, 'error')} cleared")
            return
        with reader(found) as ledger:
            faults = ledger.faults(subject, limit=limit, since=begin)
        if as_json:
            print_json([asdict(fault) for fault in faults])
            return
        rows = ((fault.at, fault.subject, fault.event, fault.detail, fault.mid) for fault in faults)
        print_table(("at", "of", "event", "detail", "mid"), rows, empty=f"no errors{_unknown(found, subject)}")


def _unknown(config: Config, subject: str | None) -> str:
    """What to add if nothing is of this name, which is probably mistyped."""
    from mailpoller.config.problems import did_you_mean

    names = [*config.mailboxes, *config.outgoing, *(f"queue:{name}" for name in config.queues)]
    if subject is None or subject in names:
        return ""
    return f", and the configuration has no {subject}{did_you_mean(subject, names)}"
