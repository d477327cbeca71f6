"""Every outside program that tests, demonstration and benchmarks start is in the table ``scripts/programs``, and the
scripts read it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servers import programs
from servers.programs import PROGRAMS, rows
from unit.starts import ASKED, PYTHON, Scan

ROOT = Path(__file__).parents[2]
STARTERS = ("tests", "bench", "src/mailpoller/demo", "src/mailpoller/testing", "src/mailpoller/cli")
OURS = {PYTHON, "mailpoller", ASKED}
UNCLEAR = {"bench/rig/process.py"}
"""It starts whatever a benchmark hands it; in a benchmark each list that looks like a command is taken for one."""
READER = ROOT / "tests" / "servers" / "programs.py"
KINDS = {"python", "unit", "suite", "unpacked", "optional", "bench", "fresh"}


def scan(*files: Path, root: Path = ROOT) -> Scan:
    return Scan(files, root, lists=lambda path: path.is_relative_to(root / "bench"))


def lacking(found: Scan) -> list[tuple[str, str]]:
    return sorted((where, program) for where, program in found.programs if program not in PROGRAMS.keys() | OURS)


@pytest.fixture(scope="module")
def found() -> Scan:
    return scan(*(path for part in STARTERS for path in sorted((ROOT / part).rglob("*.py")) if path != READER))


def test_every_program_that_is_started_is_in_the_table(found: Scan) -> None:
    assert lacking(found) == []


def test_every_start_says_which_program_it_starts(found: Scan) -> None:
    assert [(where, what) for where, what in sorted(found.unclear) if where.rpartition(":")[0] not in UNCLEAR] == []


def test_every_program_of_the_table_is_started_by_somebody(found: Scan) -> None:
    by_scripts = {name for name, row in PROGRAMS.items() if row.wanted_for in ("python", "fresh")}
    assert PROGRAMS.keys() - by_scripts - {program for _, program in found.programs} == set()


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("import subprocess\nsubprocess.run(['swaks', '--to', 'x'])", "swaks"),
        ("import subprocess\nsubprocess.Popen(args=['/usr/bin/swaks'])", "swaks"),
        ("import subprocess\nsubprocess.run('swaks --to x', shell=True)", "swaks"),
        ("import subprocess\nTOOL = 'swaks'\ndef go():\n    subprocess.run([TOOL, 'x'])", "swaks"),
        ("import subprocess\ndef go(*words):\n    subprocess.run([*words])\ngo('swaks', 'x')", "swaks"),
        ("import subprocess\nsubprocess.run(['sh', '-c', 'cd / && swaks --to x'])", "swaks"),
        ("import asyncio\nasync def go():\n    await asyncio.create_subprocess_exec('swaks', 'x')", "swaks"),
        ("import asyncio, subprocess\nasyncio.to_thread(subprocess.run, ['swaks'])", "swaks"),
        ("import os\nos.system('swaks')", "swaks"),
        ("import os\nos.execvp('swaks', ['swaks'])", "swaks"),
        ("import shutil\nshutil.which('swaks')", "swaks"),
        ("from servers import programs\nprograms.find('swaks')", "swaks"),
        ("from subprocess import run as go\ngo(['swaks'])", "swaks"),
        ("import subprocess as sp\nsp.run(['swaks'])", "swaks"),
        ("import subprocess\ndef go(top):\n    subprocess.run([str(top / 'bin' / 'swaks'), 'x'])", "swaks"),
    ],
)
def test_start_of_a_program_that_the_table_lacks_is_found(text: str, program: str, tmp_path: Path) -> None:
    planted = tmp_path / "tests" / "planted.py"
    planted.parent.mkdir()
    planted.write_text(text)
    assert {started for _, started in lacking(scan(planted, root=tmp_path))} == {program}


def test_command_that_a_benchmark_hands_on_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "bench" / "planted.py"
    planted.parent.mkdir()
    planted.write_text("def start():\n    return ['fetchmail', '-f', 'rc'], None")
    assert [started for _, started in lacking(scan(planted, root=tmp_path))] == ["fetchmail"]


def test_start_that_does_not_say_which_program_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import subprocess, json\nsubprocess.run(json.load(open('command')))")
    assert scan(planted, root=tmp_path).unclear == {("planted.py:2", "json.load(open('command'))")}


def test_table_has_no_row_twice_and_knows_only_kinds_that_it_explains() -> None:
    text = programs.TABLE.read_text("utf-8")
    assert len(rows(text)) == len(PROGRAMS)
    assert {row.wanted_for for row in rows(text)} == KINDS
    for kind in KINDS:
        assert f"#           {kind} " in text or f"# for       {kind} " in text.replace("program   ", "")


def test_scripts_name_no_package_but_that_of_the_table() -> None:
    packages = {package for row in PROGRAMS.values() for package in row.packages if len(package) > 5 and "-" in package}
    for file in ("scripts/test", "scripts/demo", "scripts/environment", ".ci/run"):
        text = (ROOT / file).read_text("utf-8")
        assert {package for package in packages if package in text} == set(), file


def shell(line: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """A line in the scripts' environment, on a machine where nothing is on PATH but what every system has."""
    return subprocess.run(
        ["sh", "-euc", f'. scripts/environment\nCOURIER_ROOT=nowhere\n{line}'], cwd=directory,
        capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )  # fmt: skip


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """The scripts with a table of programs that no machine has."""
    (tmp_path / "scripts").mkdir()
    text = (ROOT / "scripts" / "environment").read_text("utf-8")
    (tmp_path / "scripts" / "environment").write_text(text)
    (tmp_path / "scripts" / "programs").write_text(
        "# a comment\n\nfoo /nowhere/foo foo-bin suite\nbar /nowhere/bar,/dev/null bar-bin suite\n"
        "baz /nowhere/baz,/nowhere/too baz-one,baz-two suite\nfoo2 /nowhere/foo2 foo-bin suite\npeer /nowhere/peer "
        "peer bench\n"
    )
    return tmp_path


def test_what_is_missing_is_listed_once_and_by_package(bare: Path) -> None:
    assert shell("missing suite", bare).stdout.split() == ["baz-one", "baz-two", "foo-bin"]
    assert shell("missing bench suite", bare).stdout.split() == ["baz-one", "baz-two", "foo-bin", "peer"]
    assert shell("missing unit", bare).stdout == ""


def test_whoever_may_not_install_gets_the_list_and_69(bare: Path) -> None:
    done = shell("id() { echo 1000; }\npython=python3\nneed suite", bare)
    assert done.returncode == 69
    assert done.stderr.splitlines()[1:4] == ["  baz-one", "  baz-two", "  foo-bin"]


def test_reader_finds_a_program_by_its_proof_and_names_the_package_of_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.touch()
    for row in rows(f"here /nowhere,{here} here-bin suite\ngone /nowhere gone-bin suite\n"):
        monkeypatch.setitem(PROGRAMS, row.name, row)
    ask = [programs.found, programs.find]  # not by their names: these are no programs that a test starts
    assert ask[0]("here") == ask[1]("here") == os.fspath(here)
    assert ask[0]("gone") is None
    with pytest.raises(RuntimeError, match="gone-bin"):
        ask[1]("gone")
    with pytest.raises(KeyError):
        ask[1]("swaks")


def test_test_that_starts_a_stranger_however_it_is_spelt_fails(request: pytest.FixtureRequest) -> None:
    conftest = request.config.pluginmanager.get_plugin(os.fspath(ROOT / "tests" / "conftest.py"))
    sys.audit("subprocess.Popen", None, ["/usr/bin/swaks", "--to"], None, None)  # what any start tells the interpreter
    sys.audit("os.exec", b"/usr/bin/fetchmail", [], None)
    sys.audit("subprocess.Popen", None, ["sh", "-c", "true"], None, None)
    assert conftest._strangers == {"swaks", "fetchmail"}
    conftest._strangers.clear()
