"""``mailpoller config``, ``schema`` and ``channels``: the effective configuration, the schema for editors, and the
document for consumers."""

from __future__ import annotations

from typing import Annotated

import typer

from mailpoller.cli.exits import explained
from mailpoller.cli.options import ConfigOption, EnvironmentOption, JsonOption
from mailpoller.cli.output import print_json


def config(
    config: ConfigOption,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
    origin: Annotated[bool, typer.Option("--origin", help="A line for each key, with where it was written.")] = False,
) -> None:
    """Print the effective configuration, secrets masked.

    Everything is merged and every default filled in: what a mailbox really has after defaults, extends and drop-ins.

    \b
    Examples:
      mailpoller config
      mailpoller config --json | jq .mailboxes.support
      mailpoller config --origin | grep outgoing     which outgoing holds where none is named, and why
    """
    from mailpoller.cli.service import loaded

    with explained():
        import yaml

        from mailpoller.config import effective
        from mailpoller.config.dump import origins

        found = loaded(config, environment)
        if origin:
            told = origins(found)
            if as_json:
                print_json({path: {"value": value, "origin": where} for path, (value, where) in told.items()})
                return
            for path, (value, where) in told.items():
                written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
                typer.echo(f"{path}: {written.removesuffix('...' + chr(10)).strip()}    # {where}")
            return
        shown = effective(found)
        if as_json:
            print_json(shown)
        else:
            typer.echo(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, default_flow_style=False), nl=False)


def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    \b
    Example:
      mailpoller schema > mailpoller.schema.json
    and as the first line of the configuration:
      # yaml-language-server: $schema=mailpoller.schema.json
    """
    with explained():
        from mailpoller.config.schema import json_schema

        print_json(json_schema())


def channels(config: ConfigOption, environment: EnvironmentOption = None) -> None:
    """Print the queues as an AsyncAPI document, for consumers.

    Where each queue is found, what a message there has beside its body, and the JSON Schema of the body. No secret is
    in it, and nothing is connected to.

    \b
    Example:
      mailpoller channels > asyncapi.json
    """
    from mailpoller.cli.service import loaded

    with explained():
        from mailpoller.config.asyncapi import document

        print_json(document(loaded(config, environment).queues))
