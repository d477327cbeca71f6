"""``mailpoller poll``, ``accept``, ``forget``: what an operator asks of the service."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mailpoller.cli.exits import explained, refuse
from mailpoller.cli.options import ConfigOption
from mailpoller.cli.output import counted

MailboxArgument = Annotated[str, typer.Argument(metavar="MAILBOX", help="The mailbox's name.")]


def poll(
    config: ConfigOption,
    mailbox: Annotated[str | None, typer.Argument(metavar="[MAILBOX]", help="The mailbox's name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every mailbox that is not paused.")] = False,
) -> None:
    """Have the daemon poll a mailbox, or all, now.

    Also while it waits out a failure or a refused login: after a password was mended, say.

    \b
    Example:
      mailpoller poll support
    """
    from mailpoller.cli.service import ask, entered, known_mailbox

    if (mailbox is None) is not everything:
        refuse("say either a mailbox or --all")
    with explained():
        found = entered(config)
        if mailbox is None:
            answer = ask(found, {"do": "poll", "all": True})
            paused = f"; {answer['paused']} paused" if answer["paused"] else ""
            typer.echo(f"{counted(answer['polled'], 'mailbox')} being polled{paused}")
            return
        ask(found, {"do": "poll", "mailbox": known_mailbox(found, mailbox)})
        typer.echo(f"{mailbox} is being polled")


def accept(
    config: ConfigOption,
    mailbox: MailboxArgument,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="What is there at the next poll is known: take only what comes later.")
    ] = False,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Go through all of it; octets that were settled before are not delivered again."),
    ] = False,
    absence: Annotated[
        bool, typer.Option("--absence", help="Mail that waits and is not there any more has been removed: it is gone.")
    ] = False,
) -> None:
    """Decide about a mailbox that is held, or was emptied.

    A mailbox is held when its server numbered a folder anew (UIDVALIDITY, host or user changed) and much of its mail
    is unknown. Mail that waits and of which much is not there at once counts as gone only if somebody says so, or
    after a week: its store may be away. status shows which mailboxes that is and why.

    \b
    Examples:
      mailpoller accept support --baseline     after a migration that copied the mail
      mailpoller accept support --replay       after a restore that brought mail we never had
      mailpoller accept support --absence      after somebody emptied it while its queue was down
    """
    from mailpoller.cli.service import carry_out, entered, known_mailbox

    chosen = [how for how, said in (("baseline", baseline), ("replay", replay), ("absence", absence)) if said]
    if len(chosen) != 1:
        refuse("say either --baseline, --replay or --absence")
    with explained():
        (how,) = chosen
        found = entered(config)
        answer = carry_out(found, {"do": "accept", "mailbox": known_mailbox(found, mailbox), "how": how})
        folders = counted(answer["folders"], "folder")
        if how == "absence":
            typer.echo(f"what is absent from {folders} of {mailbox} counts as gone when it is looked for next")
        else:
            typer.echo(f"{folders} of {mailbox} released ({how})")


def forget(
    config: ConfigOption,
    mailbox: MailboxArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drop the ledger's rows of a mailbox that is not polled.

    Should the mailbox ever come back, it begins as a new one does: with its start.

    \b
    Example:
      mailpoller forget former-support --yes
    """
    from mailpoller.cli.service import carry_out, entered

    with explained():
        found = entered(config)
        if mailbox in found.mailboxes and found.runs(mailbox):
            refuse(
                f"{mailbox} is still configured: forgetting it would fetch its mail again; remove or disable it first"
            )
        if not yes and not sys.stdin.isatty():
            refuse("there is nobody to ask: say --yes")
        if not yes and not typer.confirm(f"Forget every message of {mailbox}?"):
            raise typer.Exit
        answer = carry_out(found, {"do": "forget", "mailbox": mailbox})
        typer.echo(f"{mailbox} is forgotten: {counted(answer['messages'], 'message')}")
