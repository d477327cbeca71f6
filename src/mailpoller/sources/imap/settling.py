"""Dispositions on the server: flags, moves, deletions, in sets; and what each refusal means."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Literal

from mailpoller.core.delivery import Disposition
from mailpoller.sources.imap.names import quote_name, uid_set, uid_sets
from mailpoller.sources.imap.protocol import ImapProtocol, Mailbox
from mailpoller.sources.imap.responses import Fetched, Status

State = tuple[Literal["applied", "failed", "pending"], str]
APPLIED: State = ("applied", "")

_NO_SUCH_FOLDER = {"TRYCREATE", "NONEXISTENT"}
_FOR_ALL_ALIKE = {
    "TRYCREATE",
    "NONEXISTENT",
    "NOPERM",
    "OVERQUOTA",
    "CANNOT",
    "READ-ONLY",
    "CLOSED",
    "UNAVAILABLE",
    "LIMIT",
}
_PASSING_CODES = {"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "EXPUNGEISSUED", "CLOSED"}
_PASSING_WORDS = ("try again", "temporar", "timeout", "timed out", "unavailable")

Find = Callable[[str], Coroutine[None, None, tuple[str, bool]]]
"""The wire's name of a folder that an operator named, and whether it exists."""


async def dispose(
    protocol: ImapProtocol, mailbox: Mailbox, uids: Sequence[int], disposition: Disposition, folder: str, find: Find
) -> dict[int, State]:
    """Carry out one disposition for ``uids`` (ascending) of ``mailbox``, whose wire name is ``folder``.

    Idempotent: a message that has left the folder is ``applied``. Raises :class:`SessionLost`; nothing is known then.
    """
    if disposition.leaves:
        return dict.fromkeys(uids, APPLIED)
    if (refused := objection(mailbox, protocol.offers("MOVE"), disposition)) is not None:
        return dict.fromkeys(uids, refused)
    states: dict[int, State] = dict.fromkeys(uids, APPLIED)
    flags = [*(["\\Seen"] if disposition.seen else []), *disposition.flags]
    if flags:
        await _store(protocol, mailbox, uids, flags, states)
    left = [uid for uid in uids if states[uid] == APPLIED]
    if disposition.move and left:
        await _move(protocol, mailbox, left, disposition.move, folder, find, states)
    elif disposition.delete and left:
        await _expunge(protocol, mailbox, left, states)
    return states


def objection(mailbox: Mailbox, may_move: bool, disposition: Disposition) -> State | None:
    """Why the folder that is selected cannot take this disposition, as far as SELECT tells; None if it can."""
    if mailbox.read_only:
        return "failed", "the server opens the folder read-only"
    allowed = mailbox.permanent_flags
    if allowed is None:  # not told: everything can be changed (RFC 3501 section 7.1)
        return None
    wanted = [*(["\\Seen"] if disposition.seen else []), *disposition.flags]
    if disposition.delete or (disposition.move and not may_move):
        wanted.append("\\Deleted")
    for flag in wanted:
        if flag.lower() not in allowed and (flag.startswith("\\") or "\\*" not in allowed):
            return "failed", f"the folder does not allow the flag {flag}"
    return None


async def _store(
    protocol: ImapProtocol, mailbox: Mailbox, uids: Sequence[int], flags: Iterable[str], states: dict[int, State]
) -> None:
    await _each(
        protocol, mailbox, uids, states, lambda piece: ("STORE", piece, "+FLAGS.SILENT", f"({' '.join(flags)})")
    )


async def _move(
    protocol: ImapProtocol,
    mailbox: Mailbox,
    uids: Sequence[int],
    target: str,
    folder: str,
    find: Find,
    states: dict[int, State],
) -> None:
    wire, exists = await find(target)
    if wire == folder:
        states.update(dict.fromkeys(uids, ("failed", "the target of the move is the folder itself")))
        return
    if not exists and (refused := await _create(protocol, wire)) is not None:
        states.update(dict.fromkeys(uids, refused))
        return
    verb = "MOVE" if protocol.offers("MOVE") else "COPY"
    refusals = await _each(protocol, mailbox, uids, states, lambda piece: (verb, piece, quote_name(wire)))
    if any(status.code in _NO_SUCH_FOLDER for status in refusals.values()):
        # It was there before and somebody removed it: make it anew and try once more (RFC 3501 section 6.4.7).
        again = [uid for uid, status in refusals.items() if status.code in _NO_SUCH_FOLDER]
        if (refused := await _create(protocol, wire)) is not None:
            states.update(dict.fromkeys(again, refused))
        else:
            states.update(dict.fromkeys(again, APPLIED))
            await _each(protocol, mailbox, again, states, lambda piece: (verb, piece, quote_name(wire)))
    if verb == "COPY":
        # RFC 6851 section 3.3 without MOVE. Killed between the COPY's answer and the STORE, the copy is there and the
        # original is not marked: the next attempt copies again, and the mail is twice in the target. It
        # cannot be told from a copy that never happened without searching the target, where readers move mail on.
        # Killed between STORE and EXPUNGE, it is copied again too, unless a human has expunged it. Never lost.
        copied = [uid for uid in uids if states[uid] == APPLIED]
        if copied:
            await _expunge(protocol, mailbox, copied, states)


async def _create(protocol: ImapProtocol, wire: str) -> State | None:
    status = (await protocol.run("CREATE", quote_name(wire))).status
    if not status.ok and status.code != "ALREADYEXISTS":
        # Another session may have been faster, and not every server has the code: ask.
        return None if await _exists(protocol, wire) else _refused(status)
    await protocol.run("SUBSCRIBE", quote_name(wire))  # so that people see it; no matter if refused
    return None


async def _exists(protocol: ImapProtocol, wire: str) -> bool:
    return bool((await protocol.run("LIST", '""', quote_name(wire), wants=(b"LIST",))).data)


async def _expunge(protocol: ImapProtocol, mailbox: Mailbox, uids: Sequence[int], states: dict[int, State]) -> None:
    """Mark deleted and expunge these and no others (RFC 4315). A bare EXPUNGE would take what others have marked, so
    without UIDPLUS marking is all that is done."""
    if protocol.offers("UIDPLUS"):
        # Sent together, to be as short as can be between the two; expunging what is not marked does nothing.
        requests = []
        for _, piece in uid_sets(uids):
            requests.append(protocol.submit("STORE", piece, "+FLAGS.SILENT", "(\\Deleted)", within=mailbox))
            requests.append(protocol.submit("EXPUNGE", piece, within=mailbox))
        if all([(await request.answer()).status.ok for request in requests]):
            return
    refusals = await _each(
        protocol, mailbox, uids, states, lambda piece: ("STORE", piece, "+FLAGS.SILENT", "(\\Deleted)")
    )
    marked = [uid for uid in uids if uid not in refusals]
    if not marked:
        return
    if protocol.offers("UIDPLUS"):
        await _each(protocol, mailbox, marked, states, lambda piece: ("EXPUNGE", piece))
    else:
        reason = "marked as deleted; the server cannot expunge single messages (no UIDPLUS)"
        states.update(dict.fromkeys(marked, ("applied", reason)))


async def _each(
    protocol: ImapProtocol,
    mailbox: Mailbox,
    uids: Sequence[int],
    states: dict[int, State],
    command: Callable[[str], tuple[str, ...]],
) -> dict[int, Status]:
    """Send the command for all; where a set is refused, one by one, so that one message does not stop the others.

    Notes in ``states`` what failed and gives the refusals.
    """
    requests = [(piece, protocol.submit(*command(words), within=mailbox)) for piece, words in uid_sets(uids)]
    refusals: dict[int, Status] = {}
    doubtful: list[int] = []
    for piece, request in requests:
        status = (await request.answer()).status
        if status.ok:
            continue
        if len(piece) == 1 or status.code in _FOR_ALL_ALIKE:
            refusals.update(dict.fromkeys(piece, status))
        else:
            doubtful.extend(piece)
    if doubtful:
        protocol.submit("NOOP")  # lets the server say which are gone
        singles = [(uid, protocol.submit(*command(str(uid)), within=mailbox)) for uid in doubtful]
        for uid, request in singles:
            status = (await request.answer()).status
            if not status.ok:
                refusals[uid] = status
    if refusals:
        unclear = [uid for uid, status in refusals.items() if status.code not in _FOR_ALL_ALIKE]
        gone = set(unclear) - await _present(protocol, mailbox, unclear)
        refusals = {uid: status for uid, status in refusals.items() if uid not in gone}
        states.update({uid: _refused(status) for uid, status in refusals.items()})
    return refusals


async def _present(protocol: ImapProtocol, mailbox: Mailbox, uids: Sequence[int]) -> set[int]:
    """Which of ``uids`` are in the folder; all, if the server does not say."""
    wanted = set(uids)
    present: set[int] = set()

    def note(fetched: Fetched) -> bool:
        uid = int(fetched.uid or 0)
        if uid in wanted:
            present.add(uid)
        return uid in wanted

    if not uids:
        return present
    answer = await protocol.run("FETCH", uid_set(sorted(uids)), "(UID FLAGS)", within=mailbox, on_fetch=note)
    return present if answer.status.ok else wanted


def _refused(status: Status) -> State:
    passing = status.code in _PASSING_CODES or any(word in status.text.lower() for word in _PASSING_WORDS)
    return ("pending" if passing else "failed"), f"the server says {status}"
