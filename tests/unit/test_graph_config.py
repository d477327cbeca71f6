"""The YAML blocks of Graph: what they allow, and where they lead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from mailpoller.config import load
from mailpoller.core.errors import ConfigError
from mailpoller.outgoings.graph import GraphOutgoingConfig
from mailpoller.sources.graph import GraphConfig
from mailpoller.sources.graph.session import epoch_of
from mailpoller.wire.oauth import terms_of
from servers.mailboxes import runtime

AUTH = {
    "type": "oauth2", "provider": "microsoft", "grant": "client_credentials", "tenant": "example.com",
    "client_id": "11111111-2222-3333-4444-555555555555", "client_secret": "env:GRAPH_SECRET",
}  # fmt: skip

GOOGLE = {"type": "oauth2", "provider": "google"}


def source(**settings: Any) -> GraphConfig:
    return GraphConfig.model_validate({"type": "graph", "user": "support@example.com", "auth": AUTH, **settings})


def outgoing(**settings: Any) -> GraphOutgoingConfig:
    return GraphOutgoingConfig.model_validate(
        {"type": "graph", "sender": "mailpoller@example.com", "auth": AUTH, **settings}
    )


@pytest.mark.parametrize(
    ("cloud", "host", "login"),
    [
        ("global", "graph.microsoft.com", "login.microsoftonline.com"),
        ("us-gov", "graph.microsoft.us", "login.microsoftonline.us"),
        ("us-dod", "dod-graph.microsoft.us", "login.microsoftonline.us"),
        ("china", "microsoftgraph.chinacloudapi.cn", "login.partner.microsoftonline.cn"),
    ],
)
def test_national_clouds_have_hosts_of_their_own(cloud: str, host: str, login: str) -> None:
    config = source(auth={**AUTH, "cloud": cloud})
    terms = config.auth.terms("graph", config.user)
    assert config.service == f"https://{host}/v1.0"
    assert outgoing(auth={**AUTH, "cloud": cloud}).service == config.service
    assert terms.endpoints.token.startswith(f"https://{login}/example.com/")
    assert terms.scopes == (f"https://{host}/.default",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"user": "support/../other"}, "principal name"),
        ({"user": ".."}, "principal name"),
        ({"user": "a b@example.com"}, "principal name"),
        ({"user": "me"}, "say whose mailbox"),
        ({"url": "http://graph.example.com/v1.0"}, "never goes over http"),
        ({"url": "https://me@graph.example.com/v1.0"}, "without user"),
        ({"folders": ["inbox", "Inbox"]}, "twice"),
        ({"folders": ["a//b"]}, "empty parts"),
        ({"disposition": {"flag": "\\Answered"}}, "no flag"),
        ({"disposition": {"flag": "a,b"}}, "category"),
        ({"disposition": {"move": "a//b"}}, "empty parts"),
        ({"deletion": "permanent", "auth": {**AUTH, "cloud": "china"}}, "national cloud"),
        ({"timeout": "1ms"}, "at least"),
        ({"ca_file": "/ca.pem", "pin": "00" * 32}, "exclude"),
        ({"auth": {"type": "password"}}, "oauth2"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        source(**settings)


def test_another_provider_has_to_say_where_graph_is() -> None:
    auth = {**AUTH, "token_url": "https://login.example.com/token"}
    del auth["provider"]
    with pytest.raises(ValidationError, match="say url"):
        source(auth=auth)
    with pytest.raises(ValidationError, match="say url"):
        outgoing(auth=auth)
    assert source(auth=auth, url="https://graph.example.com").service == "https://graph.example.com/v1.0"


def test_epoch_is_host_mailbox_and_folder_and_no_more() -> None:
    before = epoch_of(source(), "AAMk=")
    assert before == "graph://support@example.com@graph.microsoft.com/;FOLDER=AAMk="
    assert epoch_of(source(user="Support@Example.com", url="https://graph.microsoft.com:443/beta"), "AAMk=") == before
    others = [
        epoch_of(source(), "AAMl="),
        epoch_of(source(user="sales@example.com"), "AAMk="),
        epoch_of(source(auth={**AUTH, "cloud": "us-gov"}), "AAMk="),
    ]
    assert len({before, *others}) == 4


def test_mail_larger_than_graph_takes_is_no_setting() -> None:
    with pytest.raises(ValidationError):
        outgoing(max_size="4MB")
    assert outgoing(max_size="1MB").max_size == 1_000_000


def test_no_secret_is_shown() -> None:
    config = source(auth={**AUTH, "client_secret": "plain-secret"})
    assert "plain-secret" not in repr(config) + config.model_dump_json()


def test_two_mailboxes_of_one_application_are_two_accounts(tmp_path: Path) -> None:
    folder = tmp_path / "mailpoller.yaml"
    mailbox = {"type": "graph", "auth": AUTH, "default_queue": "support"}
    settings = {
        "queues": {"support": {"type": "sqlite", "path": str(tmp_path / "queue.db")}},
        "mailboxes": {name: {**mailbox, "user": f"{name}@example.com"} for name in ("support", "sales")},
    }
    folder.write_text(yaml.safe_dump(settings), "utf-8")
    config = load(folder, environment="production")
    assert config.warnings == ()
    folder.write_text(folder.read_text("utf-8").replace("sales@", "support@"), "utf-8")
    (warning,) = load(folder, environment="production").warnings
    assert "polls the same folder" in warning.message


def test_login_is_asked_for_in_the_name_of_whoever_sends() -> None:
    delegated = {**AUTH, "grant": "device_code"}
    del delegated["client_secret"]
    for block, owner in (
        (source(auth=delegated), "support@example.com"),
        (outgoing(auth=delegated), "mailpoller@example.com"),
        (outgoing(auth=delegated, user="office@example.com"), "office@example.com"),
    ):
        terms = terms_of(block)
        assert terms is not None
        assert (terms.owner, any(scope.endswith("/Mail.Send") for scope in terms.scopes)) == (owner, True)


def test_missing_library_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpcore", None)
    for block in (source(), outgoing()):
        with pytest.raises(ConfigError, match=r"mailpoller\[graph\]"):
            block.build("support", runtime(tmp_path))


@pytest.mark.parametrize(
    ("kind", "whose", "keys"),
    [
        (
            "gmail",
            "user",
            {
                "auth": {
                    "type": "oauth2",
                    "provider": "google",
                    "grant": "service_account",
                    "service_account": "env:GRAPH_SECRET",
                }
            },
        ),
        ("ews", "mailbox", {"url": "https://mail.example.com/EWS/Exchange.asmx", "username": "u", "password": "p"}),
    ],
)
def test_two_owners_behind_one_login_are_two_accounts(
    tmp_path: Path, kind: str, whose: str, keys: dict[str, object]
) -> None:
    file = tmp_path / "mailpoller.yaml"
    settings = {
        "queues": {"support": {"type": "sqlite", "path": str(tmp_path / "queue.db")}},
        "mailboxes": {
            name: {"type": kind, "default_queue": "support", whose: f"{name}@example.com", **keys}  # type: ignore[dict-item]
            for name in ("support", "sales")
        },
    }
    file.write_text(yaml.safe_dump(settings), "utf-8")
    assert not [one for one in load(file, environment="production").warnings if "same folder" in one.message]
    file.write_text(file.read_text("utf-8").replace("sales@", "Support@"), "utf-8")
    assert [one for one in load(file, environment="production").warnings if "same folder" in one.message]
