"""How verbs reach the service: a running daemon by its socket, its ledger by reading, or the ledger itself if none
runs."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from mailpoller.cli.exits import refuse
from mailpoller.core.errors import ConfigError, LedgerUnavailable, TransientError
from mailpoller.storage.disk import accessible

if TYPE_CHECKING:
    from mailpoller.config import Config
    from mailpoller.config.files import Instead
    from mailpoller.core.ports import Clock, Ledger
    from mailpoller.ledgers.sqlite import LedgerReader


def loaded(path: Path, environment: str | None = None, instead: Instead | None = None) -> Config:
    """The configuration, for verbs that do not log. ``instead``: what its files will be."""
    from mailpoller.config import load
    from mailpoller.config.files import AS_THEY_ARE

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    return load(path, environment=environment, instead=instead or AS_THEY_ARE)


def entered(path: Path) -> Config:
    """The configuration, for verbs that go on into the service's directories: from here on root is their owner."""
    from mailpoller.cli.identity import work_as_owner

    config = loaded(path)
    work_as_owner(config)
    return config


def daemon_of(path: Path) -> Path:
    """Where the daemon of this configuration listens, also if the file has errors by now: it runs with what it read
    before. From here on root is who owns that place."""
    from mailpoller.cli.identity import work_as_owner_of
    from mailpoller.config import ConfigErrors
    from mailpoller.config.glimpse import control_socket

    try:
        return entered(path).service.control_socket
    except ConfigErrors:
        socket = control_socket(path)
        work_as_owner_of(socket)
        return socket


def known_mailbox(config: Config, name: str) -> str:
    """``name``, if the configuration has a mailbox of that name; else the command line is wrong."""
    return _known("mailbox", name, config.mailboxes)


def known_queue(config: Config, name: str) -> str:
    """``name``, if the configuration has a queue of that name; else the command line is wrong."""
    return _known("queue", name, config.queues)


def _known(what: str, name: str, names: Collection[str]) -> str:
    from mailpoller.config.problems import did_you_mean

    if name not in names:
        refuse(f"there is no {what} {name}{did_you_mean(name, names) or '; there is ' + (', '.join(names) or 'none')}")
    return name


@contextmanager
def reader(config: Config) -> Iterator[LedgerReader]:
    """The ledger for reading, also while a daemon holds it. Raises LedgerUnavailable if there is none yet, or none
    for us."""
    opened = getattr(config.ledger, "reader", None)
    if opened is None:
        raise ConfigError(f"a ledger of type {config.ledger.type} cannot be read beside a running service")
    path: Path | None = getattr(config.ledger, "path", None)
    if path is not None and denied(path):
        raise LedgerUnavailable(f"{path}: permission denied; members of the service's group may read the ledger")
    with opened() as found:
        yield found


def denied(path: Path, mode: int = os.R_OK) -> bool:
    """True if the file, or a directory above it, keeps us out. A file that is missing does not."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return not accessible(path, mode)


def ask(
    config: Config, request: Mapping[str, Any], *, seconds: float = 30, body: bytes | None = None
) -> dict[str, Any]:
    """Ask the running daemon. Raises TransientError if none answers."""
    from mailpoller.engine.control import ask as ask_socket

    asked = {"who": who(), **request}
    return ask_socket(config.service.control_socket, asked, deadline=timedelta(seconds=seconds), body=body)


def who() -> str:
    """Who asks, as the journal names them: whoever called sudo, or the user."""
    if (name := os.environ.get("SUDO_USER")) and os.environ.get("SUDO_UID"):
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def carry_out(config: Config, request: Mapping[str, Any], *, seconds: float = 30) -> dict[str, Any]:
    """Have the running daemon do it within ``seconds``; if none runs, do it here, with the ledger locked meanwhile.

    Raises LedgerUnavailable if there is no ledger yet (one that a verb made might belong to the wrong user), or if a
    daemon holds it and yet does not answer.
    """
    try:
        return ask(config, request, seconds=seconds)
    except LedgerUnavailable:
        raise
    except TransientError as silence:
        with reader(config):
            pass  # there is one, and we may read it
        try:
            return asyncio.run(_alone(config, request))
        except TransientError as error:
            raise TransientError(f"{error}; and {silence}") from None


async def _alone(config: Config, request: Mapping[str, Any]) -> dict[str, Any]:
    from mailpoller.assembly.outbox import provenance_of
    from mailpoller.engine.clock import SystemClock
    from mailpoller.engine.health import Health
    from mailpoller.engine.operations import Operations
    from mailpoller.engine.outbox_operations import OutboxOperations

    clock = SystemClock()
    ledger = await config.ledger.open(clock)
    try:
        verb, told = str(request["do"]), {"who": who(), **request}
        if verb.startswith("quarantine-"):
            return await _with_quarantine(config, ledger, clock, verb, told)
        operations = Operations(ledger, Health(clock), {}, {})
        outbox = OutboxOperations(ledger, provenance_of(config, ledger, clock)).handlers()
        accept = operations.noted("outbox-accept", outbox["outbox-accept"])
        handlers = {**operations.handlers(), **outbox, "outbox-accept": accept}
        return dict(await handlers[verb](told))
    finally:
        await ledger.close()


async def _with_quarantine(
    config: Config, ledger: Ledger, clock: Clock, verb: str, request: Mapping[str, Any]
) -> dict[str, Any]:
    """What can be done with quarantined mail without queues. Whoever has the ledger has the quarantine, too."""
    from mailpoller.app import quarantine_block
    from mailpoller.core.component import Runtime
    from mailpoller.core.delivery import QUARANTINE
    from mailpoller.core.spool import Spool
    from mailpoller.engine.custody import Custody

    state = config.service.state_directory
    spool = Spool(state / "spool")
    spool.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = quarantine_block(config).build(QUARANTINE, Runtime(clock, spool, state))
    try:
        handlers = Custody(store, ledger).handlers()
        if verb not in handlers:
            raise TransientError("release and retry need the queues of the running service: start it")
        return dict(await handlers[verb](request))
    finally:
        await store.close()
