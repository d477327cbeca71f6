"""What integration tests share: one Dovecot for the whole run, and a user name that nobody else has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from servers.dovecot import Dovecot

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    """A Dovecot that is started once; tests keep apart by their :func:`user`. A test that stops it starts its own."""
    with Dovecot() as server:
        yield server


@pytest.fixture
def user() -> str:
    """The name of a user whose mailbox is empty."""
    return f"user{next(_numbers)}"
