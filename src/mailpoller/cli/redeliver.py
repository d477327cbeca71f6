"""``mailpoller redeliver``: messages that were settled are brought to their queues once more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from mailpoller.cli.exits import DATAERR, NOINPUT, complain, explained, refuse
from mailpoller.cli.options import ConfigOption
from mailpoller.cli.output import counted, print_table, tally
from mailpoller.cli.since import SinceOption, UntilOption, instant_of
from mailpoller.core.errors import MailpollerError, MessageGone, TransientError

if TYPE_CHECKING:
    from mailpoller.config import Config
    from mailpoller.core.ports import Story, Wanted

AT_ONCE = 10_000
"""Messages of which the ledger tells at once."""
SHOWN = 50
_MOMENT = timedelta(microseconds=1)
_SECONDS = 65
"""Longer than the daemon takes for a request, at the most: a queue may be waited for."""


def redeliver(
    config: ConfigOption,
    mids: Annotated[list[str] | None, typer.Argument(metavar="[MID]...", help="The messages' mids.")] = None,
    mailbox: Annotated[str | None, typer.Option("--mailbox", metavar="MAILBOX", help="Only of this mailbox.")] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="QUEUE", help="Only what this queue was given.")
    ] = None,
    sender: Annotated[str | None, typer.Option("--sender", metavar="ADDRESS", help="Only from this address.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", metavar="DOMAIN", help="Only from this domain.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which messages are meant, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Bring settled messages to their queues once more.

    A message is fetched and judged anew, and arrives under a new delivery id, so that no queue takes it for a repeat.
    What is held in quarantine, or was moved to another folder of its mailbox and is still there, is brought at once;
    else its mailbox must have it in the folder that is polled. If it is nowhere, trace says afterwards that it is gone.

    With --since, and whatever else is said, all that was delivered since then is meant, however many there are. A
    message that went to several queues comes to all of them again. Ctrl-C ends it between two messages, and it
    says how to go on.

    \b
    Examples:
      mailpoller trace ada@customer.example          shows the mid
      mailpoller redeliver 5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a
      mailpoller redeliver --queue support --since 2h --dry-run

    Exits with 66 if there is no such message, and with 65 if some were not brought.
    """
    from mailpoller.cli.service import entered, known_mailbox

    chosen = [one for one in (mailbox, queue, sender, domain, since, until) if one is not None]
    if bool(mids) is bool(chosen):
        refuse("say either mids, or --since with what else is known of the messages")
    if not mids and since is None:
        refuse("say --since, too: else it would be all that was ever delivered")
    with explained():
        found = entered(config)
        if mids and len(mids) == 1 and not dry_run:
            _one(found, mids[0].strip().lower())
            return
        if mailbox is not None:
            known_mailbox(found, mailbox)
        _several(found, mids or [], _wanted(mailbox, queue, sender, domain, since, until), dry_run=dry_run, yes=yes)


def _wanted(
    mailbox: str | None, queue: str | None, sender: str | None, domain: str | None, since: str | None, until: str | None
) -> Wanted:
    """Until now at most: what comes again meanwhile is settled later, and not meant."""
    from mailpoller.core.ports import Wanted

    now = datetime.now(UTC)
    begin, end = instant_of(since, timedelta(days=1)), instant_of(until) or now
    assert begin is not None
    return Wanted(begin, min(end, now), mailbox, "delivered", sender, domain, queue)


def _one(config: Config, mid: str) -> None:
    from mailpoller.cli.service import carry_out

    answer = carry_out(config, {"do": "redeliver", "mid": mid}, seconds=_SECONDS)
    if answer.get("held"):
        typer.echo(f"{mid} was {answer['found']}: {answer['outcome']}: {answer['detail']}")
        if answer["outcome"] == "held":
            raise typer.Exit(DATAERR)
        return
    mailbox, folder = answer["mailbox"], answer["folder"]
    typer.echo(f"{mid} will be brought again at the next poll of {mailbox}, if {folder} still has it")
    if mailbox not in config.mailboxes or not config.runs(mailbox):
        complain(f"but {mailbox} is not polled now")


def _several(config: Config, mids: list[str], wanted: Wanted, *, dry_run: bool, yes: bool) -> None:
    """Each by itself: the trouble of one is told at the end, and stops no other."""
    from mailpoller.cli.service import carry_out

    named = list(dict.fromkeys(mid.strip().lower() for mid in mids))
    stories = [] if named else list(_all(config, wanted))
    if not (named or stories):
        complain("nothing that was delivered is meant")
        raise typer.Exit(NOINPUT)
    if dry_run:
        _show(config, named, stories)
        return
    if not named and not yes:
        if not sys.stdin.isatty():
            refuse("there is nobody to ask: say --yes, or --dry-run")
        if not typer.confirm(f"Bring {counted(len(stories), 'message')} once more?"):
            raise typer.Exit
    told = {"brought": 0, "to be brought at the next poll": 0}
    failed: list[tuple[str, str]] = []
    all_mids = named or [story.mid for story in stories]
    number = 0
    try:
        with tally(len(all_mids), "message") as done:
            for mid in all_mids:
                try:
                    answer = carry_out(config, {"do": "redeliver", "mid": mid}, seconds=_SECONDS)
                except TransientError:
                    raise  # no daemon, no ledger: it would be the same for all others
                except MailpollerError as error:
                    failed.append((mid, "gone" if isinstance(error, MessageGone) else str(error)))
                else:
                    if answer.get("held") and answer["outcome"] == "held":
                        failed.append((mid, str(answer["detail"])))
                    else:
                        told["brought" if answer.get("held") else "to be brought at the next poll"] += 1
                number += 1
                done(number)
    finally:
        if number < len(stories) and (last := stories[number].settled_at) is not None:
            complain(f"the rest of them: the same with --until {(last + _MOMENT).isoformat()}")
        for what, count in told.items():
            if count:
                typer.echo(f"{counted(count, 'message')} {what}")
        if failed:
            print_table(("mid", "not brought"), failed, empty="")
    if failed:
        raise typer.Exit(DATAERR)


def _all(config: Config, wanted: Wanted) -> Iterator[Story]:
    """All that are meant, the newest first, read in pieces."""
    from mailpoller.cli.service import reader

    with reader(config) as ledger:
        seen: set[str] = set()
        while True:
            piece = ledger.messages(wanted, limit=AT_ONCE)
            new = [story for story in piece if story.mid not in seen]
            seen = {story.mid for story in piece}
            yield from new
            last = piece[-1].settled_at if piece else None
            if len(piece) < AT_ONCE or last is None:
                return
            # Those of the last instant once more, of which the piece may not have had all; unless it had no others.
            wanted = replace(wanted, until=last + _MOMENT if new else last)


def _show(config: Config, named: list[str], stories: list[Story]) -> None:
    from mailpoller.cli.service import reader

    if named:
        with reader(config) as ledger:
            stories = [story for mid in named for story in ledger.trace(mid, limit=1)]
    rows = (
        (one.settled_at, one.mailbox, one.outcome, one.sender, list(one.receipts), one.mid) for one in stories[:SHOWN]
    )
    print_table(("at", "mailbox", "outcome", "sender", "queues", "mid"), rows, empty="no messages")
    complain(f"{counted(len(stories), 'message')} would be brought once more")
