"""``mailpoller messages``: what was settled lately, and how many an hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from mailpoller.cli.exits import complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, print_json, print_table
from mailpoller.cli.since import SinceOption, UntilOption, instant_of

if TYPE_CHECKING:
    from mailpoller.core.ports import Story

_BAR = 40
"""Characters of the longest bar."""


def messages(
    config: ConfigOption,
    mailbox: Annotated[str | None, typer.Argument(metavar="[MAILBOX]", help="Only of this mailbox.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    outcome: Annotated[
        str | None, typer.Option("--outcome", metavar="WORD", help="delivered, quarantined, discarded, gone, …")
    ] = None,
    sender: Annotated[str | None, typer.Option("--sender", metavar="ADDRESS", help="Only from this address.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", metavar="DOMAIN", help="Only from this domain.")] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", metavar="NAME", help="Only what this queue was given.")
    ] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="What waits, instead of what was settled.")] = False,
    histogram: Annotated[bool, typer.Option("--histogram", help="Only how many there were in each hour.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show what was settled lately, newest first.

    Without --since: of the last day.

    \b
    Examples:
      mailpoller messages support --since 2h
      mailpoller messages --outcome quarantined --since yesterday
      mailpoller messages --domain customer.example
      mailpoller messages --histogram --since today
      mailpoller messages --waiting
    """
    from mailpoller.cli.service import entered, known_mailbox, reader
    from mailpoller.core.delivery import OutcomeKind
    from mailpoller.core.ports import Wanted

    outcomes = get_args(OutcomeKind)
    if outcome is not None and outcome not in outcomes:
        refuse(f"there is no outcome {outcome}; there is {', '.join(outcomes)}")
    if waiting and (histogram or outcome or until or queue):
        refuse("what waits has no outcome yet: --waiting goes with a mailbox, --sender, --domain and --since")
    begin = instant_of(since, timedelta(days=1))
    assert begin is not None
    wanted = Wanted(begin, instant_of(until), mailbox, outcome, sender, domain, queue)
    with explained():
        found = entered(config)
        with reader(found) as ledger:
            if mailbox is not None and mailbox not in ledger.mailboxes():
                known_mailbox(found, mailbox)
            if histogram:
                _show_hours(ledger.per_hour(wanted), as_json=as_json)
                return
            if waiting:
                earliest = None if since is None else begin
                stories = [one for one in ledger.deferred() if _fits(one, mailbox, sender, domain, earliest)]
                stories = stories[:limit]
            else:
                stories = list(ledger.messages(wanted, limit=limit))
        if as_json:
            print_json([asdict(story) for story in stories])
            return
        rows = (_row(story) for story in stories)
        print_table(("at", "mailbox", "outcome", "sender", "queues", "reason", "mid"), rows, empty="no messages")
        if len(stories) == limit:
            complain(f"only {counted(limit, 'message')} shown: --limit shows more")


def _fits(story: Story, mailbox: str | None, sender: str | None, domain: str | None, since: datetime | None) -> bool:
    address = story.sender.casefold()
    return (
        mailbox in (None, story.mailbox)
        and (sender is None or address == sender.casefold())
        and (domain is None or address.rpartition("@")[2] == domain.casefold())
        and (since is None or (story.claimed_at is not None and story.claimed_at >= since))
    )


def _row(story: Story) -> Sequence[Any]:
    at = story.settled_at or story.claimed_at
    outcome = story.outcome or f"waits until {story.due_at:%Y-%m-%d %H:%M}" if story.due_at else story.outcome
    return at, story.mailbox, outcome or story.state, story.sender, list(story.receipts), story.reason, story.mid


def _show_hours(counts: Sequence[tuple[datetime, str, int]], *, as_json: bool) -> None:
    hours: dict[datetime, dict[str, int]] = {}
    for hour, outcome, count in counts:
        hours.setdefault(hour, {})[outcome] = count
    if as_json:
        print_json(
            [{"hour": hour, "count": sum(several.values()), "outcomes": several} for hour, several in hours.items()]
        )
        return
    most = max((sum(several.values()) for several in hours.values()), default=0)
    rows = (
        (f"{hour.astimezone():%Y-%m-%d %H:%M}", sum(several.values()), "▇" * _bar(several, most), several)
        for hour, several in hours.items()
    )
    print_table(("hour", "messages", "", "outcomes"), rows, empty="no messages")


def _bar(several: dict[str, int], most: int) -> int:
    return max(1, round(_BAR * sum(several.values()) / most)) if most else 0
