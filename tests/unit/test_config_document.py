"""Files that no sysadmin wrote: too large, too deep, not text, not there. Each ends in one problem, soon."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.config import ConfigErrors, document, load
from mailpoller.config.document import read
from mailpoller.config.node import Node, plain
from mailpoller.config.problems import Problem


def parse(text: str | bytes, tmp_path: Path) -> tuple[Node | None, list[Problem]]:
    file = tmp_path / "file.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    problems: list[Problem] = []
    return read(file, problems), problems


def only_problem(text: str | bytes, tmp_path: Path) -> str:
    began = time.monotonic()
    tree, problems = parse(text, tmp_path)
    assert tree is None
    assert time.monotonic() - began < 5
    (problem,) = problems
    return str(problem).removeprefix(f"{tmp_path}/")


def test_billion_laughs_are_refused_before_they_cost_anything(tmp_path: Path) -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{'abcdefghijklmn'[n]}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert only_problem("\n".join(lines), tmp_path) == "file.yaml:7:14: aliases stand for more than 2,000,000 values"


def test_nesting_by_aliases_counts_as_nesting(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [[[[[*a{n - 1}]]]]]" for n in range(1, 20))]
    assert "nested more than 32 deep" in only_problem("\n".join(lines), tmp_path)


@pytest.mark.parametrize("brackets", ["[", "{a: ", "- "])
def test_endless_nesting_is_refused(brackets: str, tmp_path: Path) -> None:
    assert "nested more than 32 deep" in only_problem(brackets * 100_000, tmp_path)


@pytest.mark.parametrize("depth", [33, 999, 1_001, 5_000])
def test_nesting_is_refused_in_our_words_whoever_notices_first(
    depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libyaml scans ahead of its events, and refuses at a depth and in words that are its own and change."""
    assert "nested more than 32 deep" in only_problem("a: " + "[" * depth + "]" * depth, tmp_path)

    class Impatient(yaml.SafeLoader):
        def check_event(self, *choices: object) -> bool:
            raise yaml.MarkedYAMLError("", None, "words of another library", yaml.Mark("", 43, 0, 43, None, 0))

    monkeypatch.setattr(document, "_Loader", Impatient)
    assert only_problem("a: " + "[" * depth, tmp_path) == "file.yaml:1:44: nested more than 32 deep"


def test_error_in_a_shallow_file_is_not_taken_for_nesting(tmp_path: Path) -> None:
    shallow = "a: [" + "[x], " * 40 + "}"
    assert "nested" not in only_problem(shallow, tmp_path)


def test_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_OCTETS", 1 << 20)
    text = "a: " + "x" * (1 << 20)
    assert only_problem(text, tmp_path) == "file.yaml:1:1: larger than 1 MiB: this is not a configuration file"


def test_text_that_is_not_utf8_is_told_with_its_place(tmp_path: Path) -> None:
    found = only_problem("a: b\nc: Grö".encode() + "ße: s3cr3t".encode("latin-1"), tmp_path)
    assert found == "file.yaml:2:7: not UTF-8 text: save the file as UTF-8"


def test_utf16_is_told(tmp_path: Path) -> None:
    assert only_problem("a: b\n".encode("utf-16"), tmp_path) == "file.yaml:1:1: not UTF-8 text: save the file as UTF-8"


def test_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    tree, problems = parse(b"\xef\xbb\xbfa: b\n", tmp_path)
    assert tree is not None and problems == []
    assert (plain(tree), tree.entries["a"].column) == ({"a": "b"}, 1)


def test_control_characters_are_told_with_their_place(tmp_path: Path) -> None:
    assert only_problem("a: b\nc: d\x00e", tmp_path) == "file.yaml:2:5: a control character, which YAML forbids"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "~\n"])
def test_empty_file_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "a.yaml")
    assert str(caught.value) == f"{tmp_path}/a.yaml:1:1: the file is empty"


def test_empty_drop_in_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("queues: {q: {type: jsonl, path: /q}}\ninclude: b*.yaml\n")
    (tmp_path / "b.yaml").write_text("# later\n")
    assert len(load(tmp_path / "a.yaml").files) == 2


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "a.yaml")
    assert str(caught.value) == f"{tmp_path}/a.yaml:1:1: there is no such file"


def test_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}:1:1: this is a directory, not a file"


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path / "a.yaml")
    assert str(caught.value) == f"{tmp_path}/a.yaml:1:1: cannot be read: Too many levels of symbolic links"


def test_scalars_are_what_yaml_1_1_says_and_keys_are_always_text(tmp_path: Path) -> None:
    tree, problems = parse(
        'no: no\n1: 0x10\n~: ~\n2026-01-01: 2026-01-01\na: "no"\nb: !!str 5\nc: 1e3\nd: 1.5', tmp_path
    )
    assert tree is not None and problems == []
    assert plain(tree) == {
        "no": False, "1": 16, "~": None, "2026-01-01": date(2026, 1, 1), "a": "no", "b": "5", "c": "1e3", "d": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize("text", ["2026-02-31", "1" * 5000, "99999-99-99", "0b", "0x", "-", "12:99:99"])
def test_impossible_scalars_are_text_or_numbers_and_never_a_crash(text: str, tmp_path: Path) -> None:
    tree, problems = parse(f"a: {text}\n", tmp_path)
    assert problems == [] or tree is None


def test_every_node_knows_its_place(tmp_path: Path) -> None:
    tree, _ = parse("a:\n  - b: c\n    d: e\n  - f\n", tmp_path)
    assert tree is not None
    first, second = tree.entries["a"].value  # type: ignore[misc, union-attr]
    assert isinstance(first, Node) and isinstance(second, Node)
    places = [(node.path, node.line, node.column) for node in (first, first.entries["d"], second)]
    assert places == [("a[0]", 2, 5), ("a[0].d", 3, 5), ("a[1]", 4, 5)]


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,?~ \n\t<\\0é", max_size=60))
def test_no_text_crashes_the_reader(text: str) -> None:
    composer = document._Composer(Path("f"), text, [])
    try:
        plain(composer.compose())
    except document.Unreadable as unreadable:
        assert unreadable.problem.line >= 1
