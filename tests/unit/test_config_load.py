"""What a configuration means: who beats whom, what is polled, which secrets are missing, what is doubtful."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from mailpoller.config import Config, ConfigErrors, QuarantineConfig, effective, load
from mailpoller.config.dump import write_duration, write_size
from mailpoller.config.registry import Registry
from mailpoller.core.component import Finding
from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import ConfigError
from mailpoller.core.literals import OutgoingName, QueueName, Secret, parse_duration, parse_size
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from pace import paced
from places import open_to_all

Write = Callable[..., Path]

QUEUES = """
queues:
  support: {type: sqlite, path: /q/support.db}
  billing: {type: sqlite, path: /q/billing.db}
"""
IMAP = "type: imap, host: imap.example.com, username: a, password: 'env:SECRET', default_queue: support"

DESIGN = """\
service:   {environment: production}
ledger:    {type: sqlite, path: /var/lib/mailpoller/ledger.db}
queues:
  support: {type: sqlite, path: /var/lib/mailpoller/queue/support.db}
  billing: {type: sqlite, path: /var/lib/mailpoller/queue/billing.db, payload: raw}
outgoing:
  relay:   {type: smtp, host: smtp.example.com, port: 587, tls: starttls-required, sender: mailpoller@example.com,
            username: mailpoller, password: credential:relay}
quarantine: {type: smtp, outgoing: relay, to: quarantine@example.com}
alerts:    {outgoing: relay, to: [ops@example.com]}
rules:
  - name: invoices
    when: {subject: {contains: [invoice, Rechnung]}}
    then: {topic: billing, queue: billing}
defaults:
  poll_interval: 60s
  reconnect_interval: 30s
  max_message_size: 20MB
  locked: [tls]
mailboxes:
  support: {type: imap, host: imap.example.com, tls: tls, username: support, password: credential:support,
            address: support@example.com, default_queue: support, rules: [invoices], disposition: {move: Processed}}
include:   conf.d/*.yaml
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write files; the path of the main one. A drop-in's keyword is its name below conf.d."""
    monkeypatch.delenv("MAILPOLLER_ENVIRONMENT", raising=False)

    def write_files(main: str, **drop_ins: str) -> Path:
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        (tmp_path / "mailpoller.yaml").write_text(main, "utf-8")
        (tmp_path / "mailpoller.yaml").chmod(0o600)
        for name, text in drop_ins.items():
            (tmp_path / "conf.d" / f"{name}.yaml").write_text(text, "utf-8")
        return tmp_path / "mailpoller.yaml"

    return write_files


def messages(path: Path, **how: Any) -> list[str]:
    """``path: message`` of every error."""
    with pytest.raises(ConfigErrors) as caught:
        load(path, **how)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def warnings(config: Config) -> list[str]:
    """But for those about what these files have and do not use."""
    found = [f"{problem.path}: {problem.message}" for problem in config.warnings]
    return [one for one in found if "nobody names" not in one]


# --- the design's own example
# -------------------------------------------------------------------------------------------
def test_design_loads_as_written(write: Write) -> None:
    config = load(write(DESIGN, a="mailboxes:\n  billing:\n    extends: support\n    username: billing\n"))
    assert warnings(config) == []
    support = config.mailboxes["support"]
    assert support.poll_interval == timedelta(seconds=60)
    assert support.disposition == Disposition(move="Processed")
    assert config.queues["billing"].payload == "raw"
    assert config.alerts is not None and config.alerts.to == ["ops@example.com"]
    assert list(config.rules) == ["invoices"]
    assert [file.name for file in config.files] == ["mailpoller.yaml", "a.yaml"]


# --- precedence
# -----------------------------------------------------------------------------------------------------------
def test_mailbox_beats_what_it_extends_which_beats_defaults(write: Write) -> None:
    config = load(
        write(f"""{QUEUES}
defaults: {{poll_interval: 10m, hold_above: 1, idle: false, reconnect_interval: 5m}}
mailboxes:
  base: {{{IMAP}, poll_interval: 20m, hold_above: 2}}
  middle: {{extends: base, poll_interval: 30m, username: b}}
  leaf: {{extends: middle, poll_interval: 40m, folders: [Leaf]}}
""")
    )
    leaf: Any = config.mailboxes["leaf"]
    assert (leaf.poll_interval, leaf.hold_above, leaf.idle, leaf.reconnect_interval) == (
        timedelta(minutes=40), 2, False, timedelta(minutes=5),
    )  # fmt: skip
    assert leaf.username == "b"


def test_maps_merge_and_lists_replace(write: Write) -> None:
    config = load(
        write(f"""{QUEUES}
rules: [{{name: a, when: {{subject: a}}, then: {{topic: a}}}}, {{name: b, when: {{subject: b}}, then: {{topic: b}}}}]
defaults: {{disposition: {{flag: $Done, seen: true}}, rules: [a, b]}}
mailboxes:
  m: {{{IMAP}, disposition: {{move: Done, seen: false}}, rules: [b]}}
""")
    )
    assert config.mailboxes["m"].disposition == Disposition(seen=False, flags=("$Done",), move="Done")
    assert config.mailboxes["m"].rules == ["b"]


def test_extends_copies_neither_enabled_nor_formerly(write: Write) -> None:
    config = load(
        write(f"{QUEUES}\nmailboxes:\n  base: {{{IMAP}, enabled: false, formerly: old}}\n  m: {{extends: base}}\n")
    )
    assert not config.runs("base")
    assert config.runs("m")
    assert config.mailboxes["m"].formerly is None


def test_nothing_written_overrules_a_default(write: Write) -> None:
    config = load(write(f"{QUEUES}\ndefaults: {{environment: test}}\nmailboxes: {{m: {{{IMAP}, environment: ~}}}}\n"))
    assert config.mailboxes["m"].environment is None


def test_defaults_of_another_type_of_mailbox_are_passed_over(write: Write) -> None:
    config = load(
        write(f"""{QUEUES}
defaults: {{idle: false, host: imap.example.com, default_queue: support}}
mailboxes: {{local: {{type: maildir, path: /mail}}, m: {{{IMAP}}}}}
""")
    )
    assert config.mailboxes["local"].type == "maildir"


def test_key_of_another_type_in_the_mailbox_itself_is_an_error(write: Write) -> None:
    found = messages(
        write(f"{QUEUES}\nmailboxes: {{m: {{type: maildir, path: /mail, idle: true, default_queue: support}}}}\n")
    )
    assert found == ["mailboxes.m.idle: there is no such key"]


def test_yaml_anchors_and_merge_keys_work(write: Write) -> None:
    config = load(
        write(
            f"{QUEUES}\nmailboxes:\n  a: &a {{{IMAP}, hold_above: 1}}\n  b:\n    <<: *a\n    username: b\n    "
            f"hold_above: 2\n"
        )
    )
    b: Any = config.mailboxes["b"]
    assert (b.host, b.username, b.hold_above) == ("imap.example.com", "b", 2)


# --- locked
# ---------------------------------------------------------------------------------------------------------------
LOCKED = f"""{QUEUES}
defaults: {{tls: tls, locked: [tls, host]}}
mailboxes:
  base: {{{IMAP}, tls: none}}
outgoing:
  relay: {{type: smtp, host: smtp.example.com, tls: none, sender: a@example.com}}
include: conf.d/*.yaml
"""


def test_locked_keys_hold_for_drop_ins_only(write: Write) -> None:
    config = load(write(LOCKED))
    assert getattr(config.mailboxes["base"], "tls", None) == "none"
    assert getattr(config.outgoing["relay"], "tls", None) == "none"


def test_drop_in_may_supply_what_is_not_locked_and_inherit_the_rest(write: Write) -> None:
    config = load(write(LOCKED, a="mailboxes: {m: {extends: base, username: m, password: 'file:/p', folders: [M]}}"))
    assert getattr(config.mailboxes["m"], "host", None) == "imap.example.com"


def test_locked_error_names_both_places(write: Write) -> None:
    path = write(LOCKED, a="mailboxes:\n  m:\n    extends: base\n    host: evil.example.com\n")
    assert messages(path) == [f"mailboxes.m.host: this key is locked by {path}:6:36; remove it here"]


def test_locked_keys_hold_for_an_outgoing_of_a_drop_in(write: Write) -> None:
    path = write(LOCKED, a="outgoing:\n  o: {type: smtp, host: h.example.com, tls: none, sender: a@example.com}\n")
    assert messages(path) == [
        f"outgoing.o.host: this key is locked by {path}:6:36; remove it here",
        f"outgoing.o.tls: this key is locked by {path}:6:31; remove it here",
    ]


@pytest.mark.parametrize("key", ["username", "password"])
def test_credentials_that_are_locked_are_locked(write: Write, key: str) -> None:
    path = write(
        LOCKED.replace("locked: [", f"locked: [{key}, "),
        a=f"mailboxes: {{m: {{extends: base, folders: [M], {key}: 'env:X'}}}}\n"
        f"outgoing: {{o: {{type: graph, sender: a@example.com}}}}\n",
    )
    assert f"mailboxes.m.{key}: this key is locked by {path}:6:31; remove it here" in messages(path)


def test_a_key_of_an_outgoing_alone_can_be_locked(write: Write) -> None:
    path = write(
        LOCKED.replace("host]", "helo]"), a="outgoing: {o: {type: smtp, host: h, sender: a@b.c, helo: x.example}}"
    )
    assert messages(path) == [f"outgoing.o.helo: this key is locked by {path}:6:36; remove it here"]


# --- what is disabled need not be complete
# ---------------------------------------------------------------------------------
TEMPLATE = f"""{QUEUES}
mailboxes:
  template:
    type: imap
    host: imap.example.com
    tls: tls
    enabled: false
include: conf.d/*.yaml
"""


def test_a_template_carries_host_and_tls_and_a_drop_in_the_credentials(write: Write) -> None:
    path = write(
        TEMPLATE, a="mailboxes: {m: {extends: template, username: u, password: 'file:/p', default_queue: support}}"
    )
    config = load(path)
    mailbox: Any = config.mailboxes["m"]
    assert (mailbox.host, mailbox.tls, mailbox.username, mailbox.enabled) == ("imap.example.com", "tls", "u", True)
    assert not config.runs("template") and not warnings(config)
    assert [problem.path for problem in config.incomplete["template"]] == [
        "mailboxes.template.password",
        "mailboxes.template.username",
    ]
    assert "m" not in config.incomplete and config.require("m") is mailbox
    with pytest.raises(ConfigErrors, match=r"mailboxes\.template\.username: this key is required"):
        config.require("template")


def test_what_is_shown_of_a_template_loads_again(write: Write) -> None:
    path = write(
        TEMPLATE.replace(
            "    tls: tls\n", "    tls: tls\n    auth: {type: oauth2, provider: microsoft, client_secret: x}\n"
        )
    )
    shown = effective(load(path))
    template = shown["mailboxes"]["template"]
    assert template["host"] == "imap.example.com" and "username" not in template
    assert template["auth"]["provider"] == "microsoft" and template["auth"]["client_secret"] != "x"
    assert effective(load(write(yaml.safe_dump(shown)))) == shown


@pytest.mark.parametrize(
    ("written", "missing"),
    [
        ("type: imap", ["default_queue", "host", "password", "username"]),
        ("type: imap, host: h, auth: {type: external}, default_queue: support", ["client_certificate", "username"]),
        (
            "type: imap, host: h, default_queue: support, "
            "auth: {type: oauth2, provider: microsoft, grant: client_credentials}",
            ["auth.client_id", "auth.client_secret", "auth.tenant", "username"],
        ),
        ("type: imap, host: h, auth: {type: oauth2}, default_queue: support", ["auth.grant", "username"]),
        ("type: pop3, host: h, default_queue: support", ["password", "username"]),
        ("type: ews, access: impersonation, default_queue: support", ["mailbox", "password", "url", "username"]),
        ("type: gmail, default_queue: support", ["auth"]),
        ("default_queue: support", ["type"]),
    ],
)
def test_enabling_what_is_incomplete_names_every_missing_key_with_its_place(
    write: Write, written: str, missing: list[str]
) -> None:
    main = f"{QUEUES}\ninclude: conf.d/*.yaml\n"
    disabled = load(write(main, a=f"mailboxes: {{m: {{{written}, enabled: false}}}}"))
    asked = [problem.path for problem in disabled.incomplete["m"]]
    assert sorted(asked) == [f"mailboxes.m.{key}" for key in missing if key != "default_queue"]
    with pytest.raises(ConfigErrors) as caught:
        load(write(main, a=f"mailboxes:\n  m: {{{written}}}\n"))
    problems = [problem for problem in caught.value.problems if problem.severity == "error"]
    assert sorted(problem.path.removeprefix("mailboxes.m.") for problem in problems) == missing
    assert {problem.file.name for problem in problems} == {"a.yaml"}
    assert {problem.line for problem in problems} == {2}
    assert all(problem.message.startswith("this key is required") for problem in problems)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("type: imap, hots: h", 'mailboxes.m.hots: there is no such key; did you mean "host"?'),
        ("type: imap, port: ninety", "mailboxes.m.port: expected a whole number"),
        ("type: imap, default_queue: "
         "nowhere", "mailboxes.m.default_queue: no queue is called nowhere; there is billing or support"),
        ("type: imap, quarantine: {type: queue, queue: "
         "nowhere}", "mailboxes.m.quarantine.queue: no queue is called nowhere; there is billing or support"),
    ],
)  # fmt: skip
def test_what_a_disabled_mailbox_says_must_be_right(write: Write, written: str, problem: str) -> None:
    assert messages(write(f"{QUEUES}\nmailboxes: {{m: {{enabled: false, {written}}}}}")) == [problem]


def test_a_template_may_leave_its_type_and_its_quarantine_open(write: Write) -> None:
    path = write(
        f"{QUEUES}\nmailboxes:\n  base: {{enabled: false, host: h, quarantine: {{type: maildir}}}}\n"
        f"  m: {{extends: base, type: imap, username: u, password: 'env:X', default_queue: support, quarantine: "
        f"{{path: /q}}}}\n"
    )
    config = load(path)
    assert getattr(config.mailboxes["m"], "host", None) == "h"
    assert getattr(config.quarantine_of("m"), "path", None) == Path("/q")
    assert set(config.incomplete) == {"base"}


# --- queues and quarantine
# ----------------------------------------------------------------------------------------------
def test_only_queue_is_the_default_queue(write: Write) -> None:
    config = load(
        write(
            "queues: {one: {type: jsonl, path: /q}}\nmailboxes: {m: {type: imap, host: h, username: u, password: "
            "'env:X'}}\n"
        )
    )
    assert config.mailboxes["m"].default_queue == "one"


def test_disabled_mailbox_needs_no_default_queue(write: Write) -> None:
    config = load(write(f"{QUEUES}\nmailboxes: {{m: {{type: maildir, path: /m, enabled: false}}}}\n"))
    assert config.mailboxes["m"].default_queue is None


QUARANTINE = f"""{QUEUES}
outgoing: {{relay: {{type: smtp, host: localhost, sender: a@example.com}}}}
quarantine: {{type: smtp, outgoing: relay, to: all@example.com}}
mailboxes:
  plain: {{{IMAP}}}
  other: {{{IMAP}, folders: [Other], quarantine: {{to: other@example.com}}}}
  queue: {{{IMAP}, folders: [Queue], quarantine: {{type: queue, queue: billing}}}}
"""


def test_quarantine_of_a_mailbox_is_merged_key_by_key(write: Write) -> None:
    config = load(write(QUARANTINE))
    plain, other, queue = (config.quarantine_of(name) for name in ("plain", "other", "queue"))
    assert plain is config.quarantine
    assert (getattr(other, "to", None), getattr(other, "outgoing", None)) == (["other@example.com"], "relay")
    assert isinstance(queue, QuarantineConfig) and queue.queue == "billing"


@pytest.mark.parametrize("where", ["mailboxes.plain", "defaults"])
def test_empty_quarantine_of_a_mailbox_is_an_error_that_names_the_choices(write: Write, where: str) -> None:
    text = f"{QUEUES}\nmailboxes: {{plain: {{{IMAP}, quarantine: }}}}\n"
    if where == "defaults":
        text = f"{QUEUES}\nmailboxes: {{plain: {{{IMAP}}}}}\ndefaults: {{quarantine: }}\n"
    assert messages(write(text)) == [
        f"{where}.quarantine: nothing is written: leave this key away to keep the quarantine that holds without it, "
        "or write what differs here, such as {type: queue, queue: NAME}"
    ]


def test_without_a_quarantine_nobody_is_told_of_what_is_held(write: Write) -> None:
    assert load(write(f"{QUEUES}\nmailboxes: {{m: {{{IMAP}}}}}\n")).quarantine_of("m") is None


# --- environment
# -----------------------------------------------------------------------------------------------------------
ENVIRONMENTS = f"""{QUEUES}
mailboxes:
  none: {{{IMAP}}}
  test: {{{IMAP}, environment: test, folders: [T]}}
  off: {{{IMAP}, enabled: false, folders: [O]}}
"""


@pytest.mark.parametrize(
    ("here", "running"), [(None, {"none"}), ("production", {"none"}), ("test", {"test"}), ("staging", set())]
)
def test_mailbox_is_polled_only_in_its_environment(write: Write, here: str | None, running: set[str]) -> None:
    config = load(write(ENVIRONMENTS), environment=here)
    assert {name for name in config.mailboxes if config.runs(name)} == running
    assert all(config.idle_reason(name) for name in config.mailboxes.keys() - running)


def test_environment_of_the_caller_beats_the_variable_which_beats_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("service: {environment: production}\n")
    assert load(path).service.environment == "production"
    monkeypatch.setenv("MAILPOLLER_ENVIRONMENT", "test")
    assert load(path).service.environment == "test"
    assert load(path, environment="staging").service.environment == "staging"
    monkeypatch.setenv("MAILPOLLER_ENVIRONMENT", "no good")
    assert "letters, digits" in messages(path)[0]


# --- secrets
# --------------------------------------------------------------------------------------------------------------
def test_missing_secrets_tell_where_they_are_named_and_how_bad_it_is(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("NOT_THERE", raising=False)
    (tmp_path / "there").write_text("s3cr3t\n")
    imap = "type: imap, host: h, username: u, default_queue: support"
    path = write(f"""{QUEUES}
mailboxes:
  a: {{{imap}, folders: [A], password: 'env:NOT_THERE'}}
  b: {{{imap}, folders: [B], password: 'file:{tmp_path}/not-there'}}
  c: {{{imap}, folders: [C], password: 'credential:c'}}
  d: {{{imap}, folders: [D], password: 'file:{tmp_path}/there'}}
  off: {{{imap}, folders: [E], password: 'env:NOT_THERE', enabled: false}}
""")
    found = load(path).missing_secrets()
    assert [(problem.path, problem.severity, problem.line) for problem in found] == [
        ("mailboxes.a.password", "error", 7),
        ("mailboxes.b.password", "error", 8),
        ("mailboxes.c.password", "warning", 9),
    ]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert [problem.severity for problem in load(path).missing_secrets()] == ["error", "error", "error"]


def test_secret_of_nothing_is_missing(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "")
    (found,) = load(write(f"{QUEUES}\nmailboxes: {{m: {{{IMAP}}}}}\n")).missing_secrets()
    assert (found.path, found.message, found.severity) == ("mailboxes.m.password", "env:SECRET is empty", "error")


@pytest.mark.parametrize("written", ["${SECRET}", "$SECRET", "{{ secret }}"])
def test_secret_that_somebody_was_to_fill_in_is_doubted(write: Write, written: str) -> None:
    box = IMAP.replace("env:SECRET", written)
    assert warnings(load(write(f"{QUEUES}\nmailboxes: {{m: {{{box}}}}}\n"))) == [
        "mailboxes.m.password: this looks like a variable and is the secret itself: write env:NAME"
    ]


# --- effective
# ------------------------------------------------------------------------------------------------------------
def test_effective_configuration_means_the_same_when_loaded_again(write: Write) -> None:
    config = load(write(DESIGN.replace("include:", "#include:")))
    again = load(write(yaml.safe_dump(effective(config), sort_keys=False)))
    for part in ("service", "ledger", "queues", "outgoing", "quarantine", "alerts", "rules", "mailboxes"):
        assert getattr(again, part) == getattr(config, part), part
    quarantined = load(write(QUARANTINE))
    assert load(write(yaml.safe_dump(effective(quarantined)))).overrides == quarantined.overrides


def test_effective_configuration_masks_secrets(write: Write) -> None:
    config = load(write(f"{QUEUES}\nmailboxes: {{m: {{{IMAP.replace('env:SECRET', 's3cr3t-sentinel')}}}}}\n"))
    shown = yaml.safe_dump(effective(config))
    assert "s3cr3t-sentinel" not in shown + repr(config) + str(config)
    assert "********" in shown


@given(st.integers(min_value=0, max_value=10**12))
def test_durations_and_sizes_are_read_back_as_written(number: int) -> None:
    length = timedelta(milliseconds=min(number, 10**11))
    assert abs(parse_duration(write_duration(length)) - length) < timedelta(milliseconds=1)
    assert parse_size(write_size(number)) == number


# --- doubts
# ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("port: 143", "port: port 143 is IMAP with TLS after STARTTLS, which is tls: starttls-required"),
        ("port: 993, tls: "
         "starttls-required", "port: port 993 is IMAP with TLS from the first octet, which is tls: tls, not "
                              "starttls-required"),
        ("tls: none", "tls: everything, a password too, crosses the network in clear"),
        ("tls: starttls", "tls: an attacker can prevent this encryption; starttls-required insists on it"),
        ("poll_interval: "
         "5s", "poll_interval: below 10s many servers refuse or throttle; with IDLE new mail arrives at once anyway"),
        ("disposition: "
         "delete", "disposition: deletes mail, and nobody is told of what cannot be processed: it is in the "
                   "quarantine only"),
        ("host: Outlook.Office365.com", "password: Microsoft 365 takes no passwords any more: this login cannot "
                                        "work; it needs OAuth 2.0"),
        ("host: imap.gmail.com", "password: Google refuses the account's own password: this login can only work with "
                                 "an app password; else it needs OAuth 2.0"),
        ("address: [support at example.com]", "address: expected mail addresses, such as support@example.com"),
        ("port: 995", "port: port 995 is POP3, and this is type: imap"),
        ("port: 587, tls: starttls-required", "port: port 587 is SMTP, and this is type: imap"),
    ],
)  # fmt: skip
def test_doubts_are_warnings(write: Write, keys: str, expected: str) -> None:
    keys = keys if "host" in keys else f"{keys}, host: imap.example.com"
    base = IMAP.replace("host: imap.example.com, ", "")
    config = load(write(f"{QUEUES}\nmailboxes: {{m: {{{base}, {keys}}}}}\n"))
    assert warnings(config) == [f"mailboxes.m.{expected}"]


MICROSOFT = "password: Microsoft 365 takes no passwords any more: this login cannot work; it needs OAuth 2.0"
GOOGLE = (
    "password: Google refuses the account's own password: this login can only work with an app password; else it "
    "needs OAuth 2.0"
)
OFTEN = "poll_interval: every poll by POP3 is a login, and"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("", []),
        ("port: 995", []),
        ("port: 110, tls: starttls-required", []),
        ("port: 110", ["port: port 110 is POP3 with TLS after STARTTLS, which is tls: starttls-required"]),
        ("port: 995, tls: "
         "starttls-required", ["port: port 995 is POP3 with TLS from the first octet, which is tls: tls, not "
                               "starttls-required"]),
        ("port: 993", ["port: port 993 is IMAP, and this is type: pop3"]),
        ("poll_interval: 59s", [f"{OFTEN} below 1m many servers refuse or throttle"]),
        ("poll_interval: 5s, host: localhost", []),
        ("disposition: "
         "delete", ["disposition: deletes mail, and nobody is told of what cannot be processed: it is in the "
                    "quarantine only"]),
        ("disposition: delete, mode: shadow", []),
        ("host: outlook.office365.com", [MICROSOFT]),
        ("host: Pop-Mail.Outlook.com", [MICROSOFT]),
        ("host: outlook.office365.us", [MICROSOFT]),
        ("host: partner.outlook.cn", [MICROSOFT]),
        ("host: mail.myoutlook.com", []),
        ("host: pop.gmail.com, username: 'recent:a', poll_interval: 10m", [GOOGLE]),
        ("host: pop.gmail.com, username: "
         "'recent:a'", [f"{OFTEN} Gmail locks out who logs in more often than every 10m; by IMAP new mail arrives at "
                        f"once", GOOGLE]),
    ],
)  # fmt: skip
def test_doubts_about_pop3_are_warnings(write: Write, keys: str, expected: list[str]) -> None:
    written = dict(pair.split(": ", 1) for pair in keys.split(", ") if pair)
    block = {"type": "pop3", "host": "pop.example.com", "username": "a", "password": "'env:SECRET'"} | written
    inside = ", ".join(f"{key}: {value}" for key, value in block.items())
    config = load(write(f"{QUEUES}\nmailboxes: {{m: {{{inside}, default_queue: support}}}}\n"))
    assert warnings(config) == [f"mailboxes.m.{one}" for one in expected]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("host: relay.example.com", []),
        ("host: relay.example.com, port: 465, tls: tls", []),
        ("host: relay.example.com, port: 25", []),
        ("host: relay.example.com, port: "
         "465", ["port: port 465 is SMTP with TLS from the first octet, which is tls: tls, not starttls-required"]),
        ("host: relay.example.com, port: 587, tls: "
         "tls", ["port: port 587 is SMTP submission with TLS after STARTTLS, which is tls: starttls-required"]),
        ("host: relay.example.com, port: 25, tls: "
         "tls", ["port: port 25 is SMTP with TLS after STARTTLS, which is tls: starttls-required"]),
        ("host: relay.example.com, port: 993, tls: tls", ["port: port 993 is IMAP, and this is type: smtp"]),
        ("host: smtp.office365.com", ["password: Microsoft 365 refuses passwords for SMTP unless an administrator "
                                      "allows them; plan for OAuth 2.0"]),
        ("host: smtp-mail.outlook.com", ["password: outlook.com takes no passwords any more: this login cannot work; "
                                         "it needs OAuth 2.0"]),
        ("host: smtp.gmail.com", [GOOGLE]),
    ],
)  # fmt: skip
def test_doubts_about_relays_are_warnings(write: Write, keys: str, expected: list[str]) -> None:
    relay = f"type: smtp, sender: a@example.com, username: a, password: 'env:SECRET', {keys}"
    config = load(write(f"{QUEUES}\noutgoing: {{relay: {{{relay}}}}}\nmailboxes: {{m: {{{IMAP}}}}}\n"))
    assert warnings(config) == [f"outgoing.relay.{one}" for one in expected]


class BusyConfig(SourceConfig):
    """A mailbox from outside that has something to say of itself."""

    type: Literal["busy"]
    port: int = 0
    inner: dict[str, str] = Field(default_factory=dict)
    folders: list[str] = Field(default_factory=lambda: ["Inbox"])

    def findings(self) -> Iterator[Finding]:
        yield from super().findings()
        if self.port == 1:
            yield Finding("port", "nobody is at port 1")
        if self.port == 2:
            yield Finding("port", "port 2 was given up", "error")
        if self.inner.get("way") == "slow":
            yield Finding("inner.way", "slow is slow")

    def polled_account(self) -> Account:
        return Account(self.type, "busy", "")


@pytest.fixture
def busy() -> Registry:
    return Registry({("sources", "busy"): BusyConfig})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("port: 1", ["mailboxes.m.port: nobody is at port 1"]),
        ("port: 1, enabled: false", ["mailboxes.m.port: nobody is at port 1"]),
        ("inner: {way: slow}", ["mailboxes.m.inner.way: slow is slow"]),
        ("port: 3", []),
    ],
)
def test_a_plug_in_warns_of_what_it_knows_itself(write: Write, busy: Registry, keys: str, expected: list[str]) -> None:
    path = write(f"{QUEUES}\nmailboxes: {{m: {{type: busy, default_queue: support, {keys}}}}}\n")
    assert warnings(load(path, registry=busy)) == expected


def test_an_error_that_a_plug_in_finds_is_one_of_all_that_are_told(write: Write, busy: Registry) -> None:
    block = "type: busy, default_queue: support, port: 2"
    path = write(f"{QUEUES}\nmailboxes: {{m: {{{block}}}, n: {{{IMAP}, poll_interval: 0s}}}}\n")
    with pytest.raises(ConfigErrors) as caught:
        load(path, registry=busy)
    told = [f"{problem.path}: {problem.message}" for problem in caught.value.problems]
    assert told == ["mailboxes.m.port: port 2 was given up", "mailboxes.n.poll_interval: must be more than 0s"]


def test_a_plug_in_says_which_folders_are_the_same(write: Write, busy: Registry) -> None:
    block = "type: busy, default_queue: support"
    path = write(f"{QUEUES}\nmailboxes: {{a: {{{block}}}, b: {{{block}, folders: [INBOX]}}}}\n")
    assert warnings(load(path, registry=busy)) == [
        "mailboxes.b: the mailbox a polls the same folder: every message would come twice"
    ]


def test_a_mailbox_that_lacks_what_it_needs_is_asked_for_nothing(write: Write) -> None:
    config = load(write(f"{QUEUES}\nmailboxes: {{m: {{type: pop3, enabled: false}}, n: {{{IMAP}}}}}\n"))
    assert warnings(config) == []


def test_a_disabled_mailbox_connects_to_nowhere_and_may_be_in_haste(write: Write) -> None:
    config = load(write(f"{QUEUES}\nmailboxes: {{m: {{{IMAP}, enabled: false, tls: none, poll_interval: 5s}}}}\n"))
    assert [one.partition(": ")[0] for one in warnings(config)] == ["mailboxes.m.poll_interval"]


def test_a_port_that_is_not_the_usual_one_may_be_another_server(write: Write) -> None:
    ports = {"a": "port: 993", "b": "port: 143, tls: starttls-required, host: IMAP.example.com.", "c": "port: 1993"}
    base = IMAP.replace("host: imap.example.com, ", "")
    boxes = ", ".join(
        f"{name}: {{{base}, {keys if 'host' in keys else keys + ', host: imap.example.com'}}}"
        for name, keys in ports.items()
    )
    assert warnings(load(write(f"{QUEUES}\nmailboxes: {{{boxes}}}\n"))) == [
        "mailboxes.b: the mailbox a polls the same folder: every message would come twice"
    ]


def test_tokens_are_not_doubted_where_passwords_are(write: Write) -> None:
    auth = (
        "auth: {type: oauth2, provider: microsoft, grant: client_credentials, tenant: t, client_id: c, "
        "client_secret: 'env:SECRET'}"
    )
    block = f"type: imap, host: outlook.office365.com, username: a, {auth}, default_queue: support"
    assert warnings(load(write(f"{QUEUES}\nmailboxes: {{m: {{{block}}}}}\n"))) == []


def test_a_directory_may_be_listed_as_often_as_one_likes_and_a_service_that_is_asked_for_news_may_not(
    write: Write,
) -> None:
    local = "type: maildir, path: /tmp/mail, default_queue: support, poll_interval: 1s"
    exchange = (
        "type: ews, url: https://mail.example.com/EWS/Exchange.asmx, username: a, password: 'env:SECRET', "
        "default_queue: support, poll_interval: 9s"
    )
    assert warnings(load(write(f"{QUEUES}\nmailboxes: {{a: {{{local}}}, b: {{{exchange}}}}}\n"))) == [
        "mailboxes.b.poll_interval: below 10s many servers refuse or throttle; news is asked for every "
        "notice_interval anyway"
    ]


def test_mail_to_an_address_that_is_polled_is_a_warning(write: Write) -> None:
    config = load(
        write(f"""{QUEUES}
outgoing: {{relay: {{type: smtp, host: localhost, sender: a@example.com}}}}
quarantine: {{type: smtp, outgoing: relay, to: [q@example.com, Support@example.com]}}
alerts: {{outgoing: relay, to: help@example.com}}
mailboxes: {{m: {{{IMAP}, address: [support@example.com, help@example.com]}}}}
""")
    )
    assert warnings(config) == [
        "quarantine.to[1]: the mailbox m polls this address: our own mail would come back",
        "alerts.to: the mailbox m polls this address: our own mail would come back",
    ]


def test_queue_that_forgets_sooner_than_the_ledger_is_a_warning(write: Write) -> None:
    config = load(write(f"{QUEUES.replace('support.db', 'support.db, remember: 30d')}\nmailboxes: {{m: {{{IMAP}}}}}\n"))
    assert warnings(config) == [
        "queues.support.remember: shorter than keep of a mailbox: a repeat might not be recognised"
    ]


@pytest.mark.parametrize("keys", ["tls: none", "tls: starttls", "port: 14300"])
def test_nothing_is_doubtful_about_this_machine(write: Write, keys: str) -> None:
    for host in ("localhost", "127.0.0.1", "'::1'"):
        imap = IMAP.replace("imap.example.com", host)
        assert warnings(load(write(f"{QUEUES}\nmailboxes: {{m: {{{imap}, {keys}}}}}\n"))) == []


def test_plain_secret_in_a_public_file_is_a_warning(write: Write, tmp_path: Path) -> None:
    open_to_all(tmp_path)
    path = write(f"{QUEUES}\nmailboxes: {{m: {{{IMAP.replace('env:SECRET', 'plain')}}}}}\n")
    assert warnings(load(path)) == []
    path.chmod(0o644)
    (warning,) = warnings(load(path))
    assert warning.startswith("mailboxes.m.password: a secret in a file that every user")


def test_two_mailboxes_on_one_folder_are_a_warning_and_two_environments_are_none(write: Write) -> None:
    config = load(write(f"{QUEUES}\nmailboxes: {{a: {{{IMAP}}}, b: {{{IMAP}}}, c: {{{IMAP}, environment: test}}}}\n"))
    assert warnings(config) == ["mailboxes.b: the mailbox a polls the same folder: every message would come twice"]


def test_shadow_and_disabled_mailboxes_move_nothing(write: Write) -> None:
    move = "disposition: {move: Done}, folders: [INBOX, Done]"
    load(
        write(f"{QUEUES}\nmailboxes: {{a: {{{IMAP}, mode: shadow, {move}}}, b: {{{IMAP}, enabled: false, {move}}}}}\n")
    )


def test_include_that_matches_nothing_is_a_warning(write: Write) -> None:
    config = load(write(f"{QUEUES}\nmailboxes: {{m: {{{IMAP}}}}}\ninclude: conf.d/*.yaml\n"))
    assert warnings(config) == ["include: no file matches this pattern"]


def test_directory_of_drop_ins_that_cannot_be_read_is_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(f"{QUEUES}\ninclude: conf.d/*.yaml\n", a="mailboxes: {}")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "conf.d")
    assert messages(path) == ["include: the directory cannot be read"]


def test_include_finds_each_file_once_and_never_itself_or_hidden_ones(write: Write, tmp_path: Path) -> None:
    path = write(f"{QUEUES}\ninclude: [conf.d/b.yaml, 'conf.d/*.yaml', '*.yaml']\n", a="", b="", c="")
    (tmp_path / "conf.d" / ".hidden.yaml").write_text("nonsense")
    assert [file.name for file in load(path).files] == ["mailpoller.yaml", "b.yaml", "a.yaml", "c.yaml"]


def test_file_without_mailboxes_is_a_warning(write: Write) -> None:
    assert warnings(load(write(QUEUES))) == ["mailboxes: no mailbox is defined: nothing is polled"]


# --- plug-ins of others
# ---------------------------------------------------------------------------------------------------
class PigeonConfig(SourceConfig):
    """Carrier pigeons (RFC 1149)."""

    type: Literal["pigeon"]
    loft: QueueName | None = None
    relays: Mapping[str, list[OutgoingName]] = Field(default_factory=dict)
    feed: dict[str, Secret] = Field(default_factory=dict)
    weight: int | Literal["any"] = 5


PIGEONS = Registry({("sources", "pigeon"): PigeonConfig})


def test_plug_in_of_another_package_is_checked_like_ours(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(f"""{QUEUES}
defaults: {{weight: 3}}
mailboxes: {{p: {{type: pigeon, default_queue: support, loft: suport,
  relays: {{a: [x]}}, feed: {{corn: 'env:NO_CORN'}}}}}}
""")
    assert messages(path, registry=PIGEONS) == [
        'mailboxes.p.loft: no queue is called suport; did you mean "support"?',
        "mailboxes.p.relays.a[0]: no outgoing is called x",
    ]
    path.write_text(path.read_text().replace("suport", "support").replace("[x]", "[]"))
    config = load(path, registry=PIGEONS)
    monkeypatch.delenv("NO_CORN", raising=False)
    assert [problem.path for problem in config.missing_secrets()] == ["mailboxes.p.feed.corn"]
    path.write_text(path.read_text().replace("weight: 3", "weight: yes"))
    assert messages(path, registry=PIGEONS) == [
        "defaults.weight: expected a number: YAML reads a bare yes, no, on, off, true or false as true or false"
    ]


def test_default_that_only_an_unused_type_knows_is_no_error(write: Write) -> None:
    assert load(write(f"{QUEUES}\ndefaults: {{loft: support}}\nmailboxes: {{m: {{{IMAP}}}}}\n"), registry=PIGEONS)


def test_broken_plug_in_says_what_is_wrong_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(value: str) -> importlib.metadata.EntryPoint:
        return importlib.metadata.EntryPoint("x", value, "mailpoller.sinks")

    def only(value: str) -> Registry:
        monkeypatch.setattr(
            "mailpoller.config.registry.entry_points", lambda: importlib.metadata.EntryPoints([entry(value)])
        )
        return Registry()

    with pytest.raises(ConfigError, match="not_there"):
        only("not_there:Config").load_plugin("sinks", "x")
    with pytest.raises(ConfigError, match="is not a SinkConfig"):
        only("mailpoller.config.model:AlertsConfig").load_plugin("sinks", "x")
    assert only("a:B").known("sinks") == ["x"]


def test_only_the_plug_ins_that_a_file_uses_are_imported(write: Write) -> None:
    import subprocess
    import sys

    path = write("queues: {a: {type: jsonl, path: /q}}\n")
    code = (
        f"import sys; from pathlib import Path; from mailpoller.config import load; load(Path({str(path)!r})); "
        f"print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "mailpoller.sinks.jsonl" in loaded
    assert not [
        name
        for name in loaded
        if name.startswith(("mailpoller.sources.", "mailpoller.rules.", "mailpoller.outgoings."))
    ]


def test_thousand_mailboxes_load_well_within_two_seconds(write: Write) -> None:
    boxes = "".join(f"  m{number}: {{{IMAP}, folders: [F{number}]}}\n" for number in range(1000))
    path = write(f"{QUEUES}\nmailboxes:\n{boxes}")
    before = os.times()
    assert len(load(path).mailboxes) == 1000
    assert os.times().user - before.user < paced(1.5)


def test_thousand_mistakes_are_told_in_time(write: Write) -> None:
    boxes = "".join(f"  m{number}: {{{IMAP}, folders: [F{number}], pol_interval: 60}}\n" for number in range(1000))
    path = write(f"{QUEUES}\nmailboxes:\n{boxes}")
    before = os.times()
    assert len(messages(path)) == 1000
    assert os.times().user - before.user < paced(4)


@pytest.mark.parametrize(
    ("queues", "wrong"),
    [
        ("a: {type: jsonl, path: /a, formerly: b}, b: {type: jsonl, path: /b}", "the queue b is still there"),
        (
            "a: {type: jsonl, path: /a, formerly: old}, b: {type: jsonl, path: /b, formerly: old}",
            "the queue a was this one",
        ),
        ("a: {type: jsonl, path: /a, formerly: 'no name'}", "a name is letters"),
    ],
)
def test_a_queue_has_one_former_name_that_is_nobody_else_s(write: Write, queues: str, wrong: str) -> None:
    with pytest.raises(ConfigErrors, match=wrong):
        load(write(f"queues: {{{queues}}}\n"))
