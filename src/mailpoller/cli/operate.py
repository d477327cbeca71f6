"""``mailpoller poll``, ``redeliver``, ``accept``, ``forget``: what an operator asks of the service."""

from __future__ import annotations

from typing import Annotated

import typer

from mailpoller.cli.exits import USAGE, complain, explained
from mailpoller.cli.options import ConfigOption

MailboxArgument = Annotated[str, typer.Argument(help="The mailbox's name.")]


def poll(config: ConfigOption, mailbox: MailboxArgument) -> None:
    """Have the running daemon poll a mailbox now, also while it waits out a failure."""
    from mailpoller.cli.service import ask, loaded

    with explained():
        ask(loaded(config), {"do": "poll", "mailbox": mailbox})
        typer.echo(f"{mailbox} is being polled")


def redeliver(config: ConfigOption, mid: Annotated[str, typer.Argument(help="The message's mid.")]) -> None:
    """Bring a settled message to its queues once more, under a new delivery id, if its mailbox still has it."""
    from mailpoller.cli.service import carry_out, loaded

    with explained():
        answer = carry_out(loaded(config), {"do": "redeliver", "mid": mid})
        typer.echo(
            f"{mid} will be brought again at the next poll of {answer['mailbox']}, if {answer['folder']} still has it"
        )


def accept(
    config: ConfigOption,
    mailbox: MailboxArgument,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="What is there now is known: take only what comes later.")
    ] = False,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Go through all of it; octets that were settled before are not delivered again."),
    ] = False,
) -> None:
    """Release a mailbox that is held because its numbering changed and much of its mail is unknown."""
    from mailpoller.cli.service import carry_out, loaded

    if baseline == replay:
        complain("say either --baseline or --replay")
        raise typer.Exit(USAGE)
    with explained():
        how = "baseline" if baseline else "replay"
        answer = carry_out(loaded(config), {"do": "accept", "mailbox": mailbox, "how": how})
        typer.echo(f"{answer['folders']} folder(s) of {mailbox} released ({how})")


def forget(
    config: ConfigOption,
    mailbox: MailboxArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drop what the ledger holds of a mailbox that was removed from the configuration."""
    from mailpoller.cli.service import carry_out, loaded

    with explained():
        found = loaded(config)
        if mailbox in found.mailboxes and found.runs(mailbox):
            complain(
                f"{mailbox} is still configured: forgetting it would fetch its mail again; remove or disable it first"
            )
            raise typer.Exit(USAGE)
        if not yes and not typer.confirm(f"Forget every message of {mailbox}?"):
            raise typer.Exit(USAGE)
        answer = carry_out(found, {"do": "forget", "mailbox": mailbox})
        typer.echo(f"{mailbox} is forgotten: {answer['messages']} messages")
