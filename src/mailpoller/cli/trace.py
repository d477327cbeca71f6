"""``mailpoller trace``: one message's story."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import print_fields, print_json


def trace(
    config: ConfigOption,
    term: Annotated[str, typer.Argument(help="A mid, a Message-ID, a uid or a sender's address.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many stories, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Tell what became of a message: seen, claimed, judged by which rule, held by which queue, settled when."""
    from mailpoller.cli.service import loaded, reader

    with explained():
        with reader(loaded(config)) as ledger:
            stories = ledger.trace(term, limit=limit)
        if as_json:
            print_json([asdict(story) for story in stories])
        elif not stories:
            complain(f"the ledger knows no message by {term}")
        for number, story in enumerate(() if as_json else stories):
            if number:
                typer.echo()
            print_fields(asdict(story))
        if not stories:
            raise typer.Exit(NOINPUT)
