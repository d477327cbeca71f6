"""``mailpoller queue``: look into an SQLite queue, take, acknowledge and return its messages; adopt what lies in a
queue's place."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import age, counted, one_line, plain, print_fields, print_json, print_table, seen
from mailpoller.core.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mailpoller.core.component import Component, Preparation
    from mailpoller.sinks.sqlite.consumer import Entry, Head, Held, Queue

FOLLOWED_S = 1.0
"""Between two looks of ``peek --follow``."""

queue = typer.Typer(
    help="Look into an SQLite queue, and take messages from it.\n\n"
    "\b\nA consumer in three lines of shell:\n  mailpoller queue take support --count 10 --for 5m > batch.jsonl\n  "
    "your-program < batch.jsonl || exit\n  jq -r .delivery_id batch.jsonl | xargs -r mailpoller queue ack support "
    "--lease $(jq -r .lease batch.jsonl | head -1)",
    no_args_is_help=True,
)

NameArgument = Annotated[
    str, typer.Argument(metavar="QUEUE", help="A queue of the configuration, or the path of its file.")
]
LeaseOption = Annotated[
    str | None, typer.Option("--lease", help="The lease that take printed; without it, whoever has them.")
]
IdsArgument = Annotated[list[str], typer.Argument(metavar="DELIVERY_ID", help="As list and take print them.")]


def _duration(text: str) -> timedelta:
    from mailpoller.core.literals import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@contextmanager
def _opened(config: Path, name: str) -> Iterator[Queue]:
    """The queue ``name`` of the configuration; a name with a slash or a dot is the file itself, and needs none."""
    from mailpoller.cli.identity import work_as_owner_of
    from mailpoller.cli.service import denied
    from mailpoller.sinks.sqlite.consumer import open_queue

    with explained():
        path = Path(name) if "/" in name or "." in name else _configured(config, name)
        work_as_owner_of(path)  # of a file that no configuration names, or that lies elsewhere
        if denied(path, os.R_OK | os.W_OK):
            raise TransientError(f"{path}: permission denied; members of the queue's group may use it")
        if not path.exists():
            complain(f"there is no queue at {path}" + ("" if path == Path(name) else "; its first message makes it"))
            raise typer.Exit(NOINPUT)
        with open_queue(path) as opened:
            yield opened


def _configured(config: Path, name: str) -> Path:
    from mailpoller.cli.service import entered, known_queue

    found = entered(config)
    block = found.queues[known_queue(found, name)]
    if block.type != "sqlite":
        refuse(f"the queue {name} is of type {block.type}; only those of type sqlite can be looked into")
    path: Path = block.path  # type: ignore[attr-defined]
    return path


@queue.command("list")
def list_(
    name: NameArgument,
    config: ConfigOption,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 50,
    state: Annotated[
        Literal["ready", "taken"] | None, typer.Option("--state", help="Only those that are ready, or taken.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List messages in the order in which they would be taken."""
    with _opened(config, name) as opened:
        entries, counts = opened.list(limit, state), opened.counts()
        heads = opened.heads(entries)
    if as_json:
        print_json([_entry(entry) | _head(heads.get(entry.seq)) for entry in entries])
        return
    now = datetime.now(UTC)
    rows = [
        (entry.delivery_id, entry.state, age(entry.arrived_at, now), *_head(heads.get(entry.seq)).values(),
         entry.reason, entry.topic, entry.priority, entry.tags, entry.attempts)
        for entry in entries
    ]  # fmt: skip
    columns = (
        "delivery id", "state", "age", "mailbox", "sender", "subject", "reason", "topic", "priority", "tags", "taken"
    )  # fmt: skip
    print_table(columns, rows, empty=f"{name} has nothing {state}" if state else f"{name} is empty")
    oldest = "" if counts.oldest_at is None else f"; the oldest came {age(counts.oldest_at, now)} ago"
    words = f"{counts.ready} ready, {counts.taken} taken, {counts.acknowledged} acknowledged{oldest}"
    typer.echo(words, err=True)


@queue.command()
def peek(
    name: NameArgument,
    config: ConfigOption,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="How many that are there already.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the messages that came last, and with --follow those that come. Nothing is taken.

    What comes and is acknowledged within a second is not seen.

    \b
    Examples:
      mailpoller queue peek support --follow
      mailpoller queue peek support -n 0 -f --json | jq -r .subject
    """
    with _opened(config, name) as opened, _interrupted() if follow else nullcontext(Event()) as interrupted:
        found = opened.latest(max(1, limit))
        last = found[-1].seq if found else 0
        found = found if limit else ()
        while True:
            heads = opened.heads(found)
            for entry in found:
                last = entry.seq
                _peeked(entry, heads.get(entry.seq), as_json=as_json)
            if not follow:
                break
            if interrupted.wait(0 if found else FOLLOWED_S):
                raise KeyboardInterrupt
            found = opened.after(last)


@contextmanager
def _interrupted() -> Iterator[Event]:
    """Set by Ctrl-C, wherever it comes: an exception might come where Python can only ignore it."""
    told = Event()
    former = signal.signal(signal.SIGINT, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, former)


def _peeked(entry: Entry, head: Head | None, *, as_json: bool) -> None:
    told = _entry(entry) | _head(head)
    if as_json:
        typer.echo(seen(json.dumps(told, default=plain, ensure_ascii=False)))
    else:
        words = (entry.arrived_at.isoformat(timespec="seconds"), *_head(head).values(), entry.delivery_id)
        typer.echo("  ".join(one_line(word) for word in words))
    sys.stdout.flush()


@queue.command()
def show(
    name: NameArgument,
    identifier: Annotated[str, typer.Argument(help="A delivery id, a mid, or a number in the queue.")],
    config: ConfigOption,
    octets: Annotated[bool, typer.Option("--octets", help="Write the raw message to standard output instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one message: its event, or its raw octets.

    \b
    Examples:
      mailpoller queue show support 1
      mailpoller queue show support 1 --json | jq .event.data.subject
      mailpoller queue show support 1 --octets > mail.eml
    """
    with _opened(config, name) as opened:
        held = opened.show(identifier)
        if octets:
            content = held.octets()
            if content is None:
                complain(f"{name} does not hold the raw octets (payload: raw, or raw: true)")
                raise typer.Exit(NOINPUT)
            sys.stdout.buffer.write(content)
            return
    if as_json:
        print_json(_held(held))
        return
    event = json.loads(held.event)
    print_fields(
        _entry(held.entry)
        | {f"event.{key}": value for key, value in event.items() if key != "data"}
        | {f"data.{key}": _brief(value) for key, value in event["data"].items() if value not in (None, "", [], {})}
    )


@queue.command()
def take(
    name: NameArgument,
    config: ConfigOption,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many at most.")] = 1,
    duration: Annotated[
        timedelta,
        typer.Option(
            "--for",
            parser=_duration,
            metavar="DURATION",
            show_default="5m",
            help="How long before others may take them.",
        ),
    ] = timedelta(minutes=5),
    taker: Annotated[str, typer.Option("--taker", help="A name for who takes.")] = "mailpoller queue take",
) -> None:
    """Take messages, one JSON object a line.

    Each has the lease to acknowledge it by. What is not acknowledged in time is there for the next taker.
    Exits with 0 also if nothing is ready.
    """
    with _opened(config, name) as opened:
        taken = opened.take(count, duration=duration, taker=taker)
    for held in taken.messages:
        typer.echo(json.dumps({"lease": taken.token, **_held(held)}, ensure_ascii=False, default=plain))
    if not taken.messages:
        complain(f"{name} has nothing ready")


@queue.command()
def ack(name: NameArgument, delivery_ids: IdsArgument, config: ConfigOption, lease: LeaseOption = None) -> None:
    """Acknowledge messages: they are done and leave the queue.

    Exits with 66 if one of them is not there any more, or was taken by another meanwhile.
    """
    with _opened(config, name) as opened:
        _report("acknowledged", delivery_ids, opened.ack(delivery_ids, lease))


@queue.command("return")
def return_(
    name: NameArgument,
    delivery_ids: IdsArgument,
    config: ConfigOption,
    lease: LeaseOption = None,
    delay: Annotated[
        timedelta,
        typer.Option(
            "--delay", parser=_duration, metavar="DURATION", show_default="0s", help="Before they can be taken again."
        ),
    ] = timedelta(0),
) -> None:
    """Give messages back, to be taken again.

    Exits with 66 if one of them is not there any more, or was taken by another meanwhile.
    """
    with _opened(config, name) as opened:
        _report("returned", delivery_ids, opened.return_(delivery_ids, lease, delay=delay))


@queue.command()
def adopt(
    config: ConfigOption,
    name: Annotated[
        str,
        typer.Argument(metavar="QUEUE", help="A queue of the configuration, of any type; or as the alert names it."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Begin anew with what lies in the place of a queue that vanished.

    A queue whose file or directory is gone, is another, or is an older copy is down until it is back, or until this
    is said. What was delivered to the one that vanished is not brought again by itself: redeliver --queue brings
    it. Exits with 65 if there is nothing to adopt.

    \b
    Example:
      mailpoller queue adopt support
    """
    from mailpoller.cli.service import carry_out, entered, known_queue

    with explained():
        found = entered(config)
        if name.split()[0] not in ("quarantine", "notices", "blobs:"):
            known_queue(found, name)
        answer = carry_out(found, {"do": "adopt-queue", "queue": name})
    if as_json:
        print_json({"queue": name, **answer})
        return
    typer.echo(f"{name} begins anew with what is there")
    if answer["receipts"]:
        typer.echo(
            f"the ledger noted {counted(answer['receipts'], 'receipt')} of the one before, from "
            f"{answer['first_at']} to {answer['last_at']}; none of them is brought again by itself: mailpoller "
            f"redeliver --queue {name} --since WHEN brings them"
        )


@queue.command()
def create(
    config: ConfigOption,
    name: Annotated[str, typer.Argument(metavar="QUEUE", help="A queue of the configuration.")],
    print_: Annotated[
        bool,
        typer.Option("--print", help="Print the statements, with the rights that the service needs; do nothing."),
    ] = False,
) -> None:
    """Make what a queue needs on its server, such as the tables of PostgreSQL.

    As the role of the queue's block, which needs the right to for this once; or print it for whoever has that right.

    \b
    Example:
      mailpoller queue create support --print | psql mail
    """
    from mailpoller.cli.service import entered, known_queue

    with explained():
        found = entered(config)
        name = known_queue(found, name)
        block = found.queues[name]
        wanted = block.preparation(name)
        if wanted is None:
            refuse(f"the queue {name} is of type {block.type}, of which nothing is made beforehand")
        prepared(block, name, wanted, print_=print_)


def prepared(block: Component, name: str, wanted: Preparation, *, print_: bool) -> None:
    """Make what a block needs on its server, or print the statements."""
    from mailpoller.config.extras import require_extras

    if print_:
        typer.echo(wanted.statements, nl=False)
        return
    require_extras(block)
    wanted.make()
    typer.echo(f"{name} has {wanted.name}")


def _report(what: str, wanted: Sequence[str], done: Sequence[str]) -> None:
    for identifier in done:
        typer.echo(f"{what} {identifier}")
    if left := [identifier for identifier in wanted if identifier not in set(done)]:
        complain(f"not {what} (not in the queue, or taken by another): {', '.join(left)}")
        raise typer.Exit(NOINPUT)


def _entry(entry: Entry) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(entry)


def _head(head: Head | None) -> dict[str, str]:
    return {name: getattr(head, name, "") for name in ("mailbox", "sender", "subject")}


def _held(held: Held) -> dict[str, Any]:
    path = None if held.octets_path is None else str(held.octets_path)
    return {**_entry(held.entry), "octets_path": path, "event": json.loads(held.event)}


def _brief(value: Any) -> str:
    """A value on one line of sensible length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}… ({len(text)} characters)"
