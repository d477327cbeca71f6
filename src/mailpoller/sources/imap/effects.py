"""Commands that change messages, and what the folder itself shows of them behind each: OK is no evidence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from mailpoller.core.record import record
from mailpoller.wire.imap.command import Request
from mailpoller.wire.imap.names import uid_set
from mailpoller.wire.imap.protocol import ImapProtocol
from mailpoller.wire.imap.reader import ProtocolViolation
from mailpoller.wire.imap.responses import Fetched, Status
from mailpoller.wire.imap.search import hits
from mailpoller.wire.imap.selected import SelectedFolder

_NO_FLAGS: frozenset[str] = frozenset()


@record
class Done:
    """The answer to a command about ``uids``, and what the folder shows of them behind it: their flags, in lower
    case. ``shown`` is None if the server refuses to show it. ``copied``: those that it says to have copied."""

    uids: Sequence[int]
    status: Status
    shown: Mapping[int, frozenset[str]] | None
    copied: frozenset[int] = frozenset()


class Effects:
    """Sends commands about sets of uids of the folder that is open, ``mailbox``, and finds out what each did."""

    def __init__(self, protocol: ImapProtocol, mailbox: SelectedFolder) -> None:
        self._protocol = protocol
        self.mailbox = mailbox
        """Given anew when another folder was open meanwhile."""

    async def ask(self, pieces: Sequence[tuple[Sequence[int], str]], verb: str, arguments: Sequence[str]) -> list[Done]:
        """Send a command for each set, wait for nothing between, and find out what it did.

        Flags are looked at in the same breath. A move or deletion is looked at only if the server does not say
        enough: looked at in the same breath it would not show yet, as servers (Dovecot) tidy up behind the last
        command that they were sent.
        """
        if verb == "STORE":
            return await self._store(pieces, arguments)
        asked = [
            (piece, words, self._protocol.submit(verb, words, *arguments, within=self.mailbox))
            for piece, words in pieces
        ]
        statuses = [(await doing.answer()).status for _, _, doing in asked]
        enough = all(
            status.ok and (verb == "EXPUNGE" or doing.copied.issuperset(piece))
            for (piece, _, doing), status in zip(asked, statuses, strict=True)
        )
        if enough and verb != "COPY":
            enough = sum(doing.expunged for _, _, doing in asked) >= sum(len(piece) for piece, _ in pieces)
        looks = [None if enough else self.look(piece, words) for piece, words, _ in asked]
        done = []
        for (piece, _, doing), status, look in zip(asked, statuses, looks, strict=True):
            shown: Mapping[int, frozenset[str]] | None = dict.fromkeys(piece, _NO_FLAGS) if verb == "COPY" else {}
            if look is not None:
                shown = look[1] if (await look[0].answer()).status.ok else None
            done.append(Done(piece, status, shown, frozenset(doing.copied)))
        return done if verb == "COPY" else await self.again(done)

    async def _store(self, pieces: Sequence[tuple[Sequence[int], str]], arguments: Sequence[str]) -> list[Done]:
        """Set flags, and see which messages lack one still: by SEARCH, which names only these, and by FETCH of the
        last one of each set, which says whether SEARCH is to be believed; if it is not, by FETCH of all."""
        flags = arguments[-1].strip("()").split()
        wanted, lacking = frozenset(flag.lower() for flag in flags), _without(flags)
        asked = []
        for piece, words in pieces:
            storing = self._protocol.submit("STORE", words, *arguments, within=self.mailbox)
            searching = self._protocol.submit(
                "SEARCH", f"UID {words} {lacking}", within=self.mailbox, wants=(b"SEARCH", b"ESEARCH")
            )
            asked.append((piece, words, storing, searching, self.look(piece[-1:], str(piece[-1]))))
        done = []
        for piece, words, storing, searching, (looking, seen) in asked:
            status, found = (await storing.answer()).status, await searching.answer()
            shown: Mapping[int, frozenset[str]] | None = seen
            told = (await looking.answer()).status.ok and found.status.ok
            if told:
                try:
                    left = set(hits(found.data)).intersection(piece)
                except ProtocolViolation:
                    told = False
                else:
                    last = piece[-1]
                    told = last not in seen or (wanted <= seen[last]) == (last not in left)
                    shown = dict.fromkeys(left, _NO_FLAGS)
            if not told:
                looking, shown = self.look(piece, words)
                shown = shown if (await looking.answer()).status.ok else None
            done.append(Done(piece, status, shown))
        return done

    async def again(
        self, done: Sequence[Done], undone: Callable[[frozenset[str]], bool] = lambda seen: True
    ) -> list[Done]:
        """Sets with a message whose flags show that nothing was done (that it is shown at all, of a move) are looked
        at once more when the server has had a chance to tell its news: somebody may have removed it."""
        doubtful = [one for one in done if one.status.ok and one.shown and any(map(undone, one.shown.values()))]
        if not doubtful:
            return list(done)
        self._protocol.submit("NOOP")
        looks = [self.look(one.uids, uid_set(one.uids)) for one in doubtful]
        seen = [shown if (await request.answer()).status.ok else None for request, shown in looks]
        again = [replace(one, shown=shown) for one, shown in zip(doubtful, seen, strict=True)]
        return [one for one in done if one not in doubtful] + again

    def look(self, uids: Sequence[int], words: str) -> tuple[Request, dict[int, frozenset[str]]]:
        """Ask what the folder shows of ``uids``: the request, and where their flags will be."""
        shown: dict[int, frozenset[str]] = {}
        wanted = frozenset(uids)

        def note(fetched: Fetched) -> bool:
            uid = int(fetched.uid or 0)
            if uid not in wanted or fetched.flags is None:
                return False
            shown[uid] = _lowered(fetched.flags)
            return True

        return self._protocol.submit("FETCH", words, "(UID FLAGS)", within=self.mailbox, on_fetch=note), shown


def _without(flags: Sequence[str]) -> str:
    r"""SEARCH keys for messages that lack one of ``flags``: ``OR UNSEEN UNKEYWORD $Done`` (RFC 3501 section 6.4.4)."""
    *before, last = [f"UN{flag[1:].upper()}" if flag.startswith("\\") else f"UNKEYWORD {flag}" for flag in flags]
    return "".join(f"OR {key} " for key in before) + last


@lru_cache(maxsize=512)
def _lowered(flags: tuple[str, ...]) -> frozenset[str]:
    return frozenset(flag.lower() for flag in flags)


async def messages(asked: Request | None) -> int | None:
    """The number of messages in the answer to a STATUS, or None."""
    if asked is None:
        return None
    for response in (await asked.answer()).data:
        line = response[0]
        assert isinstance(line, bytes)
        found = re.search(rb"(?i)\bMESSAGES (\d{1,10})\b[^)]*\)$", line)
        if found:
            return int(found[1])
    return None
