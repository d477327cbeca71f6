"""``mailpoller demo``: the real daemon against a small mail server on this machine, no account needed."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained
from mailpoller.core.tasks import TaskGroup

if TYPE_CHECKING:
    from mailpoller.demo.stage import DemoSetup

DIRECTORY = Path("demo")


def demo(
    directory: Annotated[Path, typer.Option("--directory", "-d", help="Where it keeps its files.")] = DIRECTORY,
    drop: Annotated[
        Path | None,
        typer.Option(
            "--drop", metavar="FILE", help="Put a message into the demonstration that runs; - is standard input."
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Stop when the messages that are there have been carried.")
    ] = False,
) -> None:
    """Run the daemon against a small mail server on this machine.

    With a handful of telling messages in it, and the daemon's own log; no account is needed. Ctrl-C ends it.

    \b
    Examples:
      mailpoller demo
      echo Hello | mailpoller demo --drop -     from another terminal: a further message arrives
    """
    with explained():
        if drop is not None:
            _drop(drop, directory)
            return
        from mailpoller.cli.logs import configure

        configure("info", "auto")
        asyncio.run(_demo(directory, once=once))


def _drop(file: Path, directory: Path) -> None:
    from mailpoller.demo.stage import drop

    try:
        octets = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        complain(f"{file}: {error.strerror}")
        raise typer.Exit(NOINPUT) from None
    drop(octets, directory)
    typer.echo("dropped: watch it arrive in the other terminal")


async def _demo(directory: Path, *, once: bool) -> None:
    from mailpoller.app import assemble
    from mailpoller.config import load
    from mailpoller.demo.stage import prepare

    async with await prepare(directory) as setup, assemble(load(setup.config)) as app:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, app.stop.set)
        async with TaskGroup() as group:
            running = group.create_task(app.run(), name="daemon")
            expected = len(setup.messages)
            telling = group.create_task(_tell(setup, app.health.mailboxes["demo"], expected), name="tell")
            if once:
                await telling
                app.stop.set()
            await running
            telling.cancel()


async def _tell(setup: DemoSetup, health: object, expected: int) -> None:
    """When the messages that were there are settled, say where each ended and what to try next."""
    while getattr(health, "settled", 0) < expected:  # noqa: ASYNC110 - health is plain data, read by whoever likes
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    from mailpoller.config import load

    config = load(setup.config)
    lines = ["", "Where each message ended:", ""]
    with config.ledger.reader() as ledger:  # type: ignore[attr-defined]
        stories = [next(iter(ledger.trace(uid)), None) for uid in setup.uids]
    for letter, story in zip(setup.messages, stories, strict=True):
        where = f"{story.outcome}: {', '.join(story.receipts)}" if story else "unknown"
        reason = f" ({story.reason})" if story and story.reason else ""
        lines.append(f"  {letter.name:<12} {where + reason:<40} {letter.about}")
    # As the newcomer started it: a fresh checkout's program is not in the PATH.
    program = "mailpoller" if shutil.which("mailpoller") else sys.argv[0]
    option = f"--config {setup.config}"
    lines += [
        "",
        "From another terminal:",
        "",
        f"  {program} queue list support {option}",
        f"  {program} queue show support 1 {option}",
        f"  {program} status {option}",
        f"  echo 'Hello' | {program} demo --directory {setup.directory} --drop -     # a further message arrives at "
        f"once",
        "",
        "Ctrl-C ends the demonstration.",
        "",
    ]
    typer.echo("\n".join(lines))
