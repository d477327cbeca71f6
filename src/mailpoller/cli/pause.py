"""``mailpoller pause`` and ``resume``: leave a mailbox, a queue, a host or everything alone for a while."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mailpoller.cli.exits import explained, refuse
from mailpoller.cli.options import ConfigOption

if TYPE_CHECKING:
    from mailpoller.config import Config

MailboxArgument = Annotated[str | None, typer.Argument(metavar="[MAILBOX]", help="A mailbox.")]
QueueOption = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="A queue: its mail waits.")]
HostOption = Annotated[str | None, typer.Option("--host", metavar="HOST", help="Every mailbox at this host.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every mailbox.")]


def pause(
    config: ConfigOption,
    mailbox: MailboxArgument = None,
    queue: QueueOption = None,
    host: HostOption = None,
    everything: AllOption = False,
) -> None:
    """Leave a mailbox, a queue or a host alone until resume.

    It is not polled, or nothing is brought to it. What is in hand is finished first. It holds across restarts, status
    says so, and health warns. Mail stays where it is: on the server.

    \b
    Examples:
      mailpoller pause support
      mailpoller pause --queue tickets      while the help desk is down for an upgrade
      mailpoller pause --host imap.example.com
    """
    _carry_out("pause", config, mailbox, queue, host, everything)


def resume(
    config: ConfigOption,
    mailbox: MailboxArgument = None,
    queue: QueueOption = None,
    host: HostOption = None,
    everything: AllOption = False,
) -> None:
    """Undo a pause, named as it was named then.

    \b
    Example:
      mailpoller resume support
    """
    _carry_out("resume", config, mailbox, queue, host, everything)


def _carry_out(
    verb: str, config: Path, mailbox: str | None, queue: str | None, host: str | None, everything: bool
) -> None:
    from mailpoller.cli.service import carry_out, entered, reader

    if sum((mailbox is not None, queue is not None, host is not None, everything)) != 1:
        refuse("say one of MAILBOX, --queue NAME, --host HOST or --all")
    with explained():
        found = entered(config)
        what = _what(found, verb, mailbox, queue, host)
        carry_out(found, {"do": verb, "what": what})
        typer.echo(f"{what} is {'paused' if verb == 'pause' else 'resumed'}")
        with reader(found) as ledger:
            others = [one for one in ledger.pauses() if one != what]
        if verb == "resume" and others:
            typer.echo(f"still paused: {', '.join(others)}")


def _what(config: Config, verb: str, mailbox: str | None, queue: str | None, host: str | None) -> str:
    """What the ledger calls it. What left the configuration while it was paused can be resumed."""
    from mailpoller.cli.service import known_mailbox, known_queue

    if mailbox is not None:
        return f"mailbox {known_mailbox(config, mailbox) if verb == 'pause' else mailbox}"
    if queue is not None:
        return f"queue {known_queue(config, queue) if verb == 'pause' else queue}"
    return "all" if host is None else f"host {host}"
