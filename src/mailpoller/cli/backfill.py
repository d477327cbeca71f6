"""``mailpoller backfill``: take what ``start`` left out."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mailpoller.cli.exits import complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, one_line, plain, print_json, print_table
from mailpoller.cli.reconcile import earliest_of, shown_by
from mailpoller.cli.since import SinceOption, instant_of
from mailpoller.core.errors import MailpollerError, TransientError

if TYPE_CHECKING:
    from mailpoller.cli.rehearsal import Fate
    from mailpoller.config import Config
    from mailpoller.core.message import Folder, MessageRef

EVERY_S = 10.0
"""A piece of the rate is taken so often, since each makes the mailbox poll."""
LARGEST_PIECE = 100
"""Messages of a piece at most: a request has a bound, and new mail waits for no more than these."""
WAITING = 2 * LARGEST_PIECE
"""No more is taken while so many that were taken have not come to their end: their queue is down, perhaps."""


@dataclass(slots=True)
class Found:
    """What of one folder was left out, in numbers.

    ``wanted``: to be taken. ``elsewhere``: a message of the same size and date was settled under another name.
    ``undated``: the server does not say when it came. ``taken``: due now; nothing is in a dry run.
    """

    folder: str
    held: int
    wanted: int = 0
    elsewhere: int = 0
    undated: int = 0
    taken: int = 0


Planned = list[tuple[Found, "Folder", list["MessageRef"]]]


def backfill(
    config: ConfigOption,
    mailbox: Annotated[str, typer.Argument(metavar="MAILBOX", help="The mailbox's name.")],
    since: SinceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be taken and where it would go.")
    ] = False,
    rate: Annotated[
        int, typer.Option("--rate", metavar="N", min=1, max=600, help="Messages that are taken in a minute.")
    ] = 60,
    as_json: JsonOption = False,
) -> None:
    """Take the mail that start left out at the first run.

    Logs in once more and lists every folder that is polled, for reading only. What the server received since then and
    was left out, the running daemon takes piece by piece, beside new mail, and treats it as any other, except that
    nobody is sent an acknowledgement. Ended in the middle, the same command goes on: nothing is taken twice.

    --dry-run fetches it all, asks the rules, and changes nothing; it needs no daemon.

    \b
    Examples:
      mailpoller backfill support --since 30d --dry-run
      mailpoller backfill support --since 2026-10-01 --rate 120

    Exits with 65 where the server does not tell when a message came (POP3), and with 75 if the mailbox cannot be
    looked at or no daemon takes it.
    """
    from mailpoller.cli.ending import run_loop
    from mailpoller.cli.service import entered, known_mailbox

    begin = instant_of(since)
    if begin is None:
        refuse("say since when: --since 30d")
    with explained():
        found = entered(config)
        known_mailbox(found, mailbox)
        if (reason := found.idle_reason(mailbox)) is not None:
            refuse(f"the mailbox {mailbox} is not polled: {reason}")
        shown = run_loop(shown_by(found, mailbox))
        planned = [_plan(found, folder, refs, begin) for folder, refs in shown]
        total = sum(one.wanted for one, _, _ in planned)
        undated = sum(one.undated for one, _, _ in planned)
        if undated and not total:
            raise MailpollerError(
                f"{counted(undated, 'message')} of {mailbox} have no date of arrival: its server does not tell which "
                "came since then, so there is no backfill"
            )
        if dry_run:
            _rehearse(found, mailbox, planned, as_json=as_json)
        else:
            try:
                _take(found, mailbox, planned, rate)
            finally:
                taken = sum(one.taken for one, _, _ in planned)
                if taken < total:
                    known = f"of {taken:,} of {counted(total, 'message')} it is known that they were taken"
                    complain(f"{known}; the same command takes the rest")
        _show(mailbox, [one for one, _, _ in planned], dry_run=dry_run, as_json=as_json)


def _plan(
    config: Config, folder: Folder, refs: Sequence[MessageRef], since: datetime
) -> tuple[Found, Folder, list[MessageRef]]:
    """What is to be taken of a folder. Raises :class:`TransientError` where its first run is not through yet."""
    from mailpoller.cli.service import reader
    from mailpoller.ledgers.sqlite.reconciling import alike, known, present

    result = Found(folder.name, held=len(refs))
    names = {folder.name: {ref.uid for ref in refs}}
    with reader(config) as ledger:
        numbered = present(ledger.connection, folder)
        if numbered is None or numbered.epoch != folder.epoch or not numbered.begun:
            raise TransientError(
                f"the folder {folder.name} was not polled as it is now: poll it first, mailpoller poll {folder.mailbox}"
            )
        about = known(ledger.connection, numbered.id, (ref.uid for ref in refs))
        earliest = earliest_of(config.mailboxes[folder.mailbox].start, numbered.baseline_at)
        # What came later and is not known is new: the next poll takes it.
        left = [
            ref
            for ref in refs
            if (about[ref.uid].what == "skipped" if ref.uid in about else not ref.received or ref.received < earliest)
        ]
        dated = [ref for ref in left if ref.received is not None and ref.received >= since]
        others = alike(ledger.connection, folder.mailbox, [ref for ref in dated if ref.uid not in about], names)
    wanted = [ref for ref in dated if ref.uid not in others]
    result.wanted, result.elsewhere = len(wanted), len(others)
    result.undated = sum(ref.received is None for ref in left)
    return result, folder, wanted


def _take(config: Config, mailbox: str, planned: Planned, rate: int) -> None:
    """Have the daemon take it all, no more than ``rate`` a minute."""
    from mailpoller.cli.service import ask
    from mailpoller.ledgers.sqlite.values import seconds

    piece = max(1, min(LARGEST_PIECE, round(rate * EVERY_S / 60)))
    further = False
    for found, folder, wanted in planned:
        open_ones: set[str] = set()
        for at in range(0, len(wanted), piece):
            if further:
                time.sleep(piece * 60 / rate)
            refs = wanted[at : at + piece]
            _wait(config, folder, open_ones)
            request = {
                "do": "backfill",
                "mailbox": mailbox,
                "folder": folder.name,
                "epoch": folder.epoch,
                "further": further,
                "refs": [(ref.uid, ref.size, seconds(ref.received)) for ref in refs],
            }
            found.taken += ask(config, request)["taken"]
            open_ones.update(ref.uid for ref in refs)
            further = True


def _wait(config: Config, folder: Folder, open_ones: set[str]) -> None:
    """Until few enough of those that were taken wait; what has come to its end goes from ``open_ones``."""
    said = False
    while len(open_ones) >= WAITING:
        open_ones &= _waiting(config, folder, open_ones)
        if len(open_ones) < WAITING:
            return
        if not said:
            complain(f"{counted(len(open_ones), 'message')} of those that were taken wait: see mailpoller status")
            said = True
        time.sleep(EVERY_S)


def _waiting(config: Config, folder: Folder, uids: Collection[str]) -> set[str]:
    from mailpoller.cli.service import reader
    from mailpoller.ledgers.sqlite.reconciling import known, present

    with reader(config) as ledger:
        numbered = present(ledger.connection, folder)
        if numbered is None or numbered.epoch != folder.epoch:
            raise TransientError(f"the folder {folder.name} was numbered anew meanwhile")
        return {uid for uid, one in known(ledger.connection, numbered.id, uids).items() if one.what == "waiting"}


def _rehearse(config: Config, mailbox: str, planned: Planned, *, as_json: bool) -> None:
    """Say a line for each message. Raises :class:`TransientError` if not all could be looked through."""
    from mailpoller.cli.dry_run import line_of
    from mailpoller.cli.ending import run_loop
    from mailpoller.cli.rehearsal import rehearsal

    names = {(folder.name, ref.uid) for _, folder, wanted in planned for ref in wanted}

    def tell(fate: Fate) -> None:
        if (fate.folder, fate.uid) in names:
            line = json.dumps(asdict(fate), ensure_ascii=False, default=plain) if as_json else one_line(line_of(fate))
            typer.echo(line)

    if not names:
        return
    with rehearsal(config, tell) as (rehearsed, clock, bystander):

        async def rehearse() -> bool:
            from mailpoller.app import assemble

            ledger = await rehearsed.ledger.open(clock)
            try:
                for _, _, wanted in planned:
                    await ledger.take_up(wanted)
            finally:
                await ledger.close()
            async with assemble(rehearsed, only=mailbox, clock=clock, bystander=bystander) as app:
                return await app.drain()

        if not run_loop(rehearse()):
            raise TransientError(f"not all of {mailbox} could be looked through; nothing was changed")


def _show(mailbox: str, folders: Sequence[Found], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"ok": True, "mailbox": mailbox, "dry_run": dry_run, "folders": [asdict(one) for one in folders]})
        return
    columns = ("folder", "held", "wanted", "elsewhere", "undated", "taken")
    rows = ((one.folder, one.held, one.wanted, one.elsewhere, one.undated, one.taken) for one in folders)
    print_table(columns, rows, empty="no folder is polled")
    wanted = counted(sum(one.wanted for one in folders), "message")
    taken = counted(sum(one.taken for one in folders), "message")
    typer.echo(one_line(f"{wanted} would be taken; nothing was changed" if dry_run else f"{taken} taken"))
