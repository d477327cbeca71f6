"""The example is true: it loads, so does every line that it has switched off, and it leaves no key out."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import BaseModel

from mailpoller.config import load, registry
from mailpoller.config.fields import keys_of
from mailpoller.config.model import AlertsConfig, QuarantineConfig, ServiceConfig
from mailpoller.config.reference import blocks_inside

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
SWITCHED_OFF = re.compile(r"^( *)#(?=[\w-]+:|- |[\w-]+$)", re.MULTILINE)


def everything(text: str) -> str:
    """The example with every line that is switched off switched on."""
    return SWITCHED_OFF.sub(r"\1", text)


def installed() -> list[type[BaseModel]]:
    plugins = [registry.load_plugin(kind, name) for kind in registry.kinds for name in registry.known(kind)]
    return [ServiceConfig, AlertsConfig, QuarantineConfig, *plugins]


def test_example_loads_as_it_is() -> None:
    config = load(EXAMPLE, environment="production")
    assert config.warnings == ()
    assert config.runs("support")


def test_example_loads_with_every_key_switched_on(tmp_path: Path) -> None:
    (tmp_path / "mailpoller.yaml").write_text(everything(EXAMPLE.read_text("utf-8")), "utf-8")
    config = load(tmp_path / "mailpoller.yaml", environment="production")
    assert {mailbox.type for mailbox in config.mailboxes.values()} == set(registry.known("sources"))
    assert {queue.type for queue in config.queues.values()} == set(registry.known("sinks"))
    doubts = [problem.path for problem in config.warnings if "nobody names" not in problem.message]
    assert doubts == ["include"]


def test_example_mentions_every_key_of_every_block() -> None:
    text = EXAMPLE.read_text("utf-8")
    mentioned = set(re.findall(r"^ *#? ?(?:- )?([\w-]+):", text, re.MULTILINE))
    blocks = [block for model in installed() for block in (model, *blocks_inside(model))]
    assert {f"{block.__name__}.{key}" for block in blocks for key in keys_of(block) if key not in mentioned} == set()


def test_values_that_are_switched_off_are_the_defaults(tmp_path: Path) -> None:
    service = yaml.safe_load(everything(EXAMPLE.read_text("utf-8")))["service"]
    assert ServiceConfig.model_validate(service) == ServiceConfig()


def test_example_is_in_block_style_and_tells_editors_its_schema() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=")
    flow = [event for event in yaml.parse(everything(text)) if getattr(event, "flow_style", None)]
    assert flow == []


def test_first_example_of_the_guide_is_a_whole_configuration(tmp_path: Path) -> None:
    guide = (EXAMPLE.parent / "docs" / "configuration.md").read_text("utf-8")
    first = re.findall(r"^```yaml\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "mailpoller.yaml").write_text(first, "utf-8")
    config = load(tmp_path / "mailpoller.yaml", environment="production")
    assert (config.warnings, config.mailboxes["support"].default_queue) == ((), "support")


def test_guide_quotes_messages_that_the_loader_gives() -> None:
    guide = (EXAMPLE.parent / "docs" / "configuration.md").read_text("utf-8")
    table = "".join(case.read_text("utf-8") for case in (Path(__file__).parent / "bad_yaml").glob("*.txt"))
    quoted = re.findall(r"^(?:\S+\.yaml):\d+:\d+: \S+: (.*)$", guide, re.MULTILINE)
    assert len(quoted) >= 2
    assert [message for message in quoted if message not in table] == []
