"""What ``mailpoller run --dry-run`` says: a line for each message, and what they come to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from mailpoller.cli.ending import run_loop
from mailpoller.cli.output import one_line, plain
from mailpoller.cli.rehearsal import Fate, rehearsal
from mailpoller.cli.terminal import Terminal, progress

if TYPE_CHECKING:
    from mailpoller.config import Config


def dry_run(config: Config, only: str | None, *, as_json: bool, terminal: Terminal | None) -> bool:
    """Rehearse; True if every mailbox could be looked through."""
    words: Counter[str] = Counter()
    lost: list[OSError] = []
    stops: list[Callable[[], None]] = []

    def tell(fate: Fate) -> None:
        if lost:
            return
        words[fate.kind] += 1
        if terminal is not None:
            terminal.show("")
        line = json.dumps(asdict(fate), ensure_ascii=False, default=plain) if as_json else one_line(line_of(fate))
        try:
            typer.echo(line)
        except OSError as error:  # not the engine's to handle, which it would be from here
            lost.append(error)
            for stop in stops:
                stop()

    with rehearsal(config, tell) as (rehearsed, clock, bystander):

        async def rehearse() -> bool:
            from mailpoller.app import assemble

            async with (
                assemble(rehearsed, only=only, clock=clock, bystander=bystander) as app,
                progress(terminal, lambda: _sum(words)),
            ):
                stops.append(app.stop.set)
                return await app.drain()

        well = run_loop(rehearse())
    if lost:
        raise lost[0]
    if not as_json:
        unseen = "" if well else "; not every mailbox could be looked through"
        typer.echo(f"{_sum(words)}; nothing was changed{unseen}", err=True)
    return well


def _sum(words: Counter[str]) -> str:
    parts = ", ".join(f"{count:,} {word}" for word, count in sorted(words.items()))
    return f"{words.total():,} to be fetched{': ' + parts if parts else ''}"


def line_of(fate: Fate) -> str:
    """``support/INBOX 12 (8,123 octets) → support, billing; topic invoices; rules a, b; then seen``."""
    size = "" if fate.size is None else f" ({fate.size:,} octets)"
    where = {
        "delivered": ", ".join(fate.queues),
        "quarantined": f"quarantine: {fate.reason}",
        "discarded": f"nowhere: discarded, {fate.reason}",
        "repeated": "nowhere: the same octets were settled before its folder was renumbered",
        "gone": "nowhere: it left the mailbox meanwhile",
        "deferred": f"put off: {fate.reason}",
    }.get(fate.kind, fate.kind)
    parts = [where]
    parts += [f"topic {fate.topic}"] if fate.topic else []
    parts += [f"priority {fate.priority}"] if fate.priority not in ("", "normal") else []
    parts += [f"tags {', '.join(fate.tags)}"] if fate.tags else []
    parts += [f"rules {', '.join(fate.rules)}"] if fate.rules else []
    parts += [f"then {_then(fate.disposition)}"] if fate.disposition != "leave" else []
    if fate.put_off_until is not None:
        parts.append(f"not before {fate.put_off_until:%Y-%m-%d %H:%M:%S} UTC: {fate.put_off_for}")
    return f"{fate.mailbox}/{fate.folder} {fate.uid}{size} → {'; '.join(parts)}"


def _then(disposition: str | dict[str, object]) -> str:
    if isinstance(disposition, str):
        return disposition
    return ", ".join(
        key if value is True else f"{key} {', '.join(value) if isinstance(value, list) else value}"
        for key, value in disposition.items()
    )
