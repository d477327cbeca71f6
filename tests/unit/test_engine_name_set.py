"""A set of names costs a few octets each, and misses none."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from mailpoller.engine.name_set import NameSet


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.text(max_size=70)), max_size=5), st.lists(st.text(max_size=70)))
def test_it_has_what_was_added_and_nothing_else(pages: list[list[str]], others: list[str]) -> None:
    names = NameSet()
    for page in pages:
        names.add(page)
        assert all(name in names for name in page), "also between two pages"
    added = {name for page in pages for name in page}
    assert all(name in names for name in added)
    assert not any(name in names for name in others if name not in added)
    assert len(names) == sum(map(len, pages))


def test_a_hundred_thousand_names_are_held_in_a_megabyte() -> None:
    tracemalloc.start()
    try:
        names = NameSet()
        for page in range(100):
            names.add(f"{page:03}-{number:060}" for number in range(1000))
        assert "042-" + "0" * 60 in names and "absent" not in names
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_500_000
