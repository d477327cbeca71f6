"""What configurations, consumers, monitors and scripts rely on stays what it is, from commit to commit."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "words.py"


@pytest.fixture(scope="module")
def record():
    spec = importlib.util.spec_from_file_location("words", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_public_word_goes(record):
    gone = sorted(record.recorded() - record.words())

    assert gone == [], "somebody's files use them; if it must be: python scripts/words.py --drop, and CHANGELOG.md"


def test_every_public_word_is_on_record(record):
    new = sorted(record.words() - record.recorded())

    assert new == [], "from now on somebody relies on them: python scripts/words.py"


@pytest.mark.parametrize("kind", ["config", "verb", "log", "event", "entry point", "exit code", "alarm"])
def test_words_of_every_kind_are_found(record, kind):
    assert sum(word.startswith(f"{kind}: ") for word in record.words()) >= 5
