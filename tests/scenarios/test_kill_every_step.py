"""Killed before, during or after any step, nothing is lost and nothing is twice in the queue."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.dovecot import Dovecot

COUNT = 25
STEPS = [
    ("before", "ledger.claim", 1),
    ("after", "ledger.claim", 2),
    ("before", "ledger.advance", 1),
    ("after", "ledger.advance", 1),
    ("before", "session.fetch", 2),
    ("during", "session.fetch", 2),
    ("after", "session.fetch", 1),
    ("before", "parse", 13),
    ("after", "parse", 13),
    ("before", "sink.deliver", 2),
    ("after", "sink.deliver", 1),
    ("after", "sink.deliver", 2),
    ("before", "ledger.settle", 1),
    ("after", "ledger.settle", 2),
    ("before", "session.settle", 1),
    ("after", "session.settle", 2),
    ("before", "ledger.disposed", 1),
    ("after", "ledger.disposed", 2),
    ("before", "session.close", 1),
]


def fill(dovecot: Dovecot, user: str, count: int = COUNT) -> Counter[str]:
    for number in range(count):
        dovecot.deliver(user, plain(subject=f"message {number}"))
    return Counter(f"message {number}" for number in range(count))


def assert_all_is_well(site: Site, dovecot: Dovecot, user: str, expected: Counter[str]) -> None:
    assert site.subjects() == expected
    flags = dovecot.flags(user, "INBOX")
    assert len(flags) == expected.total()
    assert all("\\Seen" in of_one for of_one in flags.values()), flags
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": expected.total(), "undisposed": 0}


@pytest.mark.parametrize(("when", "step", "number"), STEPS, ids=lambda value: str(value))
def test_killed_at_any_step_nothing_is_lost_and_nothing_is_twice(
    site: Site, dovecot: Dovecot, user: str, when: str, step: str, number: int
) -> None:
    site.settings["service"]["batch_messages"] = 10
    expected = fill(dovecot, user)
    assert site.once(kill=(when, step, number)) == -signal.SIGKILL
    assert site.once() == 0
    assert_all_is_well(site, dovecot, user, expected)


@pytest.mark.parametrize(
    ("when", "step"), [(when, f"ledger.{step}") for when in ("before", "after") for step in ("at_risk", "cleared")]
)
def test_killed_again_while_suspects_travel_alone_nothing_is_lost_and_nobody_is_quarantined(
    site: Site, dovecot: Dovecot, user: str, when: str, step: str
) -> None:
    expected = fill(dovecot, user, 6)
    assert site.once(kill=("after", "session.fetch", 1)) == -signal.SIGKILL
    for number in (1, 2):
        assert site.once(kill=(when, step, number)) == -signal.SIGKILL
    assert site.once() == 0
    assert_all_is_well(site, dovecot, user, expected)


def test_a_message_that_kills_the_parser_is_quarantined_after_its_strikes_and_its_neighbours_are_delivered(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    quarantine = site.directory / "quarantine"
    site.settings["quarantine"] = {"type": "maildir", "path": str(quarantine)}
    poison = plain(subject="poison", headers={"X-Kills-The-Parser": "yes"})
    for number in range(10):
        dovecot.deliver(user, plain(subject=f"neighbour {number}") if number != 4 else poison)
    deaths = 0
    while (code := site.once(kill=("never", "poison", 1))) == -signal.SIGKILL:
        deaths += 1
        assert deaths <= 4
    assert code == 0
    assert deaths == 4, "the first death makes suspects, the next three are strikes"
    assert site.subjects() == Counter(f"neighbour {number}" for number in range(10) if number != 4)
    held = list((quarantine / "new").iterdir())
    assert len(held) == 1
    assert held[0].read_bytes() == poison
