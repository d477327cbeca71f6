"""The schema for editors and the reference page say what the loader does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import TypeAdapter
from test_config_example import EXAMPLE, everything

from mailpoller.config import registry
from mailpoller.config.reference import reference
from mailpoller.config.schema import json_schema
from mailpoller.core.prose import attribute_docstrings
from mailpoller.wire.tls import TlsMode

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def wrong(validator: Any, text: str) -> list[str]:
    return [error.json_path for error in validator.iter_errors(yaml.safe_load(text))]


def test_schema_takes_the_example_and_every_key_of_it(validator: Any) -> None:
    text = EXAMPLE.read_text("utf-8")
    assert wrong(validator, text) == []
    assert wrong(validator, everything(text)) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("mailboxs: {}", "$"),
        ("service: {log_level: loud}", "$.service.log_level"),
        ("queues: {support: {type: sqlite}}", "$.queues.support"),
        ("queues: {our support: {type: sqlite, path: /a}}", "$.queues"),
        ("defaults: {pol_interval: 60s}", "$.defaults"),
        ("defaults: {locked: [tsl]}", "$.defaults.locked"),
        ("mailboxes: {a: {type: imap, hots: b}}", "$.mailboxes.a"),
        ("mailboxes: {a: {type: imap, poll_interval: 60}}", "$.mailboxes.a"),
        ("quarantine: {type: queue}", "$.quarantine"),
        ("alerts: {outgoing: relay, to: Ops}", "$.alerts.to"),
        ("queues: {a: {type: smtp, outgoing: relay, to: [Ops <ops@example.com>]}}", "$.queues.a"),
    ],
)
def test_schema_refuses(validator: Any, text: str, where: str) -> None:
    assert where in wrong(validator, text)


def test_schema_lets_defaults_and_extends_supply_what_a_mailbox_needs(validator: Any) -> None:
    assert wrong(validator, "{defaults: {type: imap, host: a}, mailboxes: {a: {username: b}, c: {extends: a}}}") == []


def test_schema_takes_one_address_without_a_list(validator: Any) -> None:
    assert wrong(validator, "alerts: {outgoing: relay, to: ops@example.com}") == []
    assert wrong(validator, "queues: {a: {type: smtp, outgoing: relay, to: ops@example.com}}") == []


@pytest.mark.parametrize(
    "mode", ["tls", "starttls-required", "starttls", "none", "ssl-tls", "start-tls-required", "start-tls", "off"]
)
@pytest.mark.parametrize(
    "block",
    [
        "mailboxes: {{a: {{type: imap, host: b, username: c, password: d, tls: {}}}}}",
        "mailboxes: {{a: {{type: pop3, host: b, username: c, password: d, tls: {}}}}}",
        "outgoing: {{a: {{type: smtp, host: b, sender: c@example.com, tls: {}}}}}",
        "defaults: {{tls: {}}}",
    ],
)
def test_schema_takes_every_name_of_a_tls_mode_that_the_loader_takes(validator: Any, block: str, mode: str) -> None:
    assert TypeAdapter(TlsMode).validate_python(yaml.safe_load(mode))
    assert wrong(validator, block.format(mode)) == []


def test_schema_takes_nought_without_a_unit(validator: Any) -> None:
    assert wrong(validator, "outgoing: {a: {type: smtp, host: b, sender: c@example.com, keep: 0}}") == []


def test_schema_takes_no_other_tls_mode(validator: Any) -> None:
    assert wrong(validator, "defaults: {tls: ssl}") == ["$.defaults.tls"]


def test_schema_is_self_contained() -> None:
    schema = json_schema()
    refs = set(re.findall(r"'\$ref': '([^']+)'", str(schema)))
    assert {ref.removeprefix("#/$defs/") for ref in refs} <= set(schema["$defs"])


def test_reference_page_is_what_the_code_says() -> None:
    """Stale? ``python -m mailpoller.config.reference > docs/reference.md``."""
    assert REFERENCE.read_text("utf-8") == reference()


def test_reference_describes_every_key() -> None:
    undescribed = re.findall(r"^- \*\*`(\w+)`\*\* \([^)]*\)$", reference(), re.MULTILINE)
    assert set(undescribed) <= {"type"}
    for kind in registry.kinds:
        for name in registry.known(kind):
            assert f": {name}\n\n`type: {name}`" in reference()


def test_every_key_is_described_by_the_docstring_of_its_attribute() -> None:
    schema = json_schema()
    service = schema["$defs"]["service"]["properties"]
    assert service["memory_per_mailbox"]["description"].startswith("Octets of mail in hand of one mailbox.")
    inherited = schema["$defs"]["sinks.jsonl"]["properties"]
    assert inherited["payload"]["description"].startswith("What the event holds")


def test_who_annotates_an_attribute_anew_documents_it_anew() -> None:
    class Base:
        one: int = 1
        """The first."""
        other: int = 2
        """The other."""

    class Further(Base):
        one: int = 3

    assert attribute_docstrings(Base) == {"one": "The first.", "other": "The other."}
    assert attribute_docstrings(Further) == {"other": "The other."}


def test_class_without_source_has_no_attribute_docstrings() -> None:
    assert attribute_docstrings(type("Made", (), {"__annotations__": {"one": int}})) == {}
