"""``mailpoller changes``: what changed lately, and who did it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from mailpoller.cli.exits import explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import print_json, print_table
from mailpoller.cli.since import SinceOption, instant_of


def changes(
    config: ConfigOption,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, newest first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show what changed lately, and who did it.

    Configuration, versions, alarms, and what operators did, newest first. The ledger keeps the last 10,000. Without
    --since: of the last day.

    \b
    Examples:
      mailpoller changes --since yesterday
      mailpoller changes --since 2h --json
    """
    from mailpoller.cli.service import entered, reader

    begin = instant_of(since, timedelta(days=1))
    assert begin is not None
    with explained():
        with reader(entered(config)) as ledger:
            found = ledger.changes(begin, limit=limit)
        if as_json:
            print_json([asdict(change) for change in found])
            return
        rows = ((change.at, change.event, change.who, change.detail) for change in found)
        print_table(("at", "event", "who", "detail"), rows, empty="nothing changed")
