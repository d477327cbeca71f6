"""Outgoings as a configuration has them: templates, and which one holds where none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailpoller.assembly.preparing import prepare_runtime
from mailpoller.config import Config, ConfigErrors, effective, load
from mailpoller.config.dump import origins
from mailpoller.engine.clock import SystemClock

RELAY = "enabled: false, type: smtp, host: relay.example.com, username: u, password: env:NOWHERE"
SENDERS = f"""\
queues: {{q: {{type: maildir, path: /var/q}}}}
outgoing:
  relay: {{{RELAY}}}
  support: {{extends: relay, sender: support@example.com}}
  sales: {{extends: relay, sender: sales@example.com, port: 26}}
"""
MAILBOX = "type: imap, host: imap.example.com, username: u, password: p"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mailpoller.yaml"


def loaded(file: Path, text: str) -> Config:
    file.write_text(text)
    return load(file)


def problems(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        loaded(file, text)
    return [f"{one.path}: {one.message}" for one in caught.value.problems if one.severity == "error"]


def test_identities_of_one_relay_write_it_once(file: Path) -> None:
    config = loaded(file, SENDERS)
    sales = config.outgoing["sales"]
    assert (getattr(sales, "host", ""), getattr(sales, "sender", ""), getattr(sales, "port", 0)) == (
        "relay.example.com",
        "sales@example.com",
        26,
    )
    assert sales.enabled and sales.default is False


def test_a_template_lacks_what_it_likes_and_nothing_is_made_of_it(file: Path) -> None:
    config = loaded(file, SENDERS)
    assert set(config.outgoing) == {"support", "sales"}
    assert set(prepare_runtime(config, SystemClock(), spool=False).outgoings) == {"support", "sales"}
    assert {one.path for one in config.missing_secrets()} == {"outgoing.relay.password"}  # where it was written


def test_a_disabled_outgoing_is_not_built_and_its_secret_is_nobodys_trouble(file: Path) -> None:
    config = loaded(file, SENDERS.replace("sender: sales@", "enabled: false, sender: sales@"))
    assert set(prepare_runtime(config, SystemClock(), spool=False).outgoings) == {"support"}
    assert len(config.missing_secrets()) == 1


def test_what_a_template_says_must_be_right_all_the_same(file: Path) -> None:
    wrong = SENDERS.replace("host: relay", "hosst: relay")
    assert any("hosst: there is no such key" in one for one in problems(file, wrong))


def test_circles_and_strangers_are_errors(file: Path) -> None:
    text = SENDERS.replace(RELAY, f"extends: sales, {RELAY}")
    assert any("extends goes in a circle" in one for one in problems(file, text))
    text = SENDERS.replace("support: {extends: relay", "support: {extends: nobody")
    assert problems(file, text)[0].startswith("outgoing.support.extends: no outgoing is called nobody")


def test_the_only_outgoing_holds_wherever_none_is_named(file: Path) -> None:
    text = SENDERS.replace("  sales", "  # sales") + (
        "alerts: {to: a@example.com}\nquarantine: {type: smtp, to: q@example.com}\n"
        f"mailboxes: {{m: {{{MAILBOX}}}}}\n"
    )
    config = loaded(file, text)
    assert config.alerts is not None and config.alerts.outgoing == "support"
    assert getattr(config.quarantine, "outgoing", "") == "support"
    assert config.mailboxes["m"].outgoing == "support"


def test_the_default_holds_where_there_are_several(file: Path) -> None:
    text = SENDERS.replace("port: 26", "default: true") + "alerts: {to: a@example.com}\n"
    assert (alerts := loaded(file, text).alerts) is not None and alerts.outgoing == "sales"
    twice = text.replace("sender: support@", "default: true, sender: support@")
    assert problems(file, twice) == ["outgoing.sales.default: the outgoing support is the default already"]


def test_where_several_may_be_meant_one_must_be_named_by_who_sends(file: Path) -> None:
    text = SENDERS + "alerts: {to: a@example.com}\nquarantine: {type: smtp, to: q@example.com}\n"
    wanted = "this key is required unless there is one outgoing alone, or one that says default: true"
    assert sorted(problems(file, text)) == [f"alerts.outgoing: {wanted}", f"quarantine.outgoing: {wanted}"]
    assert loaded(file, f"{SENDERS}mailboxes: {{m: {{{MAILBOX}}}}}\n").mailboxes["m"].outgoing is None


def test_a_mailboxs_own_quarantine_leaves_by_the_mailboxs_identity(file: Path) -> None:
    text = SENDERS.replace("port: 26", "default: true") + (
        f"mailboxes: {{m: {{{MAILBOX}, outgoing: support, quarantine: {{type: smtp, to: q@example.com}}}}}}\n"
    )
    assert getattr(loaded(file, text).quarantine_of("m"), "outgoing", "") == "support"


def test_nobody_sends_by_a_disabled_outgoing_and_a_mailbox_may_name_it(file: Path) -> None:
    text = f"{SENDERS}mailboxes: {{m: {{{MAILBOX}, outgoing: relay}}}}\n"
    assert loaded(file, text).mailboxes["m"].outgoing == "relay"
    assert problems(file, text + "alerts: {to: a@example.com, outgoing: relay}\n") == [
        "alerts.outgoing: the outgoing relay is disabled: nothing is sent by it"
    ]


def test_origin_tells_which_outgoing_holds_and_why(file: Path) -> None:
    told = origins(loaded(file, SENDERS.replace("port: 26", "default: true") + "alerts: {to: a@example.com}\n"))
    assert told["alerts.outgoing"] == ("sales", f"{file}:5 (sales says default: true)")
    assert told["outgoing.sales.host"] == ("relay.example.com", f"{file}:3")
    assert told["outgoing.sales.connections"] == (2, "default")


def test_what_is_shown_of_identities_loads_again(file: Path) -> None:
    import yaml

    config = loaded(file, SENDERS.replace("port: 26", "default: true") + "alerts: {to: a@example.com}\n")
    again = loaded(file, yaml.safe_dump(effective(config)))
    assert effective(again) == effective(config)


def departments(**mailboxes: str) -> str:
    return SENDERS + "mailboxes:\n" + "".join(f"  {name}: {{{MAILBOX}, {keys}}}\n" for name, keys in mailboxes.items())


def test_a_mailbox_has_the_identity_of_its_departments_default_mailbox(file: Path) -> None:
    config = loaded(
        file,
        departments(
            a="departments: [quotes], folders: [A]",
            b="departments: [sales, quotes], default_for: [quotes], outgoing: sales, folders: [B]",
            c="departments: [quotes], outgoing: support, folders: [C]",
        ),
    )
    assert {name: one.outgoing for name, one in config.mailboxes.items()} == {
        "a": "sales",
        "b": "sales",
        "c": "support",
    }
    assert config.chosen["mailboxes", "a"] == "that of b, the default mailbox of quotes"


def test_a_department_has_exactly_one_default_mailbox(file: Path) -> None:
    none = departments(a="departments: [quotes], folders: [A]", b="departments: [quotes], folders: [B]")
    assert problems(file, none) == ["mailboxes.a.default_for: quotes has no default mailbox: one of a, b must name it"]
    both = none.replace("[quotes],", "[quotes], default_for: [quotes],")
    assert problems(file, both) == ["mailboxes.b.default_for: quotes has a default mailbox already: a"]
    strange = departments(a="default_for: [quotes]")
    assert problems(file, strange) == ["mailboxes.a.default_for: the mailbox does not serve quotes"]


def test_a_department_of_one_mailbox_and_one_that_nobody_names_need_no_default(file: Path) -> None:
    loaded(file, departments(a="departments: [quotes], folders: [A]", b="folders: [B]", c="folders: [C]"))


def test_an_intake_is_for_departments_that_some_mailbox_serves(file: Path) -> None:
    intake = "intakes: {desk: {type: socket, departments: [root, qoutes]}}\n"
    text = departments(a="departments: [quotes], folders: [A]", b="folders: [B]") + intake
    assert problems(file, text) == [
        'intakes.desk.departments: no mailbox serves qoutes, so nothing can be sent for it; did you mean "quotes"?'
    ]
    loaded(file, text.replace("qoutes", "quotes"))
