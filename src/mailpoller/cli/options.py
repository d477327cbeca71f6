"""Options that several verbs share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

SYSTEM_CONFIG = Path("/etc/mailpoller/mailpoller.yaml")


def default_config() -> Path:
    """``MAILPOLLER_CONFIG``, then the system's place."""
    return Path(os.environ.get("MAILPOLLER_CONFIG") or SYSTEM_CONFIG)


ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Default: $MAILPOLLER_CONFIG, then /etc/mailpoller/mailpoller.yaml.",
        default_factory=default_config,
        show_default=False,
    ),
]

EnvironmentOption = Annotated[
    str | None,
    typer.Option("--environment", help="Overrides service.environment (also: $MAILPOLLER_ENVIRONMENT)."),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
