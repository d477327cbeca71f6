"""The outbox of the real command: handed in by the command line, killed at any step, sent by a real relay."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from mailpoller.testing import builders
from scenarios.harness import Site
from servers.command import Said, mailpoller
from servers.dovecot import Dovecot
from servers.graph import strict_graph
from servers.ports import free_port
from servers.smtp import Relay, relay_in_a_thread

ENTRY = {"to": "ada@customer.example", "subject": "Re: order", "text": "Grüße", "bcc": "archive@x.example"}


def desk(tmp_path: Path, port: int) -> Site:
    """A mailbox that can be answered from and is not polled."""
    site = Site(tmp_path)
    site.imap("support", 1, "nobody", enabled=False, address="support@x.example")
    site.settings["outgoing"] = {
        "relay": {
            "type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "system@x.example",
            "from": "support@x.example", "display_name": "Support",
        }
    }  # fmt: skip
    site.settings["intakes"] = {"desk": {"type": "socket", "departments": ["root"]}}
    return site


def ask(site: Site, *words: str, stdin: object = b"") -> Said:
    octets = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
    return mailpoller(*words, "--config", str(site.config), stdin=octets)


def until(true: Any, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def ids(relay: Relay) -> list[str]:
    return [str(message_from_bytes(one.octets)["Message-ID"]) for one in relay.received]


def test_a_mailbox_that_is_not_polled_is_answered_from(tmp_path: Path) -> None:
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        with site.run() as daemon:
            daemon.until_said("service.started")
            said = ask(site, "send", "--mailbox", "support", "--key", "1", "--json", stdin=ENTRY)
            assert said.code == 0, said.err
            again = ask(site, "send", "--mailbox", "support", "--key", "1", "--json", stdin=ENTRY)
            assert again.json["id"] == said.json["id"] and again.json["repeated"]
            other = ask(site, "send", "--key", "1", stdin={**ENTRY, "text": "other"})
            assert (other.code, "key" in other.err) == (65, True)
            until(lambda: relay.received)
            whole = b"To: bob@customer.example\nSubject: whole\n\nbody\n"
            assert ask(site, "send", stdin=whole).code == 0
            until(lambda: len(relay.received) == 2)
            until(lambda: ask(site, "outbox", "list", "--json").json == [])
            shown = ask(site, "outbox", "show", said.json["id"][:8], "--json").json
    first = relay.received[0]
    assert (first.sender, first.recipients) == ("support@x.example", ("ada@customer.example", "archive@x.example"))
    assert b"archive@" not in first.octets
    assert [one["state"] for one in shown["recipients"]] == ["accepted", "accepted"]
    assert ask(site, "outbox", "retry", said.json["id"]).code == 65
    assert ask(site, "outbox", "show", "0000").code == 66


def test_a_key_that_stands_in_the_entry_is_the_one_by_which_a_repeat_is_known(tmp_path: Path) -> None:
    site = desk(tmp_path, free_port())
    with site.run() as daemon:
        daemon.until_said("service.started")
        said = [ask(site, "send", "--json", stdin={**ENTRY, "key": "order-17"}).json for _ in range(2)]
        assert [one["repeated"] for one in said] == [False, True]
        assert len({one["id"] for one in said}) == 1
        other = ask(site, "send", "--json", "--key", "order-18", stdin={**ENTRY, "key": "order-17"}).json
        assert other["id"] != said[0]["id"]  # what is said beside an entry overrules it
        assert ask(site, "send", stdin={**ENTRY, "key": ["order-17"]}).code == 65


def test_without_a_service_nothing_is_accepted(tmp_path: Path) -> None:
    said = ask(desk(tmp_path, 1), "send", stdin=ENTRY)
    assert (said.code, said.out) == (75, "")


@pytest.mark.parametrize("entry", [b"{", b"{}", b"no mail", {**ENTRY, "to": "a@x.example\r\nBcc: b@x.example"}])
def test_what_is_refused_is_told_and_leaves_nothing(tmp_path: Path, entry: object) -> None:
    site = desk(tmp_path, 1)
    with site.run() as daemon:
        daemon.until_said("service.started")
        said = ask(site, "send", stdin=entry)
        assert (said.code, said.out, bool(said.err)) == (65, "", True)
        assert ask(site, "outbox", "list", "--all", "--json").json == []
        assert list((tmp_path / "state").glob("outbox/*")) == []


def test_a_copy_of_the_service_sends_nothing_and_says_so(tmp_path: Path) -> None:
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        site.settings["service"]["environment"] = "staging"
        with site.run() as daemon:
            daemon.until_said("service.started")
            assert ask(site, "send", stdin=ENTRY).code == 0
            daemon.until_said("outbox.held")
            until(lambda: ask(site, "errors", "relay", "--json").json)
        assert relay.received == []


@pytest.mark.parametrize("running", [True, False])
def test_an_older_ledger_that_was_put_back_sends_nothing_until_it_is_accepted(tmp_path: Path, running: bool) -> None:
    """With its outbox, as a back-up of both has it. It is accepted with a service that runs, or without one."""
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        relay_block = site.settings["outgoing"]["relay"]
        relay_block["environment"] = "elsewhere"
        with site.run() as daemon:
            daemon.until_said("service.started")
            assert ask(site, "send", stdin=ENTRY).code == 0
        shutil.copytree(tmp_path / "state" / "outbox", tmp_path / "saved")
        with sqlite3.connect(tmp_path / "ledger.db") as ledger:
            ledger.execute("VACUUM INTO ?", (str(tmp_path / "saved.db"),))
        ledger.close()
        del relay_block["environment"]
        with site.run() as daemon:
            daemon.until_said("outbox.sent")
        shutil.rmtree(tmp_path / "state" / "outbox")
        (tmp_path / "saved").rename(tmp_path / "state" / "outbox")
        for left in tmp_path.glob("ledger.db-*"):
            left.unlink()
        (tmp_path / "saved.db").rename(tmp_path / "ledger.db")
        with site.run() as daemon:
            daemon.until_said("outbox.held", seconds=20)
            assert "an older copy" in ask(site, "status").out
            until(lambda: ask(site, "errors", "relay", "--json").json)
            assert len(relay.received) == 1
            if running:
                assert ask(site, "outbox", "accept").code == 0
                daemon.until_said("outbox.sent")
        if not running:
            assert ask(site, "outbox", "accept").code == 0
            with site.run() as daemon:
                daemon.until_said("outbox.sent")
        assert len(set(ids(relay))) == 1
        assert len(relay.received) == 2
        said = ask(site, "outbox", "accept")
        assert said.code != 0
        assert "not held" in said.err


@pytest.mark.parametrize(
    ("when", "step", "told", "least"),
    [
        ("before", "outbox.outbox_accept", False, 0),
        ("after", "outbox.outbox_accept", False, 1),
        ("before", "outbox.outbox_answered", True, 2),
        ("after", "outbox.outbox_answered", True, 1),
    ],
)
def test_killed_at_any_step_nothing_accepted_is_lost_and_a_repeat_can_be_recognised(
    tmp_path: Path, when: str, step: str, told: bool, least: int
) -> None:
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        with site.run(kill=(when, step, 1)) as daemon:
            daemon.until_said("service.started")
            said = ask(site, "send", "--key", "k", stdin=ENTRY)
            assert (said.code == 0) is told
            daemon.wait()
        with site.run() as daemon:
            daemon.until_said("service.started")
            again = ask(site, "send", "--key", "k", "--json", stdin=ENTRY)  # what a program does that was not told
            assert again.code == 0
            assert again.json["repeated"] is (step != "outbox.outbox_accept" or when == "after")
            until(lambda: ask(site, "outbox", "list", "--json").json == [])
        assert len(set(ids(relay))) == 1
        assert max(1, least) <= len(relay.received) <= 2


@pytest.mark.parametrize(
    "kill",
    [
        ("before", "outbox.outbox_note_draft", 1),
        ("after", "outbox.outbox_note_draft", 1),
        ("before", "outbox.outbox_answered", 1),
        ("after", "outbox.outbox_answered", 1),
    ],
)
def test_killed_at_any_step_a_service_that_keeps_drafts_sends_the_mail_once(
    tmp_path: Path, kill: tuple[str, str, int]
) -> None:
    with strict_graph() as graph:
        graph.renames = True
        site = desk(tmp_path, 1)
        site.settings["outgoing"] = {
            "office": {"type": "graph", "sender": graph.user, "url": graph.url, "auth": graph.auth}
        }
        with site.run(kill=kill) as daemon:
            daemon.until_said("service.started")
            id = ask(site, "send", "--json", stdin=ENTRY).json["id"]
            daemon.wait()
        with site.run() as daemon:
            daemon.until_said("service.started")
            until(lambda: ask(site, "outbox", "list", "--json").json == [])
            shown = ask(site, "outbox", "show", id, "--json").json
    assert len(graph.sent) == 1
    assert [one["state"] for one in shown["recipients"]] == ["accepted", "accepted"]
    assert shown["message_id"] == str(message_from_bytes(graph.sent[0])["Message-ID"])


@pytest.mark.parametrize(
    ("when", "step"),
    [("after", "outbox.outbox_answered"), ("before", "outbox.outbox_told"), ("after", "outbox.outbox_told")],
)
def test_killed_around_an_event_that_is_owed_it_is_told_and_a_repeat_can_be_recognised(
    tmp_path: Path, when: str, step: str
) -> None:
    told = tmp_path / "queue" / "told.db"
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        site.settings["queues"]["told"] = {"type": "sqlite", "path": str(told)}
        site.settings["intakes"]["desk"]["events"] = "told"
        with site.run(kill=(when, step, 1)) as daemon:
            daemon.until_said("service.started")
            id = ask(site, "send", "--json", stdin=ENTRY).json["id"]
            daemon.wait()
        with site.run() as daemon:
            daemon.until(lambda: site.events(told))
    found = site.events(told)
    assert {one["type"] for one in found} == {"org.mailpoller.outgoing.sent"}
    assert {one["data"]["id"] for one in found} == {id}
    assert len({one["deliveryid"] for one in found}) == 1
    assert len(relay.received) == 1


def test_a_relay_that_comes_back_gets_what_waited(tmp_path: Path) -> None:
    port = free_port()
    site = desk(tmp_path, port)
    with site.run() as daemon:
        daemon.until_said("service.started")
        answer = ask(site, "send", "--json", stdin=ENTRY).json
        daemon.until_said("outbox.down")
        with relay_in_a_thread(port=port) as relay:
            assert ask(site, "outbox", "retry", answer["id"][:10]).code == 0
            until(lambda: relay.received)
            until(lambda: ask(site, "outbox", "list", "--json").json == [])


def test_a_customers_mail_is_answered_and_the_next_one_finds_the_same_conversation(
    tmp_path: Path, dovecot: Dovecot, user: str
) -> None:
    def mail(name: str, more: str = "") -> bytes:
        head = f"From: Ada <ada@customer.example>\r\nTo: support@x.example\r\nSubject: order\r\n{more}"
        return f"{head}Message-ID: <{name}@customer.example>\r\n\r\ntext\r\n".encode()

    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        site.imap("support", dovecot.imap_port, user, address="support@x.example")
        site.settings["conversations"] = {"keys": [{"id": "a", "secret": "0123456789abcdef0123"}]}
        dovecot.deliver_all(user, [mail("question")])
        with site.run() as daemon:
            daemon.until(lambda: site.events())
            daemon.until(lambda: ask(site, "trace", "ada@customer.example", "--json").json)
            (story,) = ask(site, "trace", "ada@customer.example", "--json").json
            said = ask(site, "send", "--reply-to", story["mid"], stdin={"subject": "AW: Re: order", "text": "Thanks"})
            assert said.code == 0, said.err
            until(lambda: relay.received)
            reply = message_from_bytes(relay.received[0].octets)
            # A reader that keeps only what it answers: the token alone leads back.
            dovecot.deliver_all(user, [mail("again", f"In-Reply-To: {reply['Message-ID']}\r\n")])
            daemon.until(lambda: len(site.events()) == 2)
            second = site.events()[1]["data"]["conversation"]
    assert relay.received[0].recipients == ("ada@customer.example",)
    assert reply["In-Reply-To"] == reply["References"] == "<question@customer.example>"
    assert reply["Subject"] == "Re: order"
    assert (second["id"], second["verified"]) == (story["mid"], True)


def test_what_became_of_a_mail_is_told_and_its_bounce_finds_it(tmp_path: Path, dovecot: Dovecot, user: str) -> None:
    told, entries = tmp_path / "queue" / "told.db", tmp_path / "entries" / "entries.db"
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        site.imap("support", dovecot.imap_port, user, address="support@x.example")
        site.settings["queues"]["told"] = {"type": "sqlite", "path": str(told)}
        site.settings["intakes"]["desk"]["events"] = "told"
        shop = {"type": "sqlite", "departments": ["root"], "path": str(entries), "events": "told"}
        site.settings["intakes"]["shop"] = shop
        with site.run() as daemon:
            daemon.until_said("service.started")
            sent = ask(site, "send", "--mailbox", "support", "--key", "1", "--json", stdin=ENTRY).json
            daemon.until(lambda: site.events(told))
            bounce = builders.bounce(to="support@x.example", failed="ada@customer.example")
            returned = f"Message-ID: {sent['message_id']}\r\nSubject: Hello".encode()
            dovecot.deliver_all(user, [bounce.replace(b"Subject: Hello", returned)])
            daemon.until(lambda: len(site.events(told)) == 2)
            with sqlite3.connect(entries, timeout=5) as table:
                table.execute("INSERT INTO entry (body) VALUES (?)", (json.dumps({**ENTRY, "subject": "by a table"}),))
            daemon.until(lambda: len(site.events(told)) == 3)
            with sqlite3.connect(entries, timeout=5) as table:
                rows = table.execute("SELECT state, mail FROM entry").fetchall()
            until(lambda: "outbox.bounced" in ask(site, "errors", "support", "--json").out)
    first, second, third = site.events(told)
    assert rows == [("accepted", third["data"]["id"])] and third["data"]["intake"] == "shop"
    assert (first["type"], second["type"]) == ("org.mailpoller.outgoing.sent", "org.mailpoller.outgoing.bounced")
    assert {one["address"] for one in first["data"]["recipients"]} == {"ada@customer.example", "archive@x.example"}
    assert [one["address"] for one in second["data"]["recipients"]] == ["ada@customer.example"]
    assert first["data"]["id"] == second["data"]["id"] == sent["id"]


def test_a_bounce_that_tells_nothing_but_where_it_comes_to_finds_its_mail(
    tmp_path: Path, dovecot: Dovecot, user: str
) -> None:
    told = tmp_path / "queue" / "told.db"
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        site.imap("support", dovecot.imap_port, user, address="support@x.example")
        site.settings["queues"]["told"] = {"type": "sqlite", "path": str(told)}
        site.settings["intakes"]["desk"]["events"] = "told"
        site.settings["outgoing"]["relay"]["verp"] = "support@x.example"
        site.settings["conversations"] = {"keys": [{"id": "a", "secret": "0123456789abcdef0123"}]}
        with site.run() as daemon:
            daemon.until_said("service.started")
            sent = ask(site, "send", "--mailbox", "support", "--json", stdin={**ENTRY, "bcc": []}).json
            daemon.until(lambda: site.events(told))
            address = relay.received[0].sender
            # Its server knows the recipient by another name, and sends nothing of the mail back.
            bounce = builders.bounce(to=address, failed="a.lovelace@elsewhere.example")
            dovecot.deliver_all(user, [bounce])
            daemon.until(lambda: len(site.events(told)) == 2)
    assert address.startswith("support+mpv-a-")
    second = site.events(told)[1]
    assert (second["type"], second["data"]["id"]) == ("org.mailpoller.outgoing.bounced", sent["id"])
    assert [one["address"] for one in second["data"]["recipients"]] == ["ada@customer.example"]


def test_a_program_with_two_tables_answers_once_although_it_dies_between_them(
    tmp_path: Path, dovecot: Dovecot, user: str
) -> None:
    entries = tmp_path / "entries" / "entries.db"
    mail = b"From: ada@customer.example\r\nTo: support@x.example\r\nSubject: order\r\nMessage-ID: <1@c.example>\r\n"
    with relay_in_a_thread() as relay:
        site = desk(tmp_path, relay.port)
        site.imap("support", dovecot.imap_port, user, address="support@x.example")
        site.settings["intakes"] = {"shop": {"type": "sqlite", "departments": ["root"], "path": str(entries)}}
        dovecot.deliver_all(user, [mail + b"\r\ntext\r\n"])
        with site.run() as daemon:
            daemon.until(lambda: site.events() and entries.exists() and entries.stat().st_size)
            (event,) = site.events()
            answer = "json_object('reply_to', :mid, 'key', :delivery_id, 'text', :text)"
            told = {"mid": event["id"], "delivery_id": event["deliveryid"], "text": "Thanks"}

            def rows() -> list[tuple[str, str]]:
                with sqlite3.connect(entries, timeout=5) as table:
                    return table.execute("SELECT state, mail FROM entry ORDER BY id").fetchall()

            for _ in range(2):
                with sqlite3.connect(entries, timeout=5) as table:
                    table.execute(f"INSERT INTO entry (body) VALUES ({answer})", told)
            until(lambda: [state for state, _ in rows()] == ["accepted"] * 2)
            until(lambda: relay.received and ask(site, "outbox", "list", "--json").json == [])
            assert len({mail for _, mail in rows()}) == 1
    (reply,) = relay.received
    assert reply.recipients == ("ada@customer.example",)
    assert message_from_bytes(reply.octets)["In-Reply-To"] == "<1@c.example>"
