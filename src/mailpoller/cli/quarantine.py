"""``mailpoller quarantine``: what is held, and what becomes of it."""

from __future__ import annotations

import base64
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import DATAERR, IOERR, NOINPUT, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, print_fields, print_json, print_table, tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mailpoller.config import Config

quarantine = typer.Typer(
    help="Look at quarantined mail, and say what becomes of it.\n\n"
    "\b\nExamples:\n  mailpoller quarantine list --mailbox support --newer-than 1d\n"
    "  mailpoller quarantine retry --reason no-queue --dry-run\n  mailpoller quarantine release --queue support MID",
    no_args_is_help=True,
)

_IN_ONE_REQUEST = 10
"""Messages; but one alone where a queue is waited for, which may be slow."""
_SECONDS = 65
"""Longer than the daemon takes for a request, at the most."""


def _duration(text: str) -> timedelta:
    from mailpoller.core.literals import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


MidArgument = Annotated[str, typer.Argument(metavar="MID", help="The message's mid, or its id in the quarantine.")]
MidsArgument = Annotated[list[str] | None, typer.Argument(metavar="[MID]...", help="Mids, or ids in the quarantine.")]
SenderOption = Annotated[str, typer.Option("--sender", metavar="ADDRESS", help="Only of this address or domain.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="WORD", help="Only with this reason.")]
MailboxOption = Annotated[str, typer.Option("--mailbox", metavar="MAILBOX", help="Only of this mailbox.")]
OlderOption = Annotated[
    timedelta | None, typer.Option("--older-than", parser=_duration, metavar="AGE", help="Held for longer: 30d.")
]
NewerOption = Annotated[
    timedelta | None, typer.Option("--newer-than", parser=_duration, metavar="AGE", help="Held for less: 2h.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show which messages are meant, and do nothing.")]


def _wanted(
    mids: Sequence[str] | None, sender: str, reason: str, mailbox: str, older: timedelta | None, newer: timedelta | None
) -> dict[str, Any]:
    return {
        "ids": [mid.strip().lower() for mid in mids] if mids else None,
        "sender": sender,
        "reason": reason,
        "mailbox": mailbox,
        "older_than_s": None if older is None else older.total_seconds(),
        "newer_than_s": None if newer is None else newer.total_seconds(),
    }


def _ask(config: Config, request: Mapping[str, Any]) -> dict[str, Any]:
    from mailpoller.cli.service import carry_out

    return carry_out(config, request, seconds=_SECONDS)


def _found(config: Config, wanted: Mapping[str, Any], *, limit: int = 0) -> tuple[list[dict[str, Any]], bool]:
    answer = _ask(config, {"do": "quarantine-list", "limit": limit, **wanted})
    return answer["messages"], answer["more"]


@quarantine.command("list")
def list_(
    config: ConfigOption,
    mids: MidsArgument = None,
    sender: SenderOption = "",
    reason: ReasonOption = "",
    mailbox: MailboxOption = "",
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show what is held, the longest held first.

    \b
    Example:
      mailpoller quarantine list --reason auto-reply --newer-than 1d
    """
    from mailpoller.cli.service import entered

    with explained():
        wanted = _wanted(mids, sender, reason, mailbox, older_than, newer_than)
        found, more = _found(entered(config), wanted, limit=limit)
    if as_json:
        print_json({"messages": found, "more": more})
        return
    _table(found)
    if more:
        complain(f"there are more than {limit}: say --limit, or select fewer")


def _table(found: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (one["held_at"], one["mailbox"] or "?", one["reason"], one["sender"], one["subject"][:60], one["mid"])
        for one in found
    ]
    print_table(("held since", "mailbox", "reason", "sender", "subject", "mid"), rows, empty="nothing is held")


@quarantine.command()
def show(config: ConfigOption, mid: MidArgument, as_json: JsonOption = False) -> None:
    """Show all that is known of a held message. trace tells what happened to it.

    \b
    Example:
      mailpoller quarantine show 5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a
    """
    from mailpoller.cli.service import entered

    with explained():
        found, _ = _found(entered(config), _wanted([mid], "", "", "", None, None), limit=1)
        if not found:
            complain(f"the quarantine holds no message {mid}")
            raise typer.Exit(NOINPUT)
    if as_json:
        print_json(found[0])
        return
    print_fields({name.replace("_", " "): value for name, value in found[0].items()})


@quarantine.command()
def export(
    config: ConfigOption,
    mid: MidArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else: standard output.")
    ] = None,
) -> None:
    """Write a held message as it came, bit for bit. Open it with care: there is a reason why it is here.

    \b
    Example:
      mailpoller quarantine export 5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a -o mail.eml
    """
    from mailpoller.cli.service import entered

    with explained():
        found = entered(config)
        name = mid.strip().lower()
        if output is None:
            if sys.stdout.isatty():
                refuse("a terminal is no place for it: say --output FILE, or send it on with | or >")
            for piece in _pieces(found, name):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        pieces = list(_pieces(found, name))
        try:
            with open(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                file.writelines(pieces)
        except FileExistsError:
            refuse(f"{output} is there already, and is left as it is: say another --output")
        except OSError as error:
            complain(f"{output} cannot be written: {error.strerror or error}")
            raise typer.Exit(IOERR) from None


def _pieces(config: Config, name: str) -> Iterator[bytes]:
    offset = 0
    while True:
        answer = _ask(config, {"do": "quarantine-octets", "id": name, "offset": offset})
        piece = base64.b64decode(answer["octets"])
        offset += len(piece)
        yield piece
        if offset >= answer["size"] or not piece:
            return


@quarantine.command()
def release(
    config: ConfigOption,
    mids: MidsArgument = None,
    queue: Annotated[str, typer.Option("--queue", metavar="QUEUE", help="Else: its mailbox's default_queue.")] = "",
    sender: SenderOption = "",
    reason: ReasonOption = "",
    mailbox: MailboxOption = "",
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring held messages to a queue without judging them. Their events say who released them.

    A message leaves the quarantine when the queue has it. What its mailbox holds is left alone. Exits with 65 if some
    stay held, and says why. What is held for its attachments alone has been delivered: it is meant by its mid, or by
    --reason attachments.

    \b
    Examples:
      mailpoller quarantine release 5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a
      mailpoller quarantine release --queue support --sender @customer.example --dry-run
    """
    from mailpoller.cli.service import entered, known_queue

    with explained():
        found = entered(config)
        what: dict[str, Any] = {"do": "quarantine-release"}
        if queue:
            what["queue"] = known_queue(found, queue)
        wanted = _wanted(mids, sender, reason, mailbox, older_than, newer_than)
        _act(found, what, wanted, dry_run=dry_run, as_json=as_json)


@quarantine.command()
def retry(
    config: ConfigOption,
    mids: MidsArgument = None,
    sender: SenderOption = "",
    reason: ReasonOption = "",
    mailbox: MailboxOption = "",
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Judge held messages by today's rules, and do what these say: deliver, discard, or hold them further.

    A message leaves the quarantine when its queues have it. What its mailbox holds is left alone. Exits with 65 if
    some stay held, and says why. What is held for its attachments alone is meant by its mid, or by --reason
    attachments.

    \b
    Example:
      mailpoller quarantine retry --reason no-queue
    """
    from mailpoller.cli.service import entered

    with explained():
        wanted = _wanted(mids, sender, reason, mailbox, older_than, newer_than)
        _act(entered(config), {"do": "quarantine-retry"}, wanted, dry_run=dry_run, as_json=as_json)


@quarantine.command()
def discard(
    config: ConfigOption,
    mids: MidsArgument = None,
    sender: SenderOption = "",
    reason: ReasonOption = "",
    mailbox: MailboxOption = "",
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    dry_run: DryRunOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove held messages for good.

    \b
    Example:
      mailpoller quarantine discard --reason auto-reply --older-than 30d --yes
    """
    from mailpoller.cli.service import entered

    with explained():
        wanted = _wanted(mids, sender, reason, mailbox, older_than, newer_than)
        what = {"do": "quarantine-discard"}
        _act(entered(config), what, wanted, dry_run=dry_run, as_json=as_json, asking=not yes)


def _act(
    config: Config,
    what: Mapping[str, Any],
    wanted: Mapping[str, Any],
    *,
    dry_run: bool,
    as_json: bool,
    asking: bool = False,
) -> None:
    """Do it to all that are meant. What comes into the quarantine meanwhile is not meant."""
    if not any(value not in (None, "") for value in wanted.values()):
        refuse("say which messages: MID, --sender, --reason, --mailbox, --older-than or --newer-than")
    from mailpoller.core.removal import ATTACHMENTS

    if what["do"] != "quarantine-discard" and not wanted["ids"] and not wanted["reason"]:
        left = _ids(config, {**wanted, "reason": ATTACHMENTS})
        if left:
            complain(f"left out are {len(left):,} that their queues have but for attachments: --reason {ATTACHMENTS}")
        wanted = {**wanted, "but_reason": ATTACHMENTS}
    ids, shown = _all_meant(config, wanted)
    if dry_run:
        print_json({"messages": shown}) if as_json else _table(shown)
        if len(ids) > len(shown):
            complain(f"{len(ids):,} are meant, of which {len(shown):,} are shown")
        return
    if not ids:
        complain("nothing that is held is meant")
        raise typer.Exit(NOINPUT)
    if asking and not sys.stdin.isatty():
        refuse("there is nobody to ask: say --yes")
    if asking and not typer.confirm(f"Remove {counted(len(ids), 'message')} for good?"):
        raise typer.Exit
    results: list[dict[str, str]] = []
    several = _IN_ONE_REQUEST if what["do"] == "quarantine-discard" else 1
    try:
        with tally(len(ids), "message") as done:
            for start in range(0, len(ids), several):
                results += _ask(config, {**what, "ids": ids[start : start + several]})["results"]
                done(len(results))
    finally:
        if results:  # what is done is told, whatever comes between
            _tell(results, as_json=as_json)
    if any(one["outcome"] == "held" for one in results):
        raise typer.Exit(DATAERR)


def _tell(results: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    if as_json:
        print_json({"results": results})
        return
    rows = [(one.get("mid", one["id"]), one["outcome"], one["detail"]) for one in results]
    print_table(("mid", "outcome", "detail"), rows, empty="nothing")


def _all_meant(config: Config, wanted: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The ids of all, and the messages that have been held longest, as many as one answer lists."""
    shown, _ = _found(config, wanted, limit=1000)
    return _ids(config, wanted), shown


def _ids(config: Config, wanted: Mapping[str, Any]) -> list[str]:
    """Of all that are meant now. They are asked for in pieces, from the longest held on."""
    ids: list[str] = []
    beyond: Any = None
    while True:
        answer = _ask(config, {"do": "quarantine-ids", **wanted, "beyond": beyond})
        ids += answer["ids"]
        if (beyond := answer.get("beyond")) is None:
            return ids
