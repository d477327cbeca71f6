"""The program: its verbs in the order in which its help shows them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import copy
from typing import Annotated

import typer

program = typer.Typer(
    name="mailpoller",
    epilog="Exit codes are those of sysexits.h: 0 well, 64 usage, 65 refused, 66 not there, 69 not available, 70 a "
    "bug, 74 "
    "output lost, 75 try again later, 78 configuration.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from mailpoller import __version__

        typer.echo(f"mailpoller {__version__}")
        raise typer.Exit


@program.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Polls mailboxes and brings every message to a durable queue: no mail is lost, a repeat can be recognised, one bad
    message never stops the others."""
    _import_structlog()


def _import_structlog() -> None:
    """Import it without rich, which it would load, if it is installed, for tracebacks of a kind that we never print:
    35 ms."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


from mailpoller.cli import (  # noqa: E402
    backfill,
    changes,
    check,
    config,
    conversation,
    demo,
    erase,
    errors,
    explain,
    health,
    messages,
    oauth,
    operate,
    outbox,
    pause,
    quarantine,
    queue,
    reconcile,
    redeliver,
    reload,
    run,
    send,
    status,
    test,
    trace,
)

program.command("run")(run.run)
program.command("check")(check.check)
program.command("reload")(reload.reload)
program.command("explain")(explain.explain)
program.command("test")(test.test)
program.command("config")(config.config)
program.command("schema")(config.schema)
program.command("channels")(config.channels)
program.command("health")(health.health)
program.command("status")(status.status)
program.command("errors")(errors.errors)
program.command("messages")(messages.messages)
program.command("trace")(trace.trace)
program.command("reconcile")(reconcile.reconcile)
program.add_typer(quarantine.quarantine, name="quarantine")
program.add_typer(queue.queue, name="queue")
program.add_typer(oauth.oauth, name="oauth")
program.add_typer(conversation.conversation, name="conversation")
program.command("changes")(changes.changes)
program.command("pause")(pause.pause)
program.command("resume")(pause.resume)
program.command("send")(send.send)
program.add_typer(outbox.outbox, name="outbox")
program.command("poll")(operate.poll)
program.command("redeliver")(redeliver.redeliver)
program.command("accept")(operate.accept)
program.command("backfill")(backfill.backfill)
program.command("forget")(operate.forget)
program.command("erase")(erase.erase)
program.command("demo")(demo.demo)


def program_for(arguments: Sequence[str]) -> typer.Typer:
    """The program, as far as these arguments ask for it: with the verb alone that they begin with.

    Of each verb that it has, typer makes all parameters before it looks which one is meant: a twelfth of a start.
    Arguments that begin with no verb get all of them, for help and for what is misspelt.
    """
    verb = arguments[0] if arguments else None
    commands = [one for one in program.registered_commands if one.name == verb]
    groups = [one for one in program.registered_groups if one.name == verb]
    if not (commands or groups):
        return program
    alone = copy(program)
    alone.registered_commands, alone.registered_groups = commands, groups
    return alone
