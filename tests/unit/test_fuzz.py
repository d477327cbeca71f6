"""Where the fuzzers begin, and what they found: every file of the corpus is fed to its target again."""

from __future__ import annotations

import random
import time

import pytest

from fuzz.one import MEGABYTES, SLOWEST, Watch, measured_anew, mutated, peak
from fuzz.targets import CORPUS, TARGETS, seeds
from pace import paced

EVERY = [(target, name) for target in TARGETS for name in seeds(target)]


@pytest.mark.parametrize(("target", "name"), EVERY, ids=lambda word: word)
def test_nothing_of_the_corpus_breaks_what_reads_it_or_takes_a_second(target: str, name: str) -> None:
    octets = seeds(target)[name]
    begun = time.process_time()
    TARGETS[target](octets)
    assert time.process_time() - begun < paced(SLOWEST)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_made_of_the_seeds_at_random_breaks_nothing_either(target: str, tmp_path) -> None:
    rng, watch, own = random.Random(target), Watch(target, tmp_path), list(seeds(target).values())
    before = measured_anew()
    for _ in range(60):
        watch.feed(mutated(rng, own))
    assert watch.findings == {}
    assert peak() - before < MEGABYTES


def test_the_corpus_is_small_and_every_target_has_one() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 1 << 18


def test_a_watch_notes_what_breaks_each_kind_once_and_goes_on(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(data: bytes) -> None:
        {b"a": lambda: 1 // 0, b"b": lambda: [][0]}.get(data, lambda: None)()

    monkeypatch.setitem(TARGETS, "mail", breaks)  # type: ignore[misc]
    watch = Watch("mail", tmp_path)
    for data in (b"a", b"b", b"c", b"a"):
        watch.feed(data)
    assert sorted(kind.partition(" ")[0] for kind in watch.findings) == ["IndexError", "ZeroDivisionError"]
    assert sorted((tmp_path / name).read_bytes() for name in watch.findings.values()) == [b"a", b"b"]
    assert watch.runs == 4
