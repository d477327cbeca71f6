"""What the tests of the three plug-ins share."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock

# The promises are asserts of another package; so they say what they compared.
pytest.register_assert_rewrite("mailpoller.testing")


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return Runtime(clock=SystemClock(), spool=spool, state_directory=tmp_path)
