"""``mailpoller reconcile``: what a mailbox holds against what the ledger knows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, one_line, print_json, print_table
from mailpoller.cli.since import SinceOption, instant_of
from mailpoller.core.errors import MailpollerError, TransientError

if TYPE_CHECKING:
    from mailpoller.config import Config
    from mailpoller.core.message import Folder, MessageRef

PATIENCE_S = 60.0
"""So long the daemon is given to poll, before what it does not know counts as missing."""
NAMED = 1_000
"""Messages of a folder that are named."""


@dataclass(slots=True)
class Compared:
    """What came of one folder, in numbers; ``messages`` names what is missing, waits or was settled elsewhere.

    ``left_out``: unknown, and dated before what ``start`` wants. ``new``: unknown, and came after the last poll.
    """

    folder: str
    held: int = 0
    settled: int = 0
    waiting: int = 0
    elsewhere: int = 0
    left_out: int = 0
    new: int = 0
    missing: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)

    def name(self, what: str, uid: str, ref: MessageRef | None, mid: str) -> None:
        """Note one of the messages."""
        if len(self.messages) < NAMED:
            size, received = (None, None) if ref is None else (ref.size, ref.received)
            self.messages.append({"what": what, "uid": uid, "size": size, "received": received, "mid": mid})


def reconcile(
    config: ConfigOption,
    mailbox: Annotated[str, typer.Argument(metavar="MAILBOX", help="The mailbox's name.")],
    since: SinceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what a mailbox holds with what the ledger knows.

    Logs in once more and lists every folder that is polled, for reading only. A message that the ledger does not know
    is missing, unless it is older than what start wants, or so new that no poll has shown it: a running daemon
    is asked to poll first. A message that waits and is not in its folder any more is missing, too.

    \b
    Examples:
      mailpoller reconcile support
      mailpoller reconcile support --since 7d --json | jq '.folders[].missing'

    Exits with 0 only if nothing is missing, with 66 if something is, and with 75 if the mailbox cannot be looked at.
    """
    from mailpoller.cli.ending import run_loop
    from mailpoller.cli.service import entered, known_mailbox

    begin = instant_of(since)
    with explained():
        found = entered(config)
        known_mailbox(found, mailbox)
        if (reason := found.idle_reason(mailbox)) is not None:
            refuse(f"the mailbox {mailbox} is not polled: {reason}")
        folders = run_loop(_compared(found, mailbox, begin))
        missing = sum(folder.missing for folder in folders)
        if as_json:
            print_json({"ok": missing == 0, "mailbox": mailbox, "folders": [asdict(folder) for folder in folders]})
        else:
            _show(folders, missing)
        if missing:
            raise typer.Exit(NOINPUT)


async def _compared(config: Config, mailbox: str, since: datetime | None) -> list[Compared]:
    """Raises :class:`TransientError` if the mailbox cannot be looked at whole."""
    shown = await shown_by(config, mailbox)
    found = _compare_all(config, shown, since, {})
    doubtful = any(one.missing or one.new for one in found)
    if doubtful and await asyncio.to_thread(_polled_anew, config, mailbox):
        # What nobody knew may have come a moment ago, or left meanwhile: both is looked at once more. What was there
        # before that poll, and is not known after it, is missing, whatever the server's clock says of it.
        before = {folder.name: {ref.uid for ref in refs} for folder, refs in shown}
        shown = await shown_by(config, mailbox)
        found = _compare_all(config, shown, since, before)
    return found


def _compare_all(
    config: Config,
    shown: Sequence[tuple[Folder, list[MessageRef]]],
    since: datetime | None,
    before: Mapping[str, Collection[str]],
) -> list[Compared]:
    names = {folder.name: {ref.uid for ref in refs} for folder, refs in shown}
    return [_compare(config, folder, refs, names, since, before.get(folder.name)) for folder, refs in shown]


async def shown_by(config: Config, mailbox: str) -> list[tuple[Folder, list[MessageRef]]]:
    """Every folder that is polled with all that it shows, in one session of our own, which changes nothing."""
    from mailpoller.assembly.standins import built
    from mailpoller.core.component import Runtime
    from mailpoller.core.ports import Start
    from mailpoller.core.spool import Spool
    from mailpoller.engine.clock import SystemClock

    state = config.service.state_directory
    block = config.require(mailbox).model_copy(update={"mode": "shadow"})
    runtime = Runtime(clock=SystemClock(), spool=Spool(state / "spool"), state_directory=state)
    source = built(block, lambda: block.build(mailbox, runtime))
    session = await source.connect()
    try:
        shown: list[tuple[Folder, list[MessageRef]]] = []
        for name in await session.folders():
            folder = await session.open(name)
            refs: list[MessageRef] = []
            async for page in session.pending(folder, None, Start("all", dated=True)):
                refs += page.refs
                if page.partial:
                    raise TransientError(f"{name}: its listing contradicts what the server announced: ask again later")
            shown.append((folder, refs))
        return shown
    finally:
        try:
            await session.close()
        except MailpollerError:
            pass  # it was for reading only


def _compare(
    config: Config,
    folder: Folder,
    refs: Sequence[MessageRef],
    names: Mapping[str, Collection[str]],
    since: datetime | None,
    before: Collection[str] | None,
) -> Compared:
    """One folder. ``names``: what each folder shows. ``before``: the uids that were there before the last poll, if
    that is known."""
    from mailpoller.cli.service import reader
    from mailpoller.ledgers.sqlite.reconciling import alike, known, present, unsettled

    wanted = [ref for ref in refs if since is None or ref.received is None or ref.received >= since]
    result = Compared(folder.name, held=len(wanted))
    with reader(config) as ledger:
        numbered = present(ledger.connection, folder)
        if numbered is None or numbered.epoch != folder.epoch:
            why = "was never polled" if numbered is None else "was numbered anew since it was polled"
            raise TransientError(f"the folder {folder.name} {why}: poll it first, mailpoller poll {folder.mailbox}")
        about = known(ledger.connection, numbered.id, (ref.uid for ref in wanted))
        last_poll = ledger.last_polls().get(folder.mailbox)
        strangers = [ref for ref in wanted if ref.uid not in about]
        others = alike(ledger.connection, folder.mailbox, strangers, names)
        waiting = [] if since is not None else unsettled(ledger.connection, numbered.id)
    earliest = earliest_of(config.mailboxes[folder.mailbox].start, numbered.baseline_at)
    outcomes = Counter(one.what for one in about.values())
    by_uid = {ref.uid: ref for ref in wanted}
    result.outcomes = {what: count for what, count in outcomes.items() if what != "waiting"}
    for one in about.values():
        if one.what != "waiting":
            result.settled += 1
        elif one.uid in by_uid:
            result.waiting += 1
            result.name("waiting", one.uid, by_uid[one.uid], one.mid)
    for ref in strangers:
        if ref.uid in others:
            result.elsewhere += 1
            result.name("elsewhere", ref.uid, ref, others[ref.uid])
        elif ref.received is not None and ref.received < earliest:
            result.left_out += 1
        elif ref.uid not in before if before is not None else _is_new(ref, last_poll):
            result.new += 1
        else:
            result.missing += 1
            result.name("missing", ref.uid, ref, "")
    for one in waiting:
        if one.uid not in names[folder.name]:
            result.missing += 1
            result.name("missing", one.uid, None, one.mid)
    return result


def earliest_of(start: str, baseline_at: datetime) -> datetime:
    """Mail from before this is left out by ``start``."""
    if start == "all":
        return datetime.min.replace(tzinfo=UTC)
    if start.startswith("since:"):
        return datetime.fromisoformat(start.removeprefix("since:")).replace(tzinfo=UTC)
    return baseline_at - timedelta(seconds=1)


def _is_new(ref: MessageRef, last_poll: datetime | None) -> bool:
    return ref.received is not None and (last_poll is None or ref.received > last_poll)


def _polled_anew(config: Config, mailbox: str) -> bool:
    """True once a running daemon has polled the mailbox after now; False if none does in time."""
    from mailpoller.cli.service import ask

    begun = datetime.now(UTC).replace(microsecond=0)
    try:
        ask(config, {"do": "poll", "mailbox": mailbox}, seconds=5)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            report = ask(config, {"do": "status", "counts": False}, seconds=10)
            polled = next((box["last_poll_at"] for box in report["mailboxes"] if box["mailbox"] == mailbox), None)
            if polled is not None and datetime.fromisoformat(polled) > begun:
                return True
            time.sleep(0.5)
    except MailpollerError as error:
        complain(f"the daemon was not asked to poll: {error}")
    return False


def _show(folders: Sequence[Compared], missing: int) -> None:
    columns = ("folder", "held", "settled", "waiting", "elsewhere", "left out", "new", "missing")
    rows = [
        (one.folder, one.held, one.settled, one.waiting, one.elsewhere, one.left_out, one.new, one.missing)
        for one in folders
    ]
    print_table(columns, rows, empty="no folder is polled")
    named = [(one.folder, message) for one in folders for message in one.messages if message["what"] != "waiting"]
    if named:
        print_table(
            ("folder", "what", "uid", "received", "octets", "mid"),
            ((folder, m["what"], m["uid"], m["received"], m["size"], m["mid"]) for folder, m in named),
            empty="",
        )
    typer.echo(one_line("nothing is missing" if not missing else f"{counted(missing, 'message')} missing"))
