"""``mailpoller explain``: which rules match a message, why, and where it would go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import one_line, print_fields


def explain(
    config: ConfigOption,
    mails: Annotated[
        list[Path], typer.Argument(metavar="MAIL", help="Files that hold a message each; - is standard input.")
    ],
    mailbox: Annotated[
        str | None,
        typer.Option("--mailbox", "-m", help="Judge as this mailbox does; may be left out if there is only one."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which rules match a message, and where it would go.

    Nothing is fetched or delivered. With --json one object a line, in the order of the files.

    \b
    Examples:
      mailpoller explain --mailbox support mail.eml
      mailpoller explain --json maildir/cur/* | jq -r '[.mail, .verdict] | @tsv'
      mailpoller queue show support 1 --octets | mailpoller explain -

    Exits with 66 if a file cannot be read; the others are explained.
    """
    from mailpoller.cli.explaining import Explainer
    from mailpoller.cli.service import known_mailbox, loaded

    with explained():
        found = loaded(config)
        if mailbox is None and len(found.mailboxes) != 1:
            refuse("name one of the mailboxes with --mailbox: " + ", ".join(found.mailboxes))
        explainer = Explainer(found, known_mailbox(found, mailbox or next(iter(found.mailboxes))), events=as_json)
        unreadable = False
        for number, mail in enumerate(mails):
            try:
                octets = sys.stdin.buffer.read() if str(mail) == "-" else mail.read_bytes()
            except OSError as error:
                complain(f"{mail}: {error.strerror}")
                unreadable = True
                continue
            story = {"mail": str(mail), **explainer.explain(octets)}
            if as_json:
                typer.echo(json.dumps(story, ensure_ascii=False))
            else:
                if number:
                    typer.echo()
                _show(story)
        if unreadable:
            raise typer.Exit(NOINPUT)


def _show(story: dict[str, Any]) -> None:
    rules = story.pop("rules")
    print_fields(story)
    for rule in rules:
        typer.echo(
            one_line(f"  {'+' if rule['matched'] else '-'} {rule['rule']}{': ' + rule['why'] if rule['why'] else ''}")
        )
