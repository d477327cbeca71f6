"""What operators have paused."""

from __future__ import annotations

from collections.abc import Mapping

from mailpoller.core.ports import Pause

EVERYTHING = "all"
"""Every mailbox; queues take what is in hand."""


class Pauses:
    """What is paused, by what it is: ``mailbox NAME``, ``queue NAME``, ``host NAME`` or ``all``. The ledger has it
    first, so it survives a restart. What has another name since is paused still, until it is resumed by the name that
    it was paused by."""

    def __init__(self, standing: Mapping[str, Pause] | None = None) -> None:
        self.standing = dict(standing or {})

    def of_mailbox(self, name: str, host: str, formerly: str | None = None) -> str:
        """Why a mailbox at this host is not polled now, in words; empty if it is."""
        if not self.standing:  # asked between two batches
            return ""
        names = (name, formerly) if formerly else (name,)
        for what in (*(f"mailbox {one}" for one in names), f"host {host}", EVERYTHING):
            if (pause := self.standing.get(what)) is not None:
                return _words(what, pause)
        return ""

    def of_queue(self, name: str, formerly: str | None = None) -> str:
        """Why nothing is brought to a queue now, in words; empty if it is."""
        for one in (name, formerly) if self.standing else ():
            if one and (pause := self.standing.get(f"queue {one}")) is not None:
                return _words(f"queue {one}", pause)
        return ""


def _words(what: str, pause: Pause) -> str:
    return f"{what} was paused by {pause.who or 'somebody'} at {pause.at:%Y-%m-%d %H:%M} UTC: mailpoller resume"
