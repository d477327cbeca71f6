"""What a configuration would remove although it is in use, or still holds something."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mailpoller.assembly.fleet import Fleet
from mailpoller.config import Config
from mailpoller.config.fields import references_of


class Removals:
    """Looks at what would go. To disable comes first: what nobody uses and what holds nothing goes without a word."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def refusals(self, before: Config, after: Config, allowed: Collection[str]) -> list[str]:
        """Why not, of each that is not ``allowed``: as ``KIND:NAME``, or by its name alone if nothing else of that name
        goes. Raises :class:`LedgerUnavailable`."""
        going = {
            "mailbox": _gone(before.mailboxes, after.mailboxes),
            "queue": _gone(before.queues, after.queues),
            "outgoing": _gone(before.outgoing, after.outgoing),
        }
        asked = {"mailbox": self._mailbox, "queue": self._queue, "outgoing": self._outgoing}
        first = {"mailbox": "enabled: false", "queue": "let nobody send to it", "outgoing": "let nobody send by it"}
        found: list[str] = []
        for kind, names in going.items():
            for name in names:
                alone = sum(name in others for others in going.values()) == 1
                if f"{kind}:{name}" in allowed or (alone and name in allowed):
                    continue
                if why := await asked[kind](before, name):
                    wish = name if alone else f"{kind}:{name}"
                    found.append(f"the {kind} {name} {why}: {first[kind]} first, or say --remove {wish}")
        return found

    async def _mailbox(self, config: Config, name: str) -> str:
        if config.runs(name):
            return "is polled"
        counts = await self._fleet.ports.ledger.counts(name)
        held = sum(counts.get(word, 0) for word in ("claimed", "deferred", "undisposed"))
        return f"still has {held:,} in hand" if held else ""

    async def _queue(self, config: Config, name: str) -> str:
        if users := list(_users(config, "queues", name)):
            return f"is in use ({', '.join(users[:10])})"
        owed = await self._fleet.ports.ledger.owed(name)
        return f"is still owed {owed:,}" if owed else ""

    async def _outgoing(self, config: Config, name: str) -> str:
        if config.outgoing[name].enabled and (users := list(_users(config, "outgoing", name))):
            return f"is in use ({', '.join(users[:10])})"
        waiting = (await self._fleet.ports.ledger.outbox_backlog()).get(name)
        return f"still has {waiting.mails:,} in its outbox" if waiting is not None and waiting.mails else ""


def _gone(before: Collection[str], after: Collection[str]) -> list[str]:
    """What has another name now is not gone."""
    formerly = {getattr(block, "formerly", None) for block in after.values()}  # type: ignore[attr-defined]
    return [name for name in before if name not in after and name not in formerly]


def _users(config: Config, section: str, name: str) -> Iterator[str]:
    """The blocks that name it, without mailboxes that are not polled here."""
    for at, block in config.blocks():
        idle = at[0] == "mailboxes" and not config.runs(at[1])
        if not idle and any(of == section and found == name for _, of, found in references_of(block)):
            yield " ".join(at)
