"""The project as a whole: what the package says of itself is true, and no machine has left its traces in the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import mailpoller
from mailpoller.core.component import KINDS, BlobsConfig, LedgerConfig, OutgoingConfig, SinkConfig
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.source_config import SourceConfig

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PORTS = {
    "sources": SourceConfig,
    "sinks": SinkConfig,
    "rules": RuleConfig,
    "ledgers": LedgerConfig,
    "outgoings": OutgoingConfig,
    "blobs": BlobsConfig,
    "intakes": IntakeSettings,
}
OURS = [
    (kind, name, target)
    for kind in KINDS
    for name, target in PROJECT["entry-points"][f"mailpoller.{kind}"].items()
]  # fmt: skip

# What only the machine of whoever wrote it knows. Spelt in pieces, so that this file is not its own first finding.
TRACES = re.compile(
    r"/(?:work|root|home/[a-z]+|opt/(?:pypi|wheels))/"
    r"|\.pyenv|extra-index|index-url|find-links|pythonhosted\.org|//pypi\.org/simple"
)


def _tracked() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_installed_version_is_the_one_in_the_source() -> None:
    assert version("mailpoller") == mailpoller.__version__


def test_the_changelog_knows_the_version_or_what_will_become_of_it() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## [{mailpoller.__version__}]" in text or "## [Unreleased]" in text


@pytest.mark.parametrize(("kind", "name", "target"), OURS, ids=[f"{kind}-{name}" for kind, name, _ in OURS])
def test_entry_point_gives_the_config_class_of_its_kind(kind: str, name: str, target: str) -> None:
    (entry,) = entry_points(group=f"mailpoller.{kind}", name=name)
    assert entry.value == target, "the installed package is older than pyproject.toml: pip install -e ."
    config = entry.load()
    assert issubclass(config, PORTS[kind])
    assert config.__doc__, "the first line of the reference page"
    assert name in (config.model_fields["type"].annotation.__args__ if kind != "rules" else (name,))


def test_every_python_file_says_what_it_is() -> None:
    files = [path for path in _tracked() if path.suffix == ".py" and path.read_bytes().strip()]
    assert len(files) > 20
    silent = [
        path.relative_to(ROOT) for path in files if not re.match(r'(#!.*\n)?(#.*\n)*r?"""\S', path.read_text("utf-8"))
    ]
    assert silent == []


def test_no_machine_has_left_its_traces() -> None:
    found = []
    for path in _tracked():
        if path == Path(__file__).resolve() or path.name == "LICENSE":
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {trace[0]}" for trace in TRACES.finditer(text)]
    assert found == []


def test_trace_finder_finds_traces() -> None:
    for trace in ("cd /" + "work/main", "/" + "root/x", "PIP_" + "index-url=x", "/" + "home/alice/"):
        assert TRACES.search(trace)
    for harmless in ("/opt/mailpoller/bin", "https://example.com/work", "the /work queue", "/etc/mailpoller"):
        assert not TRACES.search(harmless)


def test_scripts_are_executable_and_free_of_syntax_errors() -> None:
    for name in ("scripts/test", "scripts/demo", "scripts/fresh", "scripts/lock", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111 == 0o111, name
        assert (ROOT / name).read_text("utf-8").startswith("#!/bin/sh\n")
    for name in ("scripts/test", "scripts/demo", "scripts/fresh", "scripts/lock", "scripts/environment", ".ci/run"):
        subprocess.run(["sh", "-n", str(ROOT / name)], check=True, timeout=10)


def test_continuous_integration_runs_what_the_readme_says() -> None:
    assert (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1].endswith("exec sh scripts/test")
    assert re.search(r"^scripts/test\b", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)


def test_help_comes_without_loading_what_only_a_daemon_needs() -> None:
    program = "import sys, mailpoller.cli.program; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not {"aioimaplib", "aiosmtplib", "pymap", "re2", "mailpoller.engine"} & set(done.stdout.split())
