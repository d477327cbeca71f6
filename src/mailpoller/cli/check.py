"""``mailpoller check``: is the configuration right, and with ``--live``, does everything in it answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.ending import run_loop
from mailpoller.cli.exits import CONFIG, UNAVAILABLE, explained
from mailpoller.cli.options import SYSTEM_CONFIG, ConfigOption, EnvironmentOption, JsonOption
from mailpoller.cli.output import coloured, counted, one_line, print_json, print_table
from mailpoller.cli.terminal import Terminal, error_terminal, progress
from mailpoller.core.tasks import TaskGroup

if TYPE_CHECKING:
    from mailpoller.config import Config, Problem
    from mailpoller.config.files import Instead
    from mailpoller.core.ports import Stage

PROBES_AT_ONCE = 16
PROBE_DEADLINE = timedelta(seconds=90)
MOST_COUNTED = 10_000
"""Old messages that are counted in a mailbox."""


def check(
    config: ConfigOption,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The file to check, instead of --config; a directory with a mailpoller.yaml; or - for what --config "
            "is to hold, on standard input."
        ),
    ] = None,
    drop_in: Annotated[
        bool, typer.Option("--drop-in", help="FILE is a drop-in of --config: check it together with all others.")
    ] = False,
    in_place_of: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="With --drop-in: the name that the file will have beside the others."
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Also try the state directory, every mailbox, queue and outgoing, stage by stage; a relay as far as "
            "SMTP's RCPT. Changes no mailbox, delivers nothing, sends nothing unless told to, and creates nothing: "
            "a queue that is not there yet passes if it can be made.",
        ),
    ] = False,
    mailbox: Annotated[str | None, typer.Option("--mailbox", "-m", help="With --live: only this mailbox.")] = None,
    send_to: Annotated[
        str | None,
        typer.Option(
            "--send-to",
            metavar="ADDRESS",
            help="With --live: send a test mail to this address through each outgoing that answers; with --mailbox, as "
            "an answer from that mailbox.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings about the files count as errors: exit code 78.")
    ] = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration, and with --live all that it names.

    Warnings go to standard error, one for each cause, and change nothing about the exit code (but for --strict): 0 if
    the configuration can be used, 78 if not, and 69 if a live probe fails. What a part lacks on this machine is a
    warning, since all others run without it: a secret (some exist only inside the systemd unit), or an optional
    package, with what pip installs.

    \b
    Examples:
      mailpoller check new.yaml                      before it replaces the old one
      mailpoller check - < new.yaml                  the same, as if it were in the place of --config already
      mailpoller check --drop-in --as sales.yaml new.yaml   a drop-in; for Ansible: validate: … --as sales.yaml %s
      mailpoller check --live                        does everything answer?
      mailpoller check --live --mailbox support      at which stage does this mailbox fail, and what to do?
      mailpoller check --live --send-to me@example.com   does every outgoing carry mail as well?
    """
    from mailpoller.cli.identity import work_as_owner
    from mailpoller.cli.service import known_mailbox, loaded
    from mailpoller.config.merge import is_name
    from mailpoller.core.errors import ConfigError

    if send_to is not None:
        _check_send_to(send_to, live=live)
    with explained():
        path, instead = _meant(config, file, drop_in=drop_in, name=in_place_of)
        try:
            found = loaded(path, environment, instead)
        except ConfigError as error:
            problems = getattr(error, "problems", ())
            if not as_json:
                _tell(problems)
                if not problems:
                    raise
                _summarise(path, problems, [(getattr(error, "mailboxes", 0), "mailbox")])
                raise typer.Exit(CONFIG) from None
            print_json({"ok": False, "problems": [one.told() for one in problems] or [{"message": str(error)}]})
            raise typer.Exit(CONFIG) from None
        if mailbox is not None:
            known_mailbox(found, mailbox)
        doubts = [*found.warnings, *found.missing()]
        if not as_json:
            told = [replace(one, severity="warning") for one in doubts]  # all others run without what a part lacks
            _tell(told)
            polled = sum(found.runs(name) for name in found.mailboxes)
            counts = [(sum(map(is_name, found.queues)), "queue"), (len(found.rules), "rule")]
            _summarise(path, told, [(len(found.mailboxes), "mailbox"), *counts], f" ({polled:,} polled here)")
        ageing = _ageing(found, mailbox)
        if not as_json:
            for one in ageing:
                typer.echo(_aged_line(one))
        if strict and found.warnings and not live:
            raise typer.Exit(CONFIG)
        if live:
            work_as_owner(found)
        results = run_loop(_probe(found, mailbox, send_to, quiet=as_json)) if live else []
        well = all(stage["ok"] for stage in results)
        if results and not as_json:
            _table(results)
        if as_json:
            print_json(
                {"ok": well, "warnings": [doubt.told() for doubt in doubts], "ageing": ageing, "stages": results}
            )
        if not well:
            raise typer.Exit(UNAVAILABLE)
        if strict and found.warnings:
            raise typer.Exit(CONFIG)


def _meant(config: Path, file: Path | None, *, drop_in: bool, name: str | None) -> tuple[Path, Instead]:
    """The main file, and what is to be taken for the files as they will be."""
    from mailpoller.config.document import MAX_OCTETS
    from mailpoller.config.files import AS_THEY_ARE, Instead

    if (drop_in and (file is None or str(file) == "-")) or (name is not None and not drop_in):
        raise typer.BadParameter("--drop-in wants FILE, and --as goes with it")
    if drop_in and file is not None:
        return config, Instead(drop_in=file, name=name or file.name)
    if file is not None and str(file) == "-":
        return config.parent / "-", Instead(content=sys.stdin.buffer.read(MAX_OCTETS + 1))
    if file is not None and file.is_dir():
        return file / SYSTEM_CONFIG.name, AS_THEY_ARE
    return file or config, AS_THEY_ARE


def _tell(problems: Sequence[Problem]) -> None:
    """A line for each cause: the first place, and how many more there are."""
    from mailpoller.config.problems import by_cause

    for problem, count in by_cause(problems):
        more = f" (and {count - 1:,} more of this kind)" if count > 1 else ""
        typer.echo(one_line(f"{'warning: ' if problem.severity == 'warning' else ''}{problem}{more}"), err=True)


def _summarise(path: Path, problems: Sequence[Problem], counts: Sequence[tuple[int, str]], note: str = "") -> None:
    """``mailpoller.yaml: 3 errors, 2 warnings, 14 mailboxes (12 polled here), 1 queue, no rules``."""
    errors = sum(problem.severity == "error" for problem in problems)
    said = [counted(errors, "error") if errors else "no errors", counted(len(problems) - errors, "warning")]
    first, *others = [counted(*count) for count in counts]
    typer.echo(f"{path}: {', '.join([*said, first + note, *others])}")


def _ageing(config: Config, only: str | None) -> list[dict[str, Any]]:
    """Of each mailbox whose mail is moved or deleted some time after it was settled: how much of it that is today.
    Nothing where there is no ledger that can be read."""
    from mailpoller.cli.service import reader
    from mailpoller.core.errors import TransientError

    blocks = {
        name: block for name, block in config.mailboxes.items() if only in (None, name) and block.later is not None
    }
    found: list[dict[str, Any]] = []
    if not blocks:
        return found
    with contextlib.suppress(TransientError), reader(config) as ledger:
        for name, block in blocks.items():
            wanted, after = block.disposition, block.disposition.after
            if after is not None and config.runs(name):
                what = "delete" if wanted.delete else f"move to {wanted.move}"
                due = ledger.aged(name, datetime.now(UTC) - after, limit=MOST_COUNTED)
                found.append({"mailbox": name, "what": what, "messages": due, "max_per_poll": wanted.max_per_poll})
    return found


def _aged_line(one: Mapping[str, Any]) -> str:
    least = "at least " if one["messages"] == MOST_COUNTED else ""
    return one_line(
        f"mailbox {one['mailbox']}: {one['what']} {least}{counted(one['messages'], 'message')} old enough today, "
        f"at most {one['max_per_poll']:,} at each poll"
    )


def _check_send_to(address: str, *, live: bool) -> None:
    if not live:
        raise typer.BadParameter("--send-to goes with --live")
    if not re.fullmatch(r"[^\s<>@,;:]+@[^\s<>@,;:]+", address):
        raise typer.BadParameter("--send-to wants one mail address, written alone: somebody@example.com")


async def _probe(config: Config, only: str | None, send_to: str | None, *, quiet: bool) -> list[dict[str, Any]]:
    """Every stage of every part, in the parts' order; each part's stages are printed when the part is through."""
    from mailpoller.assembly.probing import parts_to_probe

    turns = asyncio.Semaphore(PROBES_AT_ONCE)
    terminal = None if quiet else error_terminal()
    results: dict[str, list[dict[str, Any]]] = {}
    through: set[str] = set()

    async def one(name: str, stages: AsyncIterator[Stage]) -> None:
        async with turns:
            rows = results.setdefault(name, [])
            try:
                async with asyncio.timeout(PROBE_DEADLINE.total_seconds()):
                    async for stage in stages:
                        rows.append(_row(name, stage))
            except TimeoutError:
                rows.append(_late(name))
            finally:
                with contextlib.suppress(Exception):
                    await stages.aclose()  # type: ignore[attr-defined]
            through.add(name)
            if not quiet:
                for row in rows:
                    _say(row, terminal)

    def how_far() -> str:
        waiting = [name for name in results if name not in through]
        return f"probed {len(through)} of {len(results)}; waiting for {', '.join(waiting)}" if waiting else ""

    async with (
        parts_to_probe(config, only, send_to=send_to) as parts,
        progress(terminal, how_far),
        TaskGroup() as group,
    ):
        own = {"service": _state(config.service.state_directory)} if only is None else {}
        for name, stages in {**own, **parts}.items():
            results[name] = []
            group.create_task(one(name, stages), name=f"probe {name}")
    return [row for rows in results.values() for row in rows]


async def _state(directory: Path) -> AsyncIterator[Stage]:
    """Can the state directory be written, or made?"""
    from mailpoller.core.errors import TransientError
    from mailpoller.core.ports import Stage
    from mailpoller.storage.disk import require_place

    begun = time.monotonic()
    detail, advice = str(directory), ""
    try:
        await asyncio.to_thread(require_place, directory, 0)
    except TransientError as error:
        detail = str(error)
        advice = "Check as the service's user (sudo -u mailpoller …), or name another place: service.state_directory."
    yield Stage("state", not advice, timedelta(seconds=time.monotonic() - begun), detail, advice)


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
        "advice": "Look at the last stage that went well; the next one hangs. A firewall that drops packets does that.",
    }


def _table(results: Sequence[dict[str, Any]]) -> None:
    """What it comes to, a line for each part: those that failed first, then the slowest."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in results:
        parts.setdefault(row["part"], []).append(row)
    rows = []
    for part, stages in parts.items():
        failed = next((one for one in stages if not one["ok"]), None)
        took = sum(one["elapsed_ms"] for one in stages)
        what = "well" if failed is None else f"FAILED at {failed['stage']}"
        rows.append((failed is None, -took, part, what, f"{took:,.0f} ms", "" if failed is None else failed["detail"]))
    typer.echo()
    print_table(("part", "result", "took", "reason"), [row[2:] for row in sorted(rows)], empty="")


def _say(row: dict[str, Any], terminal: Terminal | None) -> None:
    if terminal is not None:
        terminal.show("")
    word = coloured("ok    ", "green") if row["ok"] else coloured("FAILED", "red")
    typer.echo(
        f"{word} {row['part']:<28} {row['stage']:<12} {row['elapsed_ms']:>8.1f} ms  {one_line(row['detail'])}".rstrip()
    )
    if row["advice"]:
        typer.echo(f"       → {row['advice']}")
