"""``mailpoller run``: the daemon."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mailpoller.cli.exits import TEMPFAIL, explained
from mailpoller.cli.options import ConfigOption, EnvironmentOption

if TYPE_CHECKING:
    from mailpoller.config import Config


def run(
    config: ConfigOption,
    once: Annotated[
        bool, typer.Option("--once", help="Drain every mailbox to empty and exit: 0, or 75 if one failed.")
    ] = False,
    mailbox: Annotated[str | None, typer.Option("--mailbox", "-m", help="Poll only this mailbox.")] = None,
    environment: EnvironmentOption = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option("--log-level", help="Default: service.log_level."),
    ] = None,
    log_format: Annotated[
        Literal["auto", "json", "console"] | None,
        typer.Option(
            "--log-format", help="auto: readable on a terminal, else JSON lines. Default: service.log_format."
        ),
    ] = None,
) -> None:
    """Poll every mailbox until SIGTERM or Ctrl-C."""
    with explained():
        from mailpoller.cli.logs import configure
        from mailpoller.config import load

        loaded = load(config, environment=environment)
        configure(log_level or loaded.service.log_level, log_format or loaded.service.log_format)
        if not asyncio.run(_run(loaded, once=once, only=mailbox)):
            raise typer.Exit(TEMPFAIL)


async def _run(config: Config, *, once: bool, only: str | None) -> bool:
    """True if all went well."""
    from mailpoller.app import assemble

    async with assemble(config, only=only) as app:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, app.stop.set)
        if once:
            return await app.drain()
        await app.run()
        return True
