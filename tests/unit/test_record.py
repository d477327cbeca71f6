"""What every small immutable type promises, although its methods are made only when they are needed."""

from __future__ import annotations

import pickle
from dataclasses import field, fields, replace

import pytest

from mailpoller.core.record import record


@record
class Place:
    """A place."""

    name: str
    number: int = 0
    secret: str = field(default="", repr=False)
    remark: str = field(default="", compare=False)


@record
class Nothing:
    """No field at all."""


@record
class Shouting:
    """Shows and compares itself."""

    word: str

    def __repr__(self) -> str:
        return self.word.upper()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shouting) and self.word.lower() == other.word.lower()

    def __hash__(self) -> int:
        return hash(self.word.lower())


def test_equal_fields_make_equal_records_with_equal_hashes():
    one, other = Place("a", 1, remark="x"), Place("a", 1, remark="y")

    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, Place("b")}) == 2
    assert one != Place("a", 2)


def test_a_record_is_no_other_thing_that_looks_alike():
    assert Place("a") != ("a", 0, "", "")
    assert Nothing() == Nothing()
    assert Nothing() != Place("")


def test_a_record_shows_its_fields_but_for_those_that_are_not_to_be_seen():
    assert repr(Place("a", 1, "hidden")) == "Place(name='a', number=1, remark='')"
    assert repr(Nothing()) == "Nothing()"


def test_what_a_class_says_itself_holds():
    assert repr(Shouting("a")) == "A"
    assert Shouting("a") == Shouting("A")
    assert len({Shouting("a"), Shouting("A")}) == 1


def test_a_record_is_a_dataclass_with_slots():
    assert [one.name for one in fields(Place)] == ["name", "number", "secret", "remark"]
    assert replace(Place("a"), number=2) == Place("a", 2)
    assert pickle.loads(pickle.dumps(Place("a", 1))) == Place("a", 1)
    with pytest.raises(AttributeError):
        Place("a").colour = "red"
