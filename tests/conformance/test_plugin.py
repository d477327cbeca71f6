"""The package in ``examples/plugin`` is a plug-in from outside: installed into an environment of its own, its tests
pass there, and a service polls, judges and delivers with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from mailpoller.testing import builders

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


class Environment:
    """A new virtual environment that borrows what is installed here, and is otherwise empty."""

    def __init__(self, directory: Path) -> None:
        venv.create(directory, symlinks=True)
        (packages,) = directory.glob("lib/python*/site-packages")
        # A line with the path alone would leave out what is installed here by reference, and that is mailpoller.
        (packages / "borrowed.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        self.directory = directory

    def install(self, package: Path) -> None:
        words = ["--python", str(self.directory), "install", "--quiet", "--disable-pip-version-check"]
        offline = ["--no-index", "--no-deps", "--no-build-isolation"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, *offline, str(package)], capture_output=True, text=True, timeout=110
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, module: str, *words: str, cwd: Path) -> str:
        """What a module of this environment writes. AssertionError with both streams unless it ends with 0."""
        strange = ("PYTEST", "PYTHON", "MAILPOLLER")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(strange)}
        done = subprocess.run(
            [str(self.directory / "bin" / "python"), "-m", module, *words], cwd=cwd, env=kept,
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package alone: nothing of this project's tree is beside it or written into."""
    left = shutil.ignore_patterns("__pycache__", ".*_cache")
    return Path(shutil.copytree(PLUGIN, tmp_path_factory.mktemp("outside") / "plugin", ignore=left))


@pytest.fixture(scope="module")
def outside(package: Path) -> Environment:
    made = Environment(package.parent / "venv")
    made.install(package)
    return made


def test_nothing_of_it_is_known_before_it_is_installed(package: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mailpoller", "check", "config.yaml"], cwd=package, capture_output=True, text=True
    )
    assert done.returncode == 78, done.stdout + done.stderr
    assert all(f"config.yaml:{line}" in done.stderr for line in (8, 15, 20)), done.stderr  # where the types are named


def test_its_own_tests_pass_where_it_is_installed(outside: Environment, package: Path) -> None:
    said = outside.run("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", cwd=package)
    # Every promise is put to it, and none is left out but those that are another kind's.
    assert " passed" in said and int(said.rpartition(" passed")[0].split()[-1]) > 80, said


def test_service_polls_judges_and_delivers_with_it(outside: Environment, package: Path, tmp_path: Path) -> None:
    shutil.copy(package / "config.yaml", tmp_path)
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    (incoming / "1.eml").write_bytes(builders.plain(subject="WHERE IS MY ORDER"))
    (incoming / "2.eml").write_bytes(builders.plain(subject="Thank you"))
    said = outside.run("mailpoller", "check", "--config", "config.yaml", cwd=tmp_path)
    assert "no errors, 0 warnings" in said
    for _ in range(2):  # the second one finds nothing to do
        outside.run("mailpoller", "run", "--once", "--config", "config.yaml", cwd=tmp_path)
        events = [json.loads(file.read_bytes())["data"] for file in (tmp_path / "queue").glob("*.json")]
        assert sorted((event["subject"], event["tags"]) for event in events) == [
            ("Thank you", []),
            ("WHERE IS MY ORDER", ["loud"]),
        ]
