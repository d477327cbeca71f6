"""A fresh site with a fresh user for each scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.harness import Site
from servers.dovecot import Dovecot


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    """A site with one mailbox, ``support``."""
    site = Site(tmp_path)
    site.imap("support", dovecot.imap_port, user)
    return site
