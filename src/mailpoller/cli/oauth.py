"""``mailpoller oauth``: a person's yes, for mailboxes that log in with that person's token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mailpoller.cli.ending import run_loop
from mailpoller.cli.exits import explained, refuse
from mailpoller.cli.options import ConfigOption

if TYPE_CHECKING:
    from pathlib import Path

    from mailpoller.config import Config
    from mailpoller.wire.oauth import Terms

oauth = typer.Typer(help="Log in by OAuth 2.0 where a person has to say yes.", no_args_is_help=True)


@oauth.callback()
def _verbs() -> None:
    """Log in by OAuth 2.0 where a person has to say yes."""


@oauth.command("login")
def login(
    config: ConfigOption,
    name: Annotated[str, typer.Argument(metavar="MAILBOX", help="A mailbox, an outgoing or a queue.")],
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Where the browser comes back to; 0 for any free port.")
    ] = 0,
) -> None:
    """Have the owner of a mailbox say yes, and keep the token.

    With grant: authorization_code a browser on this machine is needed, with device_code any browser anywhere. What is
    kept lies below the state directory and is the service's alone; a running service uses it from its next attempt
    on.

    \b
    Example:
      mailpoller oauth login support
      mailpoller check --live --mailbox support
    """
    from mailpoller.cli.service import entered

    with explained():
        found = entered(config)
        terms = _terms(found, name)
        run_loop(_log_in(terms, found.service.state_directory, port))
        typer.echo(f"{name}: {terms.owner} is logged in")


async def _log_in(terms: Terms, state_directory: Path, port: int) -> None:
    from mailpoller.engine.clock import SystemClock
    from mailpoller.wire.oauth.login import log_in
    from mailpoller.wire.oauth.tokens import token_source

    clock = SystemClock()
    grant = await log_in(terms, clock, typer.echo, port=port)
    await token_source(terms, state_directory, clock).adopt(grant)


def _terms(config: Config, name: str) -> Terms:
    """What the mailbox, or else the outgoing, or else the queue of this name asks for tokens with."""
    from mailpoller.cli.service import known_mailbox
    from mailpoller.config.extras import require_extras
    from mailpoller.wire.oauth import terms_of

    others = {**config.queues, **config.outgoing}
    block = others.get(name) if name not in config.mailboxes else None
    owner = block if block is not None else config.require(known_mailbox(config, name))
    require_extras(owner)
    terms = terms_of(owner)
    if terms is None:
        refuse(f"{name} does not log in by OAuth 2.0: it has no auth: {{type: oauth2, …}}")
    return terms
