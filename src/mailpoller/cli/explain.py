"""``mailpoller explain``: which rules match a message, why, and where it would go."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import NOINPUT, complain, explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import one_line, print_fields

if TYPE_CHECKING:
    from mailpoller.config import Config


def explain(
    config: ConfigOption,
    mails: Annotated[
        list[Path], typer.Argument(metavar="MAIL", help="Files that hold a message each; - is standard input.")
    ],
    mailbox: Annotated[
        str | None,
        typer.Option("--mailbox", "-m", help="Judge as this mailbox does; may be left out if there is only one."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which rules match a message, and where it would go.

    Nothing is fetched or delivered. With --json one object a line, in the order of the files.

    \b
    Examples:
      mailpoller explain --mailbox support mail.eml
      mailpoller explain --json maildir/cur/* | jq -r '[.mail, .verdict] | @tsv'
      mailpoller queue show support 1 --octets | mailpoller explain -

    Exits with 66 if a file cannot be read; the others are explained.
    """
    from mailpoller.cli.service import known_mailbox, loaded

    with explained():
        found = loaded(config)
        if mailbox is None and len(found.mailboxes) != 1:
            refuse("name one of the mailboxes with --mailbox: " + ", ".join(found.mailboxes))
        judge = _Judge(found, known_mailbox(found, mailbox or next(iter(found.mailboxes))), events=as_json)
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

    def __init__(self, config: Config, mailbox: str, *, events: bool) -> None:
        from mailpoller.assembly.plans import pipeline_of

        self._mailbox = mailbox
        self._events = events
        self._limit = config.mailboxes[mailbox].max_message_size
        self._standing = config.mailboxes[mailbox].standing()
        self._pipeline = pipeline_of(config, mailbox)

    def explain(self, octets: bytes) -> dict[str, Any]:
        """The judgement as plain data."""
        from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
        from mailpoller.core.spool import Octets
        from mailpoller.core.verdict import Deliver, Discard, Quarantine
        from mailpoller.mail.event import EventRenderer
        from mailpoller.mail.parser import parse

        kept = octets[: self._limit]
        claim = Claim(MessageRef(Folder(self._mailbox, "explain", "explain"), "0", len(octets)), "explain")
        raw = RawMessage(claim, Octets.of(kept), truncated=len(kept) < len(octets), announced=len(octets))
        message = parse(raw)
        judgement = self._pipeline.judge(message)
        verdict = judgement.verdict
        story: dict[str, Any] = {"mailbox": self._mailbox, "verdict": type(verdict).__name__.lower()}
        if isinstance(verdict, Deliver):
            story |= {
                "queues": verdict.queues,
                "topic": verdict.attributes.topic,
                "priority": verdict.attributes.priority,
                "tags": verdict.attributes.tags,
            }
        else:
            story["reason"] = verdict.reason
        if isinstance(verdict, Quarantine):
            story["detail"] = verdict.detail
        story["rules"] = [
            {"rule": rule, "matched": match is not None, "why": match.why if match else ""}
            for rule, match in judgement.asked
        ]
        found = message.classification
        story["class"] = found.kind
        story["subclass"] = found.subclass
        story["evidence"] = found.evidence
        story["auto"] = message.auto
        story["defects"] = message.defects
        if self._events:
            # What is discarded is rendered too, as if it went to a queue without a name.
            rendered = verdict if not isinstance(verdict, Discard) else Deliver(("",), rules=verdict.rules)
            queue = rendered.queues[0] if isinstance(rendered, Deliver) else "quarantine"
            renderer = EventRenderer(
                message,
                verdict=rendered,
                source=f"mailpoller/{self._mailbox}",
                now=datetime.now(UTC),
                standing=self._standing,
            )
            story["event"] = json.loads(renderer.render(queue=queue, delivery_id="explain").structured())
        return story


def _show(story: dict[str, Any]) -> None:
    rules = story.pop("rules")
    print_fields(story)
    for rule in rules:
        typer.echo(
            one_line(f"  {'+' if rule['matched'] else '-'} {rule['rule']}{': ' + rule['why'] if rule['why'] else ''}")
        )
