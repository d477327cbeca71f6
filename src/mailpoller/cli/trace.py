"""``mailpoller trace``: one message's story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import one_line, print_fields, print_json

if TYPE_CHECKING:
    from mailpoller.core.ports import FormerOutcome, Story
    from mailpoller.ledgers.sqlite import LedgerReader

_OUTCOMES = {
    "gone": "it left the mailbox before we had it",
    "repeated": "equal octets were settled before its folder was numbered anew",
    "skipped": "it was there before the first run, and start does not want it",
}


def trace(
    config: ConfigOption,
    term: Annotated[str, typer.Argument(metavar="TERM", help="A mid, a Message-ID, a uid or a sender's address.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many stories, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Tell what became of a message.

    When it was claimed, which rules matched, which queue holds it under which reference, what was done on the server.

    \b
    Examples:
      mailpoller trace ada@customer.example                      all that she sent, newest first
      mailpoller trace '<20261104.8831@customer.example>'        a Message-ID
      mailpoller trace 5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a      the mid that stands in the log and in the event

    Exits with 66 if the ledger knows no such message.
    """
    from mailpoller.cli.service import entered, reader

    with explained():
        with reader(entered(config)) as ledger:
            stories = _found(ledger, term.strip(), limit)
        if as_json:
            print_json([asdict(story) for story in stories])
        elif not stories:
            complain(f"the ledger knows no message by {term}")
        for number, story in enumerate(() if as_json else stories):
            if number:
                typer.echo()
            print_fields(_told(story))
        if not stories:
            raise typer.Exit(NOINPUT)


def _found(ledger: LedgerReader, term: str, limit: int) -> Sequence[Story]:
    """Message-IDs are also known without their brackets, which a shell takes for redirections."""
    stories = ledger.trace(term, limit=limit)
    if not stories and "@" in term and not term.startswith("<"):
        return ledger.trace(f"<{term}>", limit=limit)
    return stories


def _told(story: Story) -> dict[str, Any]:
    """The story's fields for people: no counter that counted nothing, and words where one word says too little."""
    fields = {name: value for name, value in asdict(story).items() if value != 0}
    fields["former"] = [_told_before(one) for one in story.former]
    if story.outcome == "gone" and story.reason == "redelivery":
        fields["reason"] = "it had left the mailbox when it was to be brought once more"
    elif story.outcome in _OUTCOMES and not story.reason:
        fields["reason"] = _OUTCOMES[story.outcome]
    elif story.state == "deferred" and story.reason == "redeliver":
        fields["reason"] = "it is to be brought once more, at the next poll"
    return fields


def _told_before(former: FormerOutcome) -> str:
    """What had become of it before it was brought once more."""
    receipts = ", ".join(f"{queue}: {reference}" for queue, reference in former.receipts.items())
    words = [former.outcome, receipts, former.reason and f"({former.reason})", f"at {one_line(former.settled_at)}"]
    return " ".join(filter(None, words))
