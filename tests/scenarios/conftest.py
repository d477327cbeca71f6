"""One Dovecot for all scenarios, and a fresh site with a fresh user for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.harness import Site
from servers.dovecot import Dovecot

pytest.register_assert_rewrite("scenarios.suite")

_numbers = itertools.count()


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as server:
        yield server


@pytest.fixture
def user() -> str:
    return f"scenario{next(_numbers)}"


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    """A site with one mailbox, ``support``."""
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user)
    return site
