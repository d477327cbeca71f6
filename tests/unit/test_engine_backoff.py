"""The waits after failures."""

from __future__ import annotations

from datetime import timedelta

from mailpoller.engine.backoff import Backoff


def test_wait_is_never_below_the_floor_and_grows_to_the_cap() -> None:
    backoff = Backoff(timedelta(seconds=30), timedelta(seconds=300))
    waits = [backoff.failed() for _ in range(10)]
    assert all(wait >= 30 for wait in waits)
    assert waits[0] <= 36
    assert waits[1] >= 60
    assert all(300 <= wait <= 360 for wait in waits[5:])


def test_a_login_that_is_followed_by_a_drop_does_not_reset_the_growth() -> None:
    backoff = Backoff(timedelta(seconds=10), timedelta(seconds=1000))
    for _ in range(4):
        backoff.failed()
        backoff.succeeded(now=100.0)
    assert backoff.failed() >= 160


def test_five_stable_minutes_reset_the_growth() -> None:
    backoff = Backoff(timedelta(seconds=10), timedelta(seconds=1000))
    for _ in range(4):
        backoff.failed()
    backoff.succeeded(now=100.0)
    backoff.succeeded(now=399.0)
    assert backoff.failures == 4
    backoff.succeeded(now=400.0)
    assert backoff.failures == 0
    assert backoff.failed() <= 12


def test_a_blip_is_tried_once_more_within_seconds_and_only_once() -> None:
    backoff = Backoff(timedelta(seconds=30), timedelta(seconds=300), blip=timedelta(seconds=3))
    assert 1 <= backoff.failed() <= 3
    assert 30 <= backoff.failed() <= 36
    assert 60 <= backoff.failed() <= 72
    backoff.succeeded(now=0.0)
    backoff.succeeded(now=299.0)
    assert backoff.failed() >= 120, "it is not good for long enough yet"
    backoff.succeeded(now=0.0)
    backoff.succeeded(now=300.0)
    assert backoff.failed() <= 3
    assert Backoff(timedelta(seconds=1), timedelta(seconds=9), blip=timedelta(seconds=3)).failed() <= 1
    wished = Backoff(timedelta(seconds=30), timedelta(seconds=300), blip=timedelta(seconds=3))
    assert wished.failed(at_least=timedelta(seconds=60)) >= 60


def test_the_peers_own_wish_is_honoured() -> None:
    backoff = Backoff(timedelta(seconds=1), timedelta(seconds=60))
    assert backoff.failed(at_least=timedelta(minutes=20)) >= 1200


def test_an_absurd_wish_of_the_peer_is_bounded() -> None:
    backoff = Backoff(timedelta(seconds=1), timedelta(seconds=60))
    assert backoff.failed(at_least=timedelta(days=300)) <= 1.2 * 3600
