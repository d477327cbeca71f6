"""``mailpoller send``: hand in a mail that is to be sent."""

from __future__ import annotations

import json
import sys
from typing import Annotated
from uuid import uuid4

import typer

from mailpoller.cli.exits import explained, refuse
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import print_json


def send(
    config: ConfigOption,
    reply_to: Annotated[
        str, typer.Option("--reply-to", metavar="MID", help="The message that is answered, by its mid.")
    ] = "",
    identity: Annotated[str, typer.Option("--identity", metavar="NAME", help="The outgoing that it is from.")] = "",
    department: Annotated[str, typer.Option("--department", help="It is from this department's default mailbox.")] = "",
    mailbox: Annotated[str, typer.Option("--mailbox", help="It is from this mailbox.")] = "",
    conversation: Annotated[
        str, typer.Option("--conversation", metavar="ID", help="The help desk's id, which answers bring back.")
    ] = "",
    key: Annotated[
        str,
        typer.Option(
            "--key",
            help="What is handed in twice under one key is accepted once. Kept 180 days. Without one here and in "
            "the JSON one is made.",
        ),
    ] = "",
    intake: Annotated[str, typer.Option("--intake", metavar="NAME", help="If there are several.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Hand in a mail that is to be sent.

    It is accepted when this returns, and survives a power cut. Standard input is a JSON object (to, cc, bcc, subject,
    text, html, attachments …), or a whole mail, of which the recipients are those in its header. The sender, the
    Message-ID and the date are ours in either case. Says the id of the mail, for outbox show. Refused with the reason:
    exit code 65; not accepted now: 75.

    \b
    Examples:
      mailpoller send --reply-to 5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a < answer.json
      mailpoller send --department sales --key order-17 < confirmation.eml
    """
    from mailpoller.cli.service import ask, loaded
    from mailpoller.core.errors import TransientError

    with explained():
        found = loaded(config)
        octets = sys.stdin.buffer.read()
        if not octets.strip():
            refuse("there is nothing on standard input")
        choices = {
            "reply_to": reply_to,
            "identity": identity,
            "department": department,
            "mailbox": mailbox,
            "conversation": conversation,
        }
        form = "entry" if octets.lstrip()[:1] == b"{" else "mail"
        if not (key or (form == "entry" and _says_its_key(octets))):
            key = uuid4().hex  # nobody may know whether it was accepted, and then it must not go twice
        choices["key"] = key
        request = {"do": "send", "form": form, "intake": intake, "choices": choices}
        try:
            answer = ask(found, request, seconds=60, body=octets)
        except TransientError as error:
            which = f": --key {key}" if key else ", and it says one"
            raise TransientError(f"{error}. Under one key it is accepted once{which}") from None
        if as_json:
            print_json(answer)
        else:
            typer.echo(answer["id"])


def _says_its_key(octets: bytes) -> bool:
    """An entry in JSON that says by what a repeat of it is known. What is none is refused by the daemon."""
    try:
        said = json.loads(octets)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and bool(said.get("key"))
