"""``mailpoller explain``: which rules match a message, why, and where it would go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, one_line, print_fields
from mailpoller.cli.since import SinceOption, instant_of


def explain(
    config: ConfigOption,
    mails: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MAIL]...", help="Files that hold a message each; - is standard input."),
    ] = None,
    mailbox: Annotated[
        str | None,
        typer.Option("--mailbox", "-m", help="Judge as this mailbox does; may be left out if there is only one."),
    ] = None,
    since: SinceOption = None,
    received: Annotated[
        str | None,
        typer.Option(
            "--received", metavar="WHEN", help="When the server had the message; else as its first Received field says."
        ),
    ] = None,
    event: Annotated[bool, typer.Option("--event", help="Print the whole event below the judgement.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell which rules match a message, and where it would go.

    Nothing is fetched or delivered. With --json one object a line, in the order of the files, the event among it.

    With --since WHEN and no files: what was decided about the mail of that time which is still in the quarantine, or in
    an SQLite queue that holds octets, and what the rules of this configuration would decide; of those for which that
    differs. The configuration may be one that is not in force yet, beside the one that is.

    \b
    Examples:
      mailpoller explain --mailbox support mail.eml
      mailpoller explain --event --received 2026-11-30T22:15+01:00 mail.eml
      mailpoller explain --json maildir/cur/* | jq -r '[.mail, .verdict] | @tsv'
      mailpoller queue show support 1 --octets | mailpoller explain -
      mailpoller explain --since 7d --config /etc/mailpoller/new.yaml

    Exits with 66 if a file cannot be read; the others are explained.
    """
    from mailpoller.cli.explaining import Explainer, received_at
    from mailpoller.cli.service import known_mailbox, loaded

    if (since is None) == (not mails):
        refuse("name files that hold messages, or say --since WHEN, one of them")
    if since is not None and (event or received is not None):
        refuse("--event and --received are about files")
    if since is not None:
        _replay(config, mailbox, since, as_json=as_json)
        return
    with explained():
        found = loaded(config)
        if mailbox is None and len(found.mailboxes) != 1:
            refuse("name one of the mailboxes with --mailbox: " + ", ".join(found.mailboxes))
        name = known_mailbox(found, mailbox or next(iter(found.mailboxes)))
        explainer = Explainer(found, name, events=as_json or event)
        instant = instant_of(received)
        unreadable = False
        for number, mail in enumerate(mails or ()):
            try:
                octets = sys.stdin.buffer.read() if str(mail) == "-" else mail.read_bytes()
            except OSError as error:
                complain(f"{mail}: {error.strerror}")
                unreadable = True
                continue
            story = {"mail": str(mail), **explainer.explain(octets, instant or received_at(octets))}
            if as_json:
                typer.echo(json.dumps(story, ensure_ascii=False))
            else:
                if number:
                    typer.echo()
                _show(story)
        if unreadable:
            raise typer.Exit(NOINPUT)


def _replay(config: Path, mailbox: str | None, since: str, *, as_json: bool) -> None:
    """What would differ, and at the end how much was looked at."""
    from mailpoller.cli.replaying import Replay
    from mailpoller.cli.service import entered, known_mailbox

    instant = instant_of(since)
    assert instant is not None
    with explained():
        found = entered(config)
        replay = Replay(found, instant, None if mailbox is None else known_mailbox(found, mailbox))
        differing = 0
        for one in replay.differing():
            differing += 1
            if as_json:
                typer.echo(json.dumps(one, ensure_ascii=False))
                continue
            typer.echo(one_line(f"{one['mid']}  {one['mailbox']}, in {one['place']}: {one['subject'][:80]}"))
            for word in ("before", "after"):
                told = "; ".join(f"{key} {_words(value)}" for key, value in one[word].items() if value is not None)
                typer.echo(one_line(f"  {word:<7} {told}"))
            typer.echo(one_line(f"  by      {', '.join(one['rules']) or 'no rule'}"))
        complain(f"{counted(replay.judged, 'message')} looked at, {differing:,} would differ")
        for why, number in replay.passed_over.items():
            complain(f"{number:,} passed over: {why}")


def _words(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value or "none")


def _show(story: dict[str, Any]) -> None:
    rules = story.pop("rules")
    event = story.pop("event", None)
    print_fields(story)
    for rule in rules:
        typer.echo(
            one_line(f"  {'+' if rule['matched'] else '-'} {rule['rule']}{': ' + rule['why'] if rule['why'] else ''}")
        )
    if event is not None:
        told = json.dumps(event, ensure_ascii=False, indent=2)
        # It is shown on a terminal, and what is in it came from a stranger.
        typer.echo("".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in told))
