"""``mailpoller outbox``: mail that waits to be sent, and what became of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import counted, print_json, print_table

if TYPE_CHECKING:
    from mailpoller.core.ports import OutboxMail

outbox = typer.Typer(help="Mail that waits to be sent.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The mail's id, or the beginning of it.")]


@outbox.callback()
def _verbs() -> None:
    """Mail that waits to be sent, and what became of it."""


@outbox.command("list")
def list_(
    config: ConfigOption,
    identity: Annotated[str | None, typer.Argument(metavar="NAME", help="An outgoing; all if left out.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Those that are done with, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="How many, oldest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the mails that somebody is still to get.

    \b
    Example:
      mailpoller outbox list support
    """
    from mailpoller.cli.service import entered, reader

    with explained():
        with reader(entered(config)) as ledger:
            mails = ledger.outbox(identity=identity, all=every, limit=limit)
        if as_json:
            print_json([_plain(mail) for mail in mails])
            return
        rows = (
            (one.id[:12], one.identity, one.accepted_at, one.due_at, one.attempts, _standing(one), _words(one))
            for one in mails
        )
        print_table(("id", "by", "accepted", "due", "tries", "recipients", "last words"), rows, empty="nothing waits")


@outbox.command("show")
def show(config: ConfigOption, id: IdArgument, as_json: JsonOption = False) -> None:
    """Show one mail, and where each recipient stands.

    \b
    Example:
      mailpoller outbox show 5b1c9f0e
    """
    from mailpoller.cli.service import entered, reader
    from mailpoller.core.errors import MessageGone

    with explained():
        with reader(entered(config)) as ledger:
            mail = ledger.outbox_mail(id.strip().lower())
        if mail is None:
            raise MessageGone("the outbox has no mail of this id, or several begin so")
        if as_json:
            print_json(_plain(mail))
            return
        for name in ("id", "message_id", "identity", "mailbox", "mid", "intake", "size", "accepted_at", "due_at"):
            if (value := getattr(mail, name)) not in ("", None):
                typer.echo(f"{name.replace('_', ' ') + ':':<14} {value}")
        rows = ((one.address, one.state, one.at, one.words) for one in mail.recipients)
        print_table(("recipient", "state", "at", "last words"), rows, empty="no recipient")


@outbox.command("retry")
def retry(config: ConfigOption, id: IdArgument) -> None:
    """Try a mail now, for those who have not got it yet.

    \b
    Example:
      mailpoller outbox retry 5b1c9f0e
    """
    from mailpoller.cli.service import carry_out, entered

    with explained():
        answer = carry_out(entered(config), {"do": "outbox-retry", "id": id})
        typer.echo(f"{answer['id']} is tried now, for {counted(answer['recipients'], 'recipient')}")


@outbox.command("cancel")
def cancel(config: ConfigOption, id: IdArgument) -> None:
    """Send a mail to nobody who has not got it yet.

    \b
    Example:
      mailpoller outbox cancel 5b1c9f0e
    """
    from mailpoller.cli.service import carry_out, entered

    with explained():
        answer = carry_out(entered(config), {"do": "outbox-cancel", "id": id})
        typer.echo(f"{answer['id']} is cancelled, for {counted(answer['recipients'], 'recipient')}")


@outbox.command("accept")
def accept(config: ConfigOption) -> None:
    """Let an outbox send that was restored or copied. Look at what waits before (outbox list, cancel).

    \b
    Example:
      mailpoller outbox accept
    """
    from mailpoller.cli.service import carry_out, entered

    with explained():
        answer = carry_out(entered(config), {"do": "outbox-accept"})
        typer.echo(f"it was held: {answer['reason']}")
        typer.echo(f"accepted: {counted(answer['mails'], 'mail')} may be sent from here")


@outbox.command("intake")
def intake(
    config: ConfigOption,
    name: Annotated[str, typer.Argument(metavar="INTAKE", help="An intake of the configuration.")],
    print_: Annotated[
        bool,
        typer.Option("--print", help="Print the statements, with the rights that the service needs; do nothing."),
    ] = False,
) -> None:
    """Make what an intake needs on its server: the table of one of type postgres.

    As the role of the intake's block, which needs the right to for this once; or print it for whoever has that right.

    \b
    Example:
      mailpoller outbox intake shop --print | psql shop
    """
    from mailpoller.cli.queue import prepared
    from mailpoller.cli.service import entered
    from mailpoller.config.problems import did_you_mean
    from mailpoller.config.sections import INTAKES

    with explained():
        found = entered(config).of(INTAKES) or {}
        if name not in found:
            refuse(f"there is no intake {name}{did_you_mean(name, found)}")
        block = found[name]
        wanted = block.preparation(name)
        if wanted is None:
            refuse(f"the intake {name} is of type {block.type}, of which nothing is made beforehand")
        prepared(block, name, wanted, print_=print_)


def _plain(mail: OutboxMail) -> dict[str, Any]:
    plain = asdict(mail)
    return {**plain, "digest": mail.digest.hex(), "content": mail.content.hex()}


def _standing(mail: OutboxMail) -> str:
    states: dict[str, int] = {}
    for one in mail.recipients:
        states[one.state] = states.get(one.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in states.items())


def _words(mail: OutboxMail) -> str:
    return next((one.words for one in mail.recipients if one.words and one.state != "accepted"), "")
