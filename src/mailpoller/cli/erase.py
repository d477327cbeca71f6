"""``mailpoller erase``: a person's traces go, as far as we can reach them, and the rest is named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, TEMPFAIL, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, print_json
from mailpoller.core.errors import TransientError

if TYPE_CHECKING:
    from mailpoller.config import Config
    from mailpoller.core.ports import Story

AT_ONCE = 500
"""Messages that the daemon is asked to erase at once."""
FOUND = 100_000
"""Messages of one sender that are looked for at once; the rest is found when these are erased."""


def erase(
    config: ConfigOption,
    address: Annotated[str | None, typer.Option("--address", metavar="ADDRESS", help="All mail from it.")] = None,
    mid: Annotated[str | None, typer.Option("--mid", metavar="MID", help="One message.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be erased, and erase nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase a person's traces, as far as they are in reach.

    The ledger forgets sender, Message-ID and conversation of settled messages, and what was noted of them; the bare
    ids, by which repeats are recognised, stay. SQLite queues give up the messages. What cannot be reached is named.

    \b
    Examples:
      mailpoller erase --address ada@customer.example --dry-run
      mailpoller erase --mid 5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a --yes

    Exits with 66 if the ledger knows no such message, and with 75 if some of it waits, or a queue could not be opened:
    erase again.
    """
    from mailpoller.cli.service import carry_out, entered

    if (address is None) is (mid is None):
        refuse("say either --address or --mid")
    if not (dry_run or yes) and not sys.stdin.isatty():
        refuse("there is nobody to ask: say --yes, or --dry-run")
    with explained():
        found = entered(config)
        stories = _found(found, address, mid)
        settled, waiting = _split(stories)
        told: dict[str, Any] = {"messages": len(settled), "waiting": len(waiting), "notes": 0, "queues": {}}
        told["unreached"] = [*_unreached(found)]
        if stories and not (dry_run or yes) and not typer.confirm(f"Erase {counted(len(settled), 'message')}?"):
            raise typer.Exit
        mids = [story.mid for story in settled]
        told["queues"], failed = _from_queues(found, mids, dry_run=dry_run)
        told["unreached"] += failed
        if not dry_run:
            for begin in range(0, max(1, len(mids)), AT_ONCE):
                some = mids[begin : begin + AT_ONCE]
                answer = carry_out(found, {"do": "erase", "mids": some, "address": address or ""})
                told["notes"] += answer["notes"]
        if as_json:
            print_json(told)
        else:
            _show(told, dry_run=dry_run)
        if not stories:
            complain("the ledger knows no such message")
            raise typer.Exit(NOINPUT)
        if waiting or failed:
            raise typer.Exit(TEMPFAIL)


def _found(config: Config, address: str | None, mid: str | None) -> list[Story]:
    from mailpoller.cli.service import reader
    from mailpoller.ledgers.sqlite.values import sender_sum

    with reader(config) as ledger:
        if mid is not None:
            return [story for story in ledger.trace(mid.strip(), limit=1) if story.mid == mid.strip().lower()]
        wanted = (address or "").strip().casefold()
        senders = {wanted, sender_sum(wanted)}
        return [story for story in ledger.trace(wanted, limit=FOUND) if story.sender.casefold() in senders]


def _split(stories: list[Story]) -> tuple[list[Story], list[Story]]:
    settled = [story for story in stories if story.state == "settled"]
    return settled, [story for story in stories if story.state != "settled"]


def _from_queues(config: Config, mids: list[str], *, dry_run: bool) -> tuple[dict[str, int], list[str]]:
    """How many messages each SQLite queue held, and which could not be opened."""
    from mailpoller.sinks.sqlite.consumer import open_queue

    held: dict[str, int] = {}
    failed: list[str] = []
    for name, path in _files(config):
        if not path.exists():
            continue
        try:
            with open_queue(path) as opened:
                ids = opened.of_mids(mids)
                held[name] = len(ids if dry_run else opened.ack(ids, None))
        except TransientError as error:
            failed.append(f"queue {name}: {error}")
    return held, failed


def _files(config: Config) -> Iterator[tuple[str, Path]]:
    for name, block in _sinks(config):
        if block.type == "sqlite":
            yield name, block.path


def _sinks(config: Config) -> Iterator[tuple[str, Any]]:
    yield from config.queues.items()
    quarantines = {"quarantine": config.quarantine} | {
        f"quarantine of {name}": block for name, block in config.overrides.items()
    }
    yield from ((name, block) for name, block in quarantines.items() if block is not None and block.type != "queue")


def _unreached(config: Config) -> Iterator[str]:
    """What may hold traces, and what we do not write to."""
    for name, block in _sinks(config):
        if block.type != "sqlite":
            yield f"queue {name}: what was delivered to it (type {block.type})"
    from mailpoller.config.sections import BLOBS

    if (blobs := config.of(BLOBS)) is not None:
        yield f"octets that events refer to, in blobs: (type {blobs.type}), until they are kept no longer"
    yield "the mailboxes themselves, and whatever took messages from a queue"
    yield f"quarantined mail, below {config.service.state_directory}"
    yield "mail to this address in the outbox: mailpoller outbox list"
    yield "logs, which hold mids and no addresses, and back-ups of any of these"
    yield "free pages of SQLite files, until they are used again (VACUUM)"


def _show(told: dict[str, Any], *, dry_run: bool) -> None:
    verb = "would be erased" if dry_run else "erased"
    notes = "" if dry_run else f", {counted(told['notes'], 'note')} about them"
    typer.echo(f"{counted(told['messages'], 'message')}{notes} {verb} from the ledger")
    for name, count in told["queues"].items():
        typer.echo(f"{counted(count, 'message')} {verb} from queue {name}")
    if told["waiting"]:
        typer.echo(f"{counted(told['waiting'], 'message')} not settled yet: erase again when they are")
    typer.echo("not reached:")
    for one in told["unreached"]:
        typer.echo(f"  {one}")
