"""``mailpoller explain``: which rules match a message, why, and where it would go."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, USAGE, complain, explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import print_fields

if TYPE_CHECKING:
    from mailpoller.config import Config


def explain(
    config: ConfigOption,
    mails: Annotated[
        list[Path], typer.Argument(metavar="MAIL…", help="Files that hold a message each; - is standard input.")
    ],
    mailbox: Annotated[
        str | None,
        typer.Option("--mailbox", "-m", help="Judge as this mailbox does; may be left out if there is only one."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell for each message which rules match, why, and where it would go. Nothing is delivered."""
    from mailpoller.cli.service import loaded

    with explained():
        found = loaded(config)
        name = mailbox or (next(iter(found.mailboxes)) if len(found.mailboxes) == 1 else None)
        if name is None or name not in found.mailboxes:
            complain("name one of the mailboxes with --mailbox: " + ", ".join(found.mailboxes))
            raise typer.Exit(USAGE)
        judge = _Judge(found, name)
        unreadable = False
        for number, mail in enumerate(mails):
            try:
                octets = sys.stdin.buffer.read() if str(mail) == "-" else mail.read_bytes()
            except OSError as error:
                complain(f"{mail}: {error.strerror}")
                unreadable = True
                continue
            story = {"mail": str(mail), **judge.explain(octets)}
            if as_json:
                typer.echo(json.dumps(story, ensure_ascii=False))
            else:
                if number:
                    typer.echo()
                _show(story)
        if unreadable:
            raise typer.Exit(NOINPUT)


class _Judge:
    """One mailbox's pipeline, fed from files."""

    def __init__(self, config: Config, mailbox: str) -> None:
        from mailpoller.app import pipeline_of

        self._mailbox = mailbox
        self._limit = config.mailboxes[mailbox].max_message_size
        self._pipeline = pipeline_of(config, mailbox)

    def explain(self, octets: bytes) -> dict[str, Any]:
        """The judgement as plain data."""
        from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
        from mailpoller.core.spool import Octets
        from mailpoller.core.verdict import Deliver, Quarantine
        from mailpoller.mail.parser import parse

        kept = octets[: self._limit]
        claim = Claim(MessageRef(Folder(self._mailbox, "", ""), "0", len(octets)), "")
        raw = RawMessage(claim, Octets.of(kept), truncated=len(kept) < len(octets), announced=len(octets))
        message = parse(raw)
        judgement = self._pipeline.judge(message)
        verdict = judgement.verdict
        story: dict[str, Any] = {"mailbox": self._mailbox, "verdict": type(verdict).__name__.lower()}
        if isinstance(verdict, Deliver):
            story |= {
                "queues": verdict.queues,
                "topic": verdict.topic,
                "priority": verdict.priority,
                "tags": verdict.tags,
            }
        else:
            story["reason"] = verdict.reason
        if isinstance(verdict, Quarantine):
            story["detail"] = verdict.detail
        story["rules"] = [
            {"rule": rule, "matched": match is not None, "why": match.why if match else ""}
            for rule, match in judgement.asked
        ]
        story["auto"] = message.auto
        story["defects"] = message.defects
        return story


def _show(story: dict[str, Any]) -> None:
    rules = story.pop("rules")
    print_fields(story)
    for rule in rules:
        typer.echo(f"  {'+' if rule['matched'] else '-'} {rule['rule']}{': ' + rule['why'] if rule['why'] else ''}")
