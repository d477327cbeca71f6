"""What is made before anything is opened: state directory, spool, outgoings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mailpoller.assembly.standins import outgoing_of
from mailpoller.config import Config
from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError, LedgerLocked
from mailpoller.core.ports import (
    Clock,
)
from mailpoller.core.spool import Spool
from mailpoller.storage.disk import make_directory


def prepare_state(config: Config) -> None:
    """Make the state directory if it is missing. Raises :class:`ConfigError` if that cannot be."""
    try:
        make_directory(config.service.state_directory, mode=0o750)
    except OSError as error:
        raise _unusable(config.service.state_directory, error) from None


def prepare_spool(config: Config) -> Callable[[], None]:
    """Make the spool and empty it of what a killed process left; what gives it back at the end.

    Raises :class:`ConfigError` if it cannot be used, and :class:`LedgerLocked` if another process uses it: one with
    another ledger, and the same state directory.
    """
    state = config.service.state_directory
    spool = Spool(state / "spool")
    try:
        spool.hold()
        spool.prepare()
    except BlockingIOError:
        spool.close()
        raise LedgerLocked(
            f"{spool.directory}: in use by another process, which has another ledger: give each its own "
            f"service.state_directory"
        ) from None
    except OSError as error:
        spool.close()
        raise _unusable(state, error) from None
    return spool.close


def _unusable(state: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the state directory {state} cannot be used: {error.strerror}; service.state_directory names another"
    )


def prepare_runtime(config: Config, clock: Clock, *, spool: bool = True) -> Runtime:
    """State directory and spool made (unless told not to: both are whose the ledger is), outgoings built; nothing
    connected.

    Raises :class:`ConfigError` if the state directory cannot be used.
    """
    state = config.service.state_directory
    directory = Spool(state / "spool")
    try:
        if spool:
            make_directory(state, mode=0o750)
            directory.prepare()
    except OSError as error:
        raise _unusable(state, error) from None
    bare = Runtime(clock=clock, spool=directory, state_directory=state)
    outgoings = {name: outgoing_of(name, block, bare) for name, block in config.outgoing.items() if block.enabled}
    return Runtime(clock=clock, spool=directory, state_directory=state, outgoings=outgoings)
