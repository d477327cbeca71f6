"""``mailpoller errors``: what went wrong lately, of each mailbox, queue or outgoing."""

from __future__ import annotations

from typing import Annotated

import typer

from mailpoller.cli.exits import explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import print_json, print_table


def errors(
    config: ConfigOption,
    subject: Annotated[str | None, typer.Argument(help="A mailbox or outgoing; all of them if left out.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many, newest first.")] = 50,
    clear: Annotated[bool, typer.Option("--clear", help="Forget them.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the last errors (the ledger keeps 1,000 of each mailbox), or clear them."""
    from mailpoller.cli.service import carry_out, loaded, reader

    with explained():
        found = loaded(config)
        if clear:
            answer = carry_out(found, {"do": "clear-errors", "subject": subject})
            typer.echo(f"{answer['cleared']} errors cleared")
            return
        with reader(found) as ledger:
            faults = ledger.faults(subject, limit=limit)
        if as_json:
            print_json(
                [{"at": f.at, "subject": f.subject, "event": f.event, "detail": f.detail, "mid": f.mid} for f in faults]
            )
            return
        rows = ((f.at.isoformat(timespec="seconds"), f.subject, f.event, f.detail, f.mid) for f in faults)
        print_table(("at", "of", "event", "detail", "mid"), rows, empty="no errors")
