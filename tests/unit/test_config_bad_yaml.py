"""A table of wrong configurations: each file in ``bad_yaml`` holds the files and the exact problems that they get.

``=== NAME`` begins a file, ``=== problems`` the problems, one a line, as ``str(problem)`` gives them. A new case is a
new file, named after what is wrong; every case holds the sentinel somewhere, which must never show.
"""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from mailpoller.config import ConfigErrors, load

CASES = sorted((Path(__file__).parent / "bad_yaml").glob("*.txt"))
SENTINEL = "s3cr3t-sentinel"


def unpack(case: Path, directory: Path) -> list[str]:
    """Write the case's files below ``directory``; the problems it expects."""
    name, texts = "", dict[str, str]()
    for line in case.read_text("utf-8").splitlines(keepends=True):
        if line.startswith("=== "):
            name = line.removeprefix("=== ").strip()
            texts[name] = ""
        else:
            texts[name] += line
    problems = texts.pop("problems").splitlines()
    for file, text in texts.items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(text, "utf-8")
    return problems


def errors_of(directory: Path) -> ConfigErrors:
    with pytest.raises(ConfigErrors) as caught:
        load(Path("mailpoller.yaml"))
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_every_problem_of_a_wrong_file_is_told_exactly(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = unpack(case, tmp_path)
    found = errors_of(tmp_path)
    assert [str(problem) for problem in found.problems] == expected
    assert str(found).splitlines() == [str(problem) for problem in found.problems if problem.severity == "error"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_no_secret_shows_in_any_form_of_an_error(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unpack(case, tmp_path)
    found = errors_of(tmp_path)
    shown = "\n".join((str(found), repr(found), repr(found.problems), "".join(traceback.format_exception(found))))
    assert SENTINEL in case.read_text("utf-8")
    assert SENTINEL not in shown
