"""Dependencies run one way: the contracts of pyproject.toml hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _lint(config: Path) -> tuple[int, str]:
    program = (
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(config_filename=sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(config)], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    return done.returncode, done.stdout + done.stderr


def test_no_import_runs_against_the_layers() -> None:
    code, report = _lint(ROOT / "pyproject.toml")
    assert code == 0, report


def test_contracts_would_notice_an_import_that_does(tmp_path: Path) -> None:
    """config imports core: a contract that forbids it has to be broken, or the test above proves nothing."""
    upside_down = tmp_path / "contracts.toml"
    upside_down.write_text(
        '[tool.importlinter]\nroot_package = "mailpoller"\n[[tool.importlinter.contracts]]\nname = "upside down"\n'
        'type = "layers"\nlayers = ["mailpoller.core", "mailpoller.demo"]\n',
        "utf-8",
    )
    code, report = _lint(upside_down)
    assert code != 0, report
    assert "BROKEN" in report
