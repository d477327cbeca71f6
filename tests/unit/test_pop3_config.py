"""The POP3 block says what POP3 cannot do, and has defaults that it can."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.config import load
from mailpoller.core.delivery import LEAVE, Disposition
from mailpoller.sources.pop3 import Pop3Config
from mailpoller.sources.pop3.shown import epoch_of


def config(**settings: Any) -> Pop3Config:
    return Pop3Config.model_validate(
        {"type": "pop3", "host": "pop.example.com", "username": "joe", "password": "secret"} | settings
    )


def test_nothing_is_deleted_and_everything_is_taken_unless_somebody_says_so() -> None:
    assert (config().disposition, config().start) == (LEAVE, "all")
    assert config(disposition="delete").disposition == Disposition(delete=True)


@pytest.mark.parametrize("key", ["disposition", "on_quarantine", "on_discard"])
@pytest.mark.parametrize(
    ("written", "wish"),
    [("seen", "mark a message as seen"), ({"flag": "$Done"}, "flag a message"), ({"move": "Done"}, "move a message")],
)
def test_dispositions_that_pop3_cannot_do_are_refused_with_the_reason(key: str, written: Any, wish: str) -> None:
    with pytest.raises(
        ValidationError, match=re.escape(f"POP3 cannot {wish}: a message there is left or deleted, nothing else")
    ):
        config(**{key: written})


@pytest.mark.parametrize("host", ["pop.gmail.com", "POP.Gmail.com", "pop.googlemail.com"])
def test_gmail_wants_its_recent_mode_else_a_crash_would_lose_mail(host: str) -> None:
    with pytest.raises(ValidationError, match="recent:NAME"):
        config(host=host)
    assert config(host=host, username="recent:joe@gmail.com").host == host


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folders": ["INBOX"]}, "Extra inputs"),
        ({"host": "pop3s://pop.example.com"}, "a host is a name or an address"),
        ({"username": "joe\r\nDELE 1"}, "a user name has no line ends"),
        ({"command_timeout": "1ms"}, "at least 100ms"),
        ({"pin": "0" * 64, "ca_file": "/x"}, "exclude each other"),
        ({"client_key": "/x"}, "wants a client_certificate"),
        ({"password": None}, "password is missing"),
        ({"auth": {"type": "external"}}, "without a password"),
        ({"auth": {"mechanism": "rot13"}}, "Input should be"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)


def test_port_follows_the_tls_mode() -> None:
    assert [config(tls=tls).effective_port for tls in ("tls", "starttls-required", "none")] == [995, 110, 110]
    assert config(port=1995).effective_port == 1995


def test_epoch_is_the_same_on_both_standard_ports_and_another_where_uids_are_others() -> None:
    assert epoch_of(config(host="POP.example.com", username="j o"), by_uidl=True) == "pop3://j%20o@pop.example.com/"
    assert epoch_of(config(tls="none"), by_uidl=True) == "pop3://joe@pop.example.com/"
    assert epoch_of(config(port=1995), by_uidl=True) == "pop3://joe@pop.example.com:1995/"
    assert epoch_of(config(host="[::1]"), by_uidl=False) == "pop3://joe@[::1]/;UIDL=none"


def test_mailbox_of_this_kind_loads_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mailpoller.yaml").write_text(
        "queues:\n  support: {type: jsonl, path: /tmp/q}\n"
        "mailboxes:\n  shop:\n    type: pop3\n    host: pop.example.com\n    username: shop\n    password: env:SHOP\n"
        "    disposition: delete\n    poll_interval: 5m\n    default_queue: support\n"
    )
    shop = load(tmp_path / "mailpoller.yaml").mailboxes["shop"]
    assert isinstance(shop, Pop3Config)
    assert shop.poll_interval == timedelta(minutes=5)
