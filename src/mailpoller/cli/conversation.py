"""``mailpoller conversation``: tokens by which an answer finds its conversation."""

from __future__ import annotations

from typing import Annotated

import typer

from mailpoller.cli.exits import explained, refuse
from mailpoller.cli.options import ConfigOption

conversation = typer.Typer(help="Tokens by which an answer finds its conversation.", no_args_is_help=True)


@conversation.callback()
def _verbs() -> None:
    """Tokens by which an answer finds its conversation."""


@conversation.command("mint")
def mint(
    config: ConfigOption,
    identities: Annotated[list[str], typer.Argument(metavar="ID", help="What the help desk calls the conversation.")],
) -> None:
    """Print a signed token for each conversation.

    It is put into mail that is sent, where an answer brings it back: into the subject, behind a plus sign of the
    address (support+TOKEN@example.com), or into the Message-ID (<TOKEN@example.com>). Whoever has no key cannot make
    one; whoever has a token can use it.

    \b
    Examples:
      mailpoller conversation mint 4711
      mailpoller conversation mint "case 4711" "case 4712"
    """
    from mailpoller.cli.service import loaded
    from mailpoller.config.sections import CONVERSATIONS
    from mailpoller.mail.understand.conversation import mint as signed

    with explained():
        block = loaded(config).of(CONVERSATIONS)
        if block is None or not block.keys:
            refuse("no key is configured: conversations: {keys: [{id: a, secret: …}]}")
        key = block.keys[0]
        secret = key.secret.reveal().encode("utf-8")
        for identity in identities:
            try:
                typer.echo(signed(identity, key.id, secret))
            except ValueError as error:
                refuse(str(error))
