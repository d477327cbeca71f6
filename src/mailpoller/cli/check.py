"""``mailpoller check``: is the configuration right, and with ``--live``, does everything in it answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import CONFIG, UNAVAILABLE, USAGE, complain, explained
from mailpoller.cli.options import ConfigOption, EnvironmentOption, JsonOption
from mailpoller.cli.output import print_json

if TYPE_CHECKING:
    from mailpoller.config import Config
    from mailpoller.core.ports import Stage

PROBES_AT_ONCE = 16
PROBE_DEADLINE = timedelta(seconds=90)


def check(
    config: ConfigOption,
    file: Annotated[Path | None, typer.Argument(help="The file to check, instead of --config.")] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Also connect: every mailbox, queue and outgoing, stage by stage. Changes nothing."
        ),
    ] = False,
    mailbox: Annotated[str | None, typer.Option("--mailbox", "-m", help="With --live: only this mailbox.")] = None,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration: exits with 0, 78 if it is wrong, 69 if a live probe fails."""
    from mailpoller.cli.service import loaded
    from mailpoller.core.errors import ConfigError

    with explained():
        path = file or config
        try:
            found = loaded(path, environment)
        except ConfigError as error:
            if not as_json:
                raise
            problems = getattr(error, "problems", ())
            print_json({"ok": False, "problems": [_problem(one) for one in problems] or [{"message": str(error)}]})
            raise typer.Exit(CONFIG) from None
        if mailbox is not None and mailbox not in found.mailboxes:
            complain(f"there is no mailbox {mailbox}")
            raise typer.Exit(USAGE)
        doubts = [*found.warnings, *found.missing_secrets()]
        if not as_json:
            for doubt in doubts:
                typer.echo(f"{doubt}", err=True)
            polled = sum(found.runs(name) for name in found.mailboxes)
            typer.echo(
                f"{path}: no errors; {len(found.mailboxes)} mailboxes ({polled} polled here), {len(found.queues)} queues, "
                f"{len(found.rules)} rules, {len(doubts)} warnings"
            )
        results = asyncio.run(_probe(found, mailbox, quiet=as_json)) if live else []
        well = all(stage["ok"] for stage in results)
        if as_json:
            print_json({"ok": well, "warnings": [_problem(doubt) for doubt in doubts], "stages": results})
        if not well:
            raise typer.Exit(UNAVAILABLE)


def _problem(problem: Any) -> dict[str, Any]:
    return {
        "file": str(problem.file),
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
        "severity": problem.severity,
    }


async def _probe(config: Config, only: str | None, *, quiet: bool) -> list[dict[str, Any]]:
    """Every stage of every part, in the parts' order; each part's stages are printed when the part is through."""
    from mailpoller.app import parts_to_probe

    turns = asyncio.Semaphore(PROBES_AT_ONCE)
    results: dict[str, list[dict[str, Any]]] = {}

    async def one(name: str, stages: AsyncIterator[Stage]) -> None:
        async with turns:
            rows = results.setdefault(name, [])
            try:
                async with asyncio.timeout(PROBE_DEADLINE.total_seconds()):
                    async for stage in stages:
                        rows.append(_row(name, stage))
            except TimeoutError:
                rows.append(_late(name))
            if not quiet:
                for row in rows:
                    _say(row)

    async with parts_to_probe(config, only) as parts, asyncio.TaskGroup() as group:
        for name, stages in parts.items():
            results[name] = []
            group.create_task(one(name, stages), name=f"probe {name}")
        if not quiet and sys.stderr.isatty():
            typer.echo(f"probing {len(parts)} parts …", err=True)
    return [row for rows in results.values() for row in rows]


def _row(name: str, stage: Stage) -> dict[str, Any]:
    return {
        "part": name,
        "stage": stage.name,
        "ok": stage.ok,
        "elapsed_ms": round(stage.elapsed.total_seconds() * 1000, 1),
        "detail": stage.detail,
        "advice": stage.advice,
    }


def _late(name: str) -> dict[str, Any]:
    seconds = PROBE_DEADLINE.total_seconds()
    return {
        "part": name,
        "stage": "deadline",
        "ok": False,
        "elapsed_ms": seconds * 1000,
        "detail": f"not through within {seconds:.0f} s",
        "advice": "",
    }


def _say(row: dict[str, Any]) -> None:
    word = typer.style("ok    ", fg="green") if row["ok"] else typer.style("FAILED", fg="red", bold=True)
    typer.echo(f"{word} {row['part']:<28} {row['stage']:<12} {row['elapsed_ms']:>8.1f} ms  {row['detail']}")
    if row["advice"]:
        typer.echo(f"       → {row['advice']}")
