"""The engine's promises, in hundreds of stormy histories: each is lived through in simulated time, then audited."""

from __future__ import annotations

import gc
import logging
import weakref
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from engine_storm import LEDGER, SINK, SOURCE, Climate, simulate

from mailpoller.engine import supervisor

pytestmark = pytest.mark.timeout(1200)
"""No history waits, and the loop itself ends one that is busy with nothing: who is slow here has little processor."""

TRAITS = (
    "hangs up", "unanswered", "unfetchable", "large", "kills", "refused", "not now", "crashes the "
                                                                                     "queue", "crashes a rule",
    "exhausts", "discarded",
)  # fmt: skip

CLIMATES = {
    "servers": Climate(SOURCE, stops=0.3, hangs=True, traits=("hangs up", "unanswered", "unfetchable", "large")),
    "numberings": Climate(SOURCE, stops=0.3, renumbering=0.15, outages=0.1, traits=("large",)),
    "ledgers": Climate(LEDGER, stops=0.3),
    "deaths": Climate(deaths=0.005, stops=0.3, traits=("kills",)),
    "queues": Climate(SINK, outages=0.3, rules=0.2, traits=TRAITS[5:]),
    "changes": Climate(
        SOURCE + LEDGER + SINK,
        deaths=0.0015,
        outages=0.1,
        stops=0.3,
        hangs=True,
        changes=0.2,
        traits=("hangs up", "large"),
    ),
    "copies": Climate(
        SOURCE, restores=0.2, outages=0.15, stops=0.3, lies=0.1, traits=("large", "doubtful", "estimated")
    ),
    "lags": Climate(SOURCE, lags=0.25, gaps=0.1, outages=0.1, stops=0.4, traits=("estimated",)),
    "replicas": Climate(absences=0.15, lags=0.1, gaps=0.15, outages=0.2, stops=0.2, once=True, traits=("estimated",)),
    "maildrops": Climate(SOURCE, whole=True, absences=0.05, outages=0.15, stops=0.3, lies=0.1, traits=("doubtful",)),
    "machines": Climate(vanishing=0.3, jumps=0.2, outages=0.1, stops=0.4, lies=0.1, traits=("not now",)),
    "everything": Climate(
        SOURCE + LEDGER + SINK,
        deaths=0.002,
        renumbering=0.05,
        outages=0.1,
        rules=0.1,
        stops=0.3,
        hangs=True,
        bugs=True,
        traits=TRAITS,
    ),
}
HISTORIES = {"everything": 50, "copies": 16, "machines": 14, "maildrops": 15, "deaths": 20}
FEWER = 24
"""Histories that are lived through of each climate; a history's seed is its number."""


@pytest.fixture(autouse=True)
def calm_heart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The supervisor need not look every five simulated seconds."""
    monkeypatch.setattr(supervisor, "HEARTBEAT", timedelta(minutes=1))
    yield


@pytest.fixture(autouse=True)
def _nothing_logged() -> Iterator[None]:
    """Half of the time would go into lines that nobody reads."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def _no_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who judges for long lets others go on; how long that is on a busy machine must not decide what happens here."""
    monkeypatch.setattr("mailpoller.engine.judge._BREATH", float("inf"))


def test_a_history_that_is_over_takes_no_memory(tmp_path: Path) -> None:
    """Hundreds are lived through in one process: what stayed of each would slow down all that come after it."""
    world = weakref.ref(simulate(0, CLIMATES["servers"], tmp_path))
    gc.collect()
    assert world() is None


@pytest.mark.parametrize("climate", CLIMATES)
def test_every_promise_is_kept_whatever_fails(climate: str, tmp_path: Path) -> None:
    happened: Counter[str] = Counter()
    for seed in range(HISTORIES.get(climate, FEWER)):
        world = simulate(seed, CLIMATES[climate], tmp_path)
        assert not world.broken, (climate, seed, world.broken[:5])
        happened.update(
            faults=world.faults.total(),
            deaths=world.deaths,
            renumbered=world.renumbered,
            outages=world.outages,
            changes=world.changed,
            **world.happened,
        )
    weather = CLIMATES[climate]
    assert happened["faults"] > 300 or not weather.steps
    assert happened["restored"] > 10 or not weather.restores
    assert happened["away"] > 10 or not weather.absences
    assert happened["behind"] > 20 or not weather.lags
    assert happened["gaps"] > 10 or not weather.gaps
    assert happened["lied"] > 10 or not weather.lies
    assert happened["vanished"] > 20 or not weather.vanishing
    assert happened["jumped"] > 5 or not weather.jumps
    assert happened["deaths"] > 100 or not CLIMATES[climate].deaths
    assert happened["renumbered"] > 50 or not CLIMATES[climate].renumbering
    assert happened["changes"] > 300 or not CLIMATES[climate].changes
    assert happened["outages"] > 10 or not CLIMATES[climate].outages
