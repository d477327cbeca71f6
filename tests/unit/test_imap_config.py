"""The YAML block of an IMAP mailbox, and TLS as a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.sources.imap import ImapConfig
from mailpoller.sources.imap.opened import epoch_of
from mailpoller.wire.tls import TlsPolicy
from servers.dovecot import self_signed


def config(**settings: Any) -> ImapConfig:
    values = {"type": "imap", "host": "imap.example.com", "username": "joe", "password": "secret", **settings}
    return ImapConfig.model_validate(values)


def test_only_host_user_and_password_must_be_said() -> None:
    found = config()
    assert (found.tls, found.effective_port, found.folders, found.idle) == ("tls", 993, ["INBOX"], True)
    assert found.policy == TlsPolicy()


@pytest.mark.parametrize(
    ("written", "mode", "port"),
    [
        ("tls", "tls", 993),
        ("ssl-tls", "tls", 993),
        ("starttls-required", "starttls-required", 143),
        ("start-tls-required", "starttls-required", 143),
        ("starttls", "starttls", 143),
        ("start-tls", "starttls", 143),
        ("none", "none", 143),
        (False, "none", 143),
    ],
)
def test_the_port_follows_the_tls_mode_unless_it_is_said(written: object, mode: str, port: int) -> None:
    assert (config(tls=written).tls, config(tls=written).effective_port) == (mode, port)
    assert config(tls=written, port=1143).effective_port == 1143


@pytest.mark.parametrize(
    "settings",
    [
        {"host": ""},
        {"host": "imap.example.com:993"},
        {"host": "imaps://imap.example.com"},
        {"port": 70000},
        {"tls": "maybe"},
        {"folders": []},
        {"folders": ["INBOX", "inbox"]},
        {"folders": ["a\r\nb"]},
        {"pin": "abc"},
        {"pin": "0" * 64, "ca_file": "/etc/ca.pem"},
        {"connect_timeout": "0"},
        {"command_timeout": "1ms"},
        {"auth": {"mechanism": "telepathy"}},
        {"disposition": {"flag": "two words"}},
        {"on_quarantine": {"flag": "ümlaut"}},
        {"disposition": {"flag": "\\Recent"}},
        {"pasword": "secret"},
    ],
)
def test_what_cannot_work_is_refused_without_showing_the_password(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**settings)
    assert "secret" not in str(caught.value)


def test_an_ipv6_address_is_a_host() -> None:
    assert config(host="::1").host == config(host="[::1]").host == "::1"
    assert epoch_of(config(host="::1"), 5) == "imap://joe@[::1]/;UIDVALIDITY=5"


def test_the_epoch_tells_users_apart_whatever_characters_they_have() -> None:
    assert epoch_of(config(username="joe@example.com", host="Imap.Example.COM"), 5) == (
        "imap://joe%40example.com@imap.example.com/;UIDVALIDITY=5"
    )


def test_another_tls_mode_is_no_new_epoch_but_another_port_is() -> None:
    epochs = {epoch_of(config(tls=mode), 5) for mode in ("tls", "starttls-required", "none")}
    assert len(epochs) == 1
    assert epoch_of(config(port=1143), 5) == "imap://joe@imap.example.com:1143/;UIDVALIDITY=5"


def test_equal_policies_share_a_context_until_the_ca_file_changes(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(self_signed()[0])
    first = TlsPolicy(ca_file).context()
    assert TlsPolicy(ca_file).context() is first
    assert TlsPolicy().context() is TlsPolicy().context() is not first
    ca_file.write_bytes(self_signed()[0] + b"\n")
    import os

    os.utime(ca_file, (1, 1))
    assert TlsPolicy(ca_file).context() is not first


def test_a_ca_file_of_no_use_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        TlsPolicy(tmp_path / "missing.pem").context()
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="no PEM certificate"):
        TlsPolicy(tmp_path / "empty.pem").context()


def test_a_pin_is_compared_with_the_certificate_itself() -> None:
    policy = TlsPolicy(pin="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    policy.check(b"abc")
    for other in (b"abd", b"", None):
        with pytest.raises(TransientError, match="not the pinned one"):
            policy.check(other)
