"""What was begun is known to the next process, whatever became of this one."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.storage.begun import Begun


def ids(*numbers: int) -> list[str]:
    return [str(UUID(int=number)) for number in numbers]


def test_what_was_begun_is_known_to_the_next_process(tmp_path: Path) -> None:
    Begun(tmp_path / "deep" / "ids").add(ids(1, 2))
    again = Begun(tmp_path / "deep" / "ids")
    assert again.among(ids(1, 2, 3)) == ids(1, 2)
    again.add(ids(3))
    assert Begun(tmp_path / "deep" / "ids").among(ids(1, 2, 3)) == ids(1, 2, 3)


def test_a_line_that_a_crash_tore_spoils_no_other(tmp_path: Path) -> None:
    Begun(tmp_path / "ids").add(ids(1))
    with (tmp_path / "ids").open("ab") as file:
        file.write(b"\n0000-torn")
    Begun(tmp_path / "ids").add(ids(2))
    assert Begun(tmp_path / "ids").among(ids(1, 2)) == ids(1, 2)


def test_the_file_stays_bounded_and_the_newest_are_known(tmp_path: Path) -> None:
    begun = Begun(tmp_path / "ids", limit=10)
    for number in range(100):
        begun.add(ids(number))
        assert (tmp_path / "ids").stat().st_size < 25 * 38
    assert Begun(tmp_path / "ids", limit=10).among(ids(*range(100)))[-10:] == ids(*range(90, 100))
    begun.add(ids(*range(200, 250)))
    assert Begun(tmp_path / "ids", limit=10).among(ids(*range(240, 250))) == ids(*range(240, 250))


def test_looking_makes_nothing_and_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    assert Begun(tmp_path / "deep" / "ids").among(ids(1)) == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(TransientError, match="ids"):
        Begun(tmp_path / "file" / "ids").add(ids(1))
