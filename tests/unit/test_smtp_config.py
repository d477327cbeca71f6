"""The outgoing's block: what may be written, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.core.component import Runtime
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig

RELAY = {"type": "smtp", "host": "smtp.example.com", "sender": "mailpoller@example.com"}


def block(**more: Any) -> SmtpConfig:
    return SmtpConfig.model_validate({**RELAY, **more})


def test_the_shortest_block_is_safe() -> None:
    config = block()
    assert (config.tls, config.username, config.null_sender) == ("starttls-required", None, True)


@pytest.mark.parametrize(
    ("written", "mode", "port"),
    [
        ("tls", "tls", 465),
        ("ssl-tls", "tls", 465),
        ("starttls-required", "starttls-required", 587),
        ("start-tls-required", "starttls-required", 587),
        ("starttls", "starttls", 587),
        ("start-tls", "starttls", 587),
        ("none", "none", 25),
    ],
)
def test_the_port_follows_the_mode_whatever_it_is_called(written: str, mode: str, port: int) -> None:
    config = block(tls=written)
    assert config.tls == mode
    assert config.relay().port == port
    assert block(tls=written, port=2525).relay().port == 2525


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "smtp.example.com:587"},
        {"host": "smtp://example.com"},
        {"host": ""},
        {"port": 0},
        {"port": 70000},
        {"tls": "maybe"},
        {"sender": "Mailpoller <m@example.com>"},
        {"sender": "m@example.com\r\nBcc: x@example.com"},
        {"sender": "nobody"},
        {"username": "u"},
        {"password": "p"},
        {"timeout": "0s"},
        {"timeout": 30},
        {"helo": "a b"},
        {"helo": "a\r\nQUIT"},
        {"pin": "abc"},
        {"pin": "ab" * 32, "ca_file": "/etc/ssl/ca.pem"},
        {"connections": 0},
        {"max_size": "lots"},
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_cannot_work_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        block(**wrong)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "::1", "relay", "smtp.example.com"])
def test_a_host_may_be_a_name_or_an_address(host: str) -> None:
    assert block(host=host).host == host


def test_brackets_around_an_address_are_no_part_of_it_and_a_control_character_is_none_of_a_name() -> None:
    assert block(host="[2001:db8::1]").host == "2001:db8::1"
    with pytest.raises(ValidationError, match="a host is a name or an address"):
        block(host="relay\0.example.com")


def test_the_password_shows_nowhere() -> None:
    config = block(username="u", password="geheim")
    built = config.build("relay", Runtime(SystemClock(), Spool(Path("unused")), Path("unused")))
    shown = f"{config!r} {config.model_dump()} {config.model_dump_json()} {config.relay()!r} {built.__dict__}"
    assert "geheim" not in shown
    with pytest.raises(ValidationError) as caught:
        block(username="u", password="geheim", port="geheim")
    assert "geheim" not in str(caught.value)
