"""``mailpoller erase``: a person's traces go, as far as we can reach them, and the rest is named."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, TEMPFAIL, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, print_json, tally
from mailpoller.core.errors import TransientError

if TYPE_CHECKING:
    from mailpoller.config import Config
    from mailpoller.core.ports import Story

AT_ONCE = 500
"""Messages that the daemon is asked to erase at once."""
DISCARDED = 100
"""The same of quarantined mail."""
FOUND = 100_000
"""Messages of one sender that are looked for at once; when these are erased, the rest is."""


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
    ids, by which repeats are recognised, stay. SQLite queues and the quarantine give up the messages, and mail that was
    handed in and sent forgets the address. What cannot be reached is named. It goes on piece by piece until
    nothing is left; ended in the middle, the same command does the rest.

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
    if address is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+", address.strip()):
        refuse("--address wants one mail address, written alone: somebody@example.com")
    if not (dry_run or yes) and not sys.stdin.isatty():
        refuse("there is nobody to ask: say --yes, or --dry-run")
    with explained():
        found = entered(config)
        stories = _found(found, address, mid)
        settled, waiting = _split(stories)
        told: dict[str, Any] = {"messages": len(settled), "waiting": len(waiting), "notes": 0, "queues": {}}
        told |= {"quarantine": 0, "outbox": 0, "outbox_waiting": 0}
        told["unreached"] = [*_unreached(found)]
        held = _held(found, address, mid)
        counted_only = carry_out(found, {"do": "erase", "mids": [], "address": address or "", "dry_run": True})
        told |= {key: counted_only[key] for key in ("outbox", "outbox_waiting")} | {"quarantine": len(held)}
        traces = stories or held or told["outbox"]
        question = f"Erase {counted(len(settled), 'message')}, {len(held):,} of them or others in quarantine?"
        if traces and not (dry_run or yes) and not typer.confirm(question):
            raise typer.Exit
        mids = [story.mid for story in settled]
        if dry_run:
            told["queues"], failed = _from_queues(found, mids, dry_run=True)
        else:
            failed = _from_queues_and_ledger(found, mids, partial(_found, found, address, mid), address, told)
        told["unreached"] += failed
        if not dry_run:
            told["quarantine"], left = _from_quarantine(found, held, partial(_held, found, address, mid))
            if left:
                failed.append(f"quarantine: {counted(left, 'message')} it did not give up")
                told["unreached"].append(failed[-1])
        if as_json:
            print_json(told)
        else:
            _show(told, dry_run=dry_run)
            if dry_run and len(stories) >= FOUND:
                complain(f"there may be more: {FOUND:,} were looked at, and all are erased")
        if not traces:
            complain("nothing is known of that")
            raise typer.Exit(NOINPUT)
        if waiting or failed or told["outbox_waiting"]:
            raise typer.Exit(TEMPFAIL)


def _from_queues_and_ledger(
    config: Config, mids: list[str], others: Callable[[], list[Story]], address: str | None, told: dict[str, Any]
) -> list[str]:
    """Erase these, and then what ``others`` finds, until nothing is left: why some could not be. A piece leaves the
    queues first, so that the ledger names what is left wherever this ends. ``told``: is added to."""
    from mailpoller.cli.service import carry_out

    failed: dict[str, None] = {}
    told["messages"], outbox, tried = 0, True, set[str]()
    while True:
        with tally(len(mids), "message") as done:
            for begin in range(0, max(1, len(mids)), AT_ONCE):
                some = mids[begin : begin + AT_ONCE]
                held, why = _from_queues(config, some, dry_run=False)
                failed |= dict.fromkeys(why)
                for name, count in held.items():
                    told["queues"][name] = told["queues"].get(name, 0) + count
                answer = carry_out(config, {"do": "erase", "mids": some, "address": address or "", "outbox": outbox})
                told["notes"] += answer["notes"]
                told["messages"] += len(some)
                outbox = False
                done(begin + len(some))
        tried.update(mids)
        if address is None or len(mids) < AT_ONCE:
            return list(failed)
        mids = [story.mid for story in _split(others())[0] if story.mid not in tried]
        if not mids:
            return list(failed)


def _found(config: Config, address: str | None, mid: str | None) -> list[Story]:
    from mailpoller.cli.service import reader
    from mailpoller.ledgers.sqlite.values import sender_sum

    with reader(config) as ledger:
        if mid is not None:
            return [story for story in ledger.trace(mid.strip(), limit=1) if story.mid == mid.strip().lower()]
        wanted = (address or "").strip().casefold()
        senders = {wanted, sender_sum(wanted)}
        return [story for story in ledger.trace(wanted, limit=FOUND) if story.sender.casefold() in senders]


def _held(config: Config, address: str | None, mid: str | None) -> list[str]:
    """The ids in the quarantine of mail that is from this address, or is this message."""
    from mailpoller.cli.service import carry_out

    which = {"sender": (address or "").strip()} if mid is None else {"ids": [mid.strip().lower()]}
    return [str(one) for one in carry_out(config, {"do": "quarantine-ids", **which})["ids"]]


def _from_quarantine(config: Config, ids: list[str], others: Callable[[], list[str]]) -> tuple[int, int]:
    """Let it go: how many there were, and how many are there still. ``others``: those that are there now, of which
    the daemon tells so many at once and no more."""
    from mailpoller.cli.service import carry_out

    gone = 0
    while ids:
        before = gone
        for begin in range(0, len(ids), DISCARDED):
            some = ids[begin : begin + DISCARDED]
            results = carry_out(config, {"do": "quarantine-discard", "ids": some})["results"]
            gone += sum(one["outcome"] == "discarded" for one in results)
        ids = others()
        if gone == before:
            break
    return gone, len(ids)


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
    yield "logs, which hold mids and no addresses, and back-ups of any of these"
    yield "free pages of SQLite files, until they are used again (VACUUM)"


def _show(told: dict[str, Any], *, dry_run: bool) -> None:
    verb = "would be erased" if dry_run else "erased"
    notes = "" if dry_run else f", {counted(told['notes'], 'note')} about them"
    typer.echo(f"{counted(told['messages'], 'message')}{notes} {verb} from the ledger")
    for name, count in told["queues"].items():
        typer.echo(f"{counted(count, 'message')} {verb} from queue {name}")
    typer.echo(f"{counted(told['quarantine'], 'message')} {verb} from the quarantine")
    typer.echo(f"the address {verb} from {counted(told['outbox'], 'mail')} that was handed in to be sent")
    if told["outbox_waiting"]:
        typer.echo(f"{counted(told['outbox_waiting'], 'mail')} is still to be sent: mailpoller outbox list")
    if told["waiting"]:
        typer.echo(f"{counted(told['waiting'], 'message')} not settled yet: erase again when they are")
    typer.echo("not reached:")
    for one in told["unreached"]:
        typer.echo(f"  {one}")
