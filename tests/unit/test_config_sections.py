"""A section is one row of a table: two made-up ones are read, checked, shown and described like all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest
import yaml

from mailpoller.config import ConfigErrors, effective, load, sections
from mailpoller.config.reference import overview, reference
from mailpoller.config.schema import json_schema
from mailpoller.config.sections import Section
from mailpoller.core.component import Block, SinkConfig
from mailpoller.core.literals import QueueName, Secret
from places import open_to_all

ROOT = Path(__file__).parents[2]


class TenantConfig(Block):
    """A customer of ours."""

    plan: Literal["small", "large"] = "small"
    """What they pay for."""
    queue: QueueName
    """Where their mail goes."""
    token: Secret | None = None
    """What they log in with."""


TENANTS: Section[Mapping[str, TenantConfig]] = Section(
    "tenants", "named", summary="customers, by name", without="none", noun="tenant", model=TenantConfig, drop_in=True
)
ARCHIVE: Section[SinkConfig] = Section(
    "archive",
    "block",
    summary="where everything goes too",
    without="a file",
    kind="sinks",
    left_out=lambda made: {"type": "jsonl", "path": str(made["service"].state_directory / "all.jsonl")},
)

MAIN = """
service: {state_directory: /state}
queues: {support: {type: jsonl, path: /q}}
mailboxes: {m: {type: maildir, path: /m}}
include: conf.d/*.yaml
"""
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one place that is touched."""
    monkeypatch.setattr(sections, "TABLE", (*sections.TABLE, TENANTS, ARCHIVE))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(main: str = "", drop_in: str = "") -> Path:
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        (tmp_path / "conf.d/a.yaml").write_text(drop_in, "utf-8")
        path = tmp_path / "mailpoller.yaml"
        path.write_text(MAIN + main, "utf-8")
        path.chmod(0o644)
        return path

    return write


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(path)
    return [str(problem).removeprefix(f"{path.parent}/") for problem in caught.value.problems]


def test_new_section_is_read_from_every_file(write: Write) -> None:
    config = load(write("tenants: {acme: {queue: support}}", "tenants: {late: {queue: support, plan: large}}"))
    assert {name: tenant.plan for name, tenant in config.of(TENANTS).items()} == {"acme": "small", "late": "large"}
    assert getattr(config.of(ARCHIVE), "path", None) == Path("/state/all.jsonl")


def test_new_section_is_checked_with_file_and_line(write: Write) -> None:
    path = write(
        "tenants:\n  acme: {queue: suport}\n  other: {queue: support, plam: small}\n",
        "tenants:\n  acme: {queue: support}\narchive: {type: jsonl, path: /a}\n",
    )
    assert problems(path) == [
        'mailpoller.yaml:7:10: tenants.acme.queue: no queue is called suport; did you mean "support"?',
        'mailpoller.yaml:8:27: tenants.other.plam: there is no such key; did you mean "plan"?',
        f"conf.d/a.yaml:2:3: tenants.acme: this name is taken by {path}:7:3",
        "conf.d/a.yaml:3:1: archive: only the main file may have this key; "
        "a drop-in may define queues, outgoing, rules, rule_sets, mailboxes, tests, tenants",
    ]


def test_new_section_has_its_paths_and_secrets_looked_after(write: Write, tmp_path: Path) -> None:
    assert problems(write("archive: {type: jsonl, path: /q}")) == [
        "mailpoller.yaml:6:24: archive.path: queues.support has the same path"
    ]
    config = load(write("tenants: {acme: {queue: support, token: 'env:NOT_THERE'}}"))
    assert [problem.path for problem in config.missing_secrets()] == ["tenants.acme.token"]
    open_to_all(tmp_path)
    config = load(write("tenants: {acme: {queue: support, token: plainly}}"))
    assert [problem.path for problem in config.warnings if "every user" in problem.message] == ["tenants.acme.token"]


def test_new_section_is_shown_with_its_secrets_masked_and_loads_again(write: Write) -> None:
    config = load(write("tenants: {acme: {queue: support, token: plainly}}\narchive: {type: jsonl, path: /a}"))
    shown: dict[str, Any] = effective(config)
    assert shown["tenants"]["acme"]["plan"] == "small" and shown["archive"]["path"] == "/a"
    assert "plainly" not in str(shown)
    again = write()
    again.write_text(yaml.safe_dump(shown), "utf-8")
    assert effective(load(again)) == shown


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("tenants: {acme: {queue: support, plan: large}}", True),
        ("tenants: {acme: {queue: support, plan: huge}}", False),
        ("tenants: {acme: {plan: large}}", False),
        ("tenants: {'a b': {queue: support}}", False),
        ("archive: {type: jsonl, path: /a}", True),
        ("archive: {type: nothing}", False),
    ],
)
def test_new_section_is_in_the_schema(text: str, valid: bool) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(yaml.safe_load(text)) is valid


def test_new_section_is_in_the_reference() -> None:
    page = reference()
    assert "## tenants\n\n`tenants:`. A customer of ours.\n" in page
    assert "- **`queue`** (name of a queue; required): Where their mail goes.\n" in page
    assert "## archive\n" in page
    assert "| `tenants` | customers, by name | none |\n" in overview()


def test_documentation_shows_every_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale? Replace the table in ``docs/configuration.md`` by what ``overview()`` gives."""
    monkeypatch.undo()
    assert overview() in (ROOT / "docs/configuration.md").read_text("utf-8")
