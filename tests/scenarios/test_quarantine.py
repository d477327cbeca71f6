"""What operators do with quarantined mail beside a running service, and what a kill at the worst moment leaves."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from scenarios.harness import Daemon, Site
from servers.command import Said, mailpoller

NUMBERS = iter(range(1_000_000))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A Maildir that is emptied as it is carried; the rules keep what says "robot" and "spam"."""
    site = Site(tmp_path)
    for folder in ("new", "cur", "tmp"):
        (tmp_path / "box" / folder).mkdir(parents=True)
    site.settings["mailboxes"]["support"] = {
        "type": "maildir", "path": str(tmp_path / "box"), "start": "all", "default_queue": "support",
        "poll_interval": "1s", "rules": ["robots", "spam"], "disposition": "delete",
    }  # fmt: skip
    site.settings["rules"] = [
        {"name": "robots", "when": {"subject": "robot"}, "then": {"quarantine": "robot"}},
        {"name": "spam", "when": {"subject": "spam"}, "then": {"quarantine": "spam"}},
    ]
    site.settings["queues"]["other"] = {
        "type": "sqlite", "path": str(tmp_path / "other.db"), "payload": "raw", "retry_interval": "1s"
    }  # fmt: skip
    return site


def bring(site: Site, *subjects: str, sender: str = "a@customer.example") -> None:
    for subject in subjects:
        name = f"{next(NUMBERS)}.x.host"
        draft = site.directory / "box" / "tmp" / name
        draft.write_bytes(mail(subject, sender))
        draft.rename(site.directory / "box" / "new" / name)


def mail(subject: str, sender: str = "a@customer.example") -> bytes:
    return f"From: {sender}\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\ntext\r\n".encode()


def ask(site: Site, *words: str) -> Said:
    return mailpoller(*words, "--config", str(site.config))


def held(site: Site, *words: str) -> dict[str, str]:
    """Subject -> mid."""
    found = ask(site, "quarantine", "list", *words, "--json").json["messages"]
    return {one["subject"]: one["mid"] for one in found}


def carried(site: Site, daemon: Daemon, *subjects: str, sender: str = "a@customer.example") -> None:
    bring(site, *subjects, sender=sender)
    daemon.until(lambda: not list((site.directory / "box" / "new").iterdir()))
    daemon.until(lambda: site.ledger_counts("support")["undisposed"] == 0)


def in_queue(site: Site, name: str = "support") -> Counter[str]:
    return site.subjects(site.queue_path if name == "support" else site.directory / f"{name}.db")


def without_rules(site: Site) -> None:
    """Today's rules keep nothing away any more, but what is spam."""
    site.settings["rules"][0]["when"] = {"subject": "nothing at all"}


def test_an_operator_looks_selects_exports_and_discards(site: Site) -> None:
    with site.run() as daemon:
        carried(site, daemon, "robot one", "spam one", "human")
        carried(site, daemon, "robot two", sender="b@other.example")
        assert set(held(site)) == {"robot one", "robot two", "spam one"}
        assert set(held(site, "--reason", "robot")) == {"robot one", "robot two"}
        assert set(held(site, "--sender", "@other.example")) == {"robot two"}
        assert set(held(site, "--sender", "A@customer.example")) == {"robot one", "spam one"}
        assert held(site, "--older-than", "1h") == {} and len(held(site, "--newer-than", "1h")) == 3
        mid = held(site)["robot one"]
        assert ask(site, "quarantine", "show", mid, "--json").json["rules"] == ["robots"]
        copy = site.directory / "copy.eml"
        assert ask(site, "quarantine", "export", mid, "-o", str(copy)).code == 0
        assert copy.read_bytes() == mail("robot one")
        assert ask(site, "quarantine", "discard", mid).code == 64, "nobody can be asked"
        assert ask(site, "quarantine", "discard", "--yes").code == 64, "all of them are not meant by saying nothing"
        meant = ask(site, "quarantine", "discard", "--reason", "robot", "--dry-run", "--json").json["messages"]
        assert len(meant) == 2 and len(held(site)) == 3
        assert ask(site, "quarantine", "discard", "--reason", "robot", "--yes").code == 0
        assert set(held(site)) == {"spam one"}
        assert ask(site, "quarantine", "show", mid).code == 66
        assert daemon.count("quarantine.decided", what="discarded") == 2
        journal = ask(site, "changes", "--json").out
        assert journal.count("quarantine.discarded") == 2
    # Without the service: the store under the ledger's lock, and a clear word where that is not enough.
    assert set(held(site)) == {"spam one"}
    said = ask(site, "quarantine", "release", held(site)["spam one"])
    assert said.code == 75 and "start it" in said.err
    assert ask(site, "quarantine", "discard", "--reason", "spam", "--yes").code == 0
    assert held(site) == {} and site.quarantined() == []


def test_retry_judges_by_today_s_rules_what_its_mailbox_does_not_hold_any_more(site: Site) -> None:
    with site.run() as daemon:
        carried(site, daemon, "robot one", "spam one", "human")
        assert ask(site, "quarantine", "retry", "--reason", "robot").code == 65, "they say so again"
        assert len(held(site)) == 2
        without_rules(site)
        assert ask(site, "reload").code == 0
        said = ask(site, "quarantine", "retry", "--mailbox", "support", "--json")
        assert said.code == 65
        assert sorted(one["outcome"] for one in said.json["results"]) == ["delivered", "held"]
        assert set(held(site)) == {"spam one"}
        assert in_queue(site) == Counter(["human", "robot one"])
        (event,) = [one for one in site.events() if one["data"]["subject"] == "robot one"]
        assert "releasedby" not in event and "redelivery" not in event
        story = json.loads(ask(site, "trace", event["id"], "--json").out)
        assert "support" in json.dumps(story)


def test_what_one_too_many_was_is_let_go_by_retry(site: Site) -> None:
    site.settings["mailboxes"]["support"]["brake"] = {"mails": 2, "window": "1h"}
    with site.run() as daemon:
        carried(site, daemon, "one", "two", "three")
        (flooded,) = held(site)
        assert ask(site, "quarantine", "retry", "--reason", "flood").code == 0
        assert held(site) == {}
        assert in_queue(site) == Counter(["one", "two", "three"]) and flooded in ("one", "two", "three")


def test_release_brings_it_unjudged_and_says_who_did_so(site: Site) -> None:
    with site.run() as daemon:
        carried(site, daemon, "robot one", "spam one")
        assert ask(site, "quarantine", "release", held(site)["robot one"]).code == 0
        assert ask(site, "quarantine", "release", held(site)["spam one"], "--queue", "other").code == 0
        assert held(site) == {}
        assert (in_queue(site), in_queue(site, "other")) == (Counter(["robot one"]), Counter(["spam one"]))
        for event in (*site.events(), *site.events(site.directory / "other.db")):
            assert event["releasedby"] and event["type"] == "org.mailpoller.message.received"
        assert ask(site, "quarantine", "release", "--queue", "nosuch", "--reason", "spam").code == 64


def test_what_a_queue_does_not_take_stays_held(site: Site) -> None:
    site.settings["queues"]["other"] |= {"type": "smtp", "to": "x@example.com", "outgoing": "gone"}
    del site.settings["queues"]["other"]["path"]
    site.settings["outgoing"] = {
        "gone": {"type": "smtp", "host": "127.0.0.1", "port": 9, "tls": "none", "sender": "m@example.com"}
    }
    with site.run() as daemon:
        carried(site, daemon, "robot one")
        said = ask(site, "quarantine", "release", held(site)["robot one"], "--queue", "other", "--json")
        assert said.code == 65 and said.json["results"][0]["outcome"] == "held"
        assert set(held(site)) == {"robot one"}


def test_redeliver_works_where_the_mailbox_has_nothing_any_more(site: Site) -> None:
    with site.run() as daemon:
        carried(site, daemon, "robot one")
        mid = held(site)["robot one"]
        assert ask(site, "redeliver", mid).code == 65
        without_rules(site)
        assert ask(site, "reload").code == 0
        assert ask(site, "redeliver", mid).code == 0
        assert in_queue(site) == Counter(["robot one"])
        assert site.events()[0]["redelivery"] == 1 and held(site) == {}


@pytest.mark.parametrize(
    ("when", "step", "number"),
    [
        ("before", "sink.deliver", 3),
        ("after", "sink.deliver", 3),
        ("before", "quarantine.remove", 1),
    ],
)
def test_killed_while_it_is_released_it_is_neither_lost_nor_twice_in_the_queue(
    site: Site, when: str, step: str, number: int
) -> None:
    with site.run(kill=(when, step, number)) as daemon:  # the quarantine, the queue of "human", and this
        carried(site, daemon, "robot one")
        carried(site, daemon, "human")
        mid = held(site)["robot one"]
        ask(site, "quarantine", "release", mid)
        assert daemon.wait(30) == -signal.SIGKILL
    assert site.quarantined() == [mail("robot one")], "it had no receipt yet that anybody knew of"
    with site.run() as daemon:
        daemon.until_said("service.started")
        daemon.until(lambda: ask(site, "quarantine", "release", mid).code == 0)
        assert in_queue(site) == Counter(["human", "robot one"]) and held(site) == {}


def test_attachments_stay_in_the_quarantine_until_somebody_lets_them_out(site: Site) -> None:
    whole = (
        b"From: a@customer.example\r\nSubject: bill\r\nMessage-ID: <b@x>\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\ntext\r\n'
        b'--b\r\nContent-Type: application/pdf; name="bill.pdf"\r\n\r\n%PDF-1.4\r\n--b--\r\n'
    )
    site.settings["mailboxes"]["support"]["attachments"] = {"strip": [".pdf"]}
    site.settings["queues"]["support"]["payload"] = "parsed"
    with site.run() as daemon:
        draft = site.directory / "box" / "tmp" / "bill.x.host"
        draft.write_bytes(whole)
        draft.rename(site.directory / "box" / "new" / draft.name)
        carried(site, daemon, "human")
        assert in_queue(site) == {"bill": 1, "human": 1}
        (event,) = [one for one in site.events() if one["data"]["subject"] == "bill"]
        (told,) = event["data"]["attachments"]
        assert (told["name"], told["removed"], told["start"], told["end"]) == ("bill.pdf", True, 0, 0)
        assert b"PDF" not in json.dumps(event).encode()
        (mid,) = held(site, "--reason", "attachments").values()
        assert mid == event["id"]
        assert whole in ask(site, "quarantine", "export", mid).out.encode()
        # Whoever frees what was held by mistake does not mean what its queues have.
        for verb in ("release", "retry"):
            said = ask(site, "quarantine", verb, "--mailbox", "support")
            assert (said.code, "left out are 1" in said.err) == (66, True)
        # Today's policy removes it again, so it stays, and nothing comes twice.
        assert ask(site, "quarantine", "retry", mid).code != 0
        # To bring it once more is something else: that is done.
        assert ask(site, "redeliver", mid).code == 0
        assert in_queue(site)["bill"] == 2 and list(held(site)) == ["bill"]
        assert ask(site, "quarantine", "release", mid, "--queue", "other").code == 0
        assert in_queue(site, "other") == {"bill": 1}
        assert held(site) == {}
    assert in_queue(site) == {"bill": 2, "human": 1}


def test_new_rules_are_tried_on_what_is_still_at_hand_beside_those_in_force(site: Site) -> None:
    with site.run() as daemon:
        carried(site, daemon, "robot one", "spam one", "human", "order 7")
        before = json.dumps([held(site), dict(in_queue(site))])
        without_rules(site)
        site.settings["rules"] += [
            {"name": "junk", "when": {"subject": "human"}, "then": {"discard": True}},
            {"name": "orders", "when": {"subject": "order"}, "then": {"queue": "other", "tags": "order"}},
        ]
        site.settings["mailboxes"]["support"]["rules"] += ["junk", "orders"]
        in_force = site.config
        trial = in_force.with_name("new.yaml")
        in_force.rename(trial)
        said = mailpoller("explain", "--since", "1d", "--json", "--config", str(trial))
        assert said.code == 0, said.err
        found = {one["subject"]: one for one in map(json.loads, said.out.splitlines())}
        assert found.keys() == {"robot one", "human", "order 7"}
        assert found["robot one"]["before"] == {"queues": None, "reason": "robot", "verdict": "quarantine"}
        assert found["robot one"]["after"] == {"queues": ["support"], "reason": None, "verdict": "deliver"}
        assert found["human"]["before"] == {"queues": ["support"], "reason": None, "verdict": "deliver"}
        assert (found["human"]["after"]["verdict"], found["human"]["rules"]) == ("discard", ["junk"])
        assert found["order 7"]["before"] == {"queues": ["support"], "tags": []}
        assert found["order 7"]["after"] == {"queues": ["other"], "tags": ["order"]}
        assert "4 messages looked at, 3 would differ" in said.err
        shown = mailpoller("explain", "--since", "1d", "--config", str(trial))
        assert "before  reason robot; verdict quarantine" in shown.out
        # Nothing is changed by it, and nothing older is looked at.
        assert json.dumps([held(site), dict(in_queue(site))]) == before
        later = mailpoller("explain", "--since", "0m", "--config", str(trial))
        assert "0 messages looked at, 0 would differ" in later.err
    assert mailpoller("explain", "--config", str(trial)).code == 64
    assert mailpoller("explain", "--since", "1d", "x.eml", "--config", str(trial)).code == 64


def test_what_a_queue_holds_without_octets_or_no_rule_decided_is_passed_over_and_said(site: Site) -> None:
    site.settings["queues"]["support"]["payload"] = "parsed"
    with site.run() as daemon:
        carried(site, daemon, "human", "robot")
    without_rules(site)
    said = mailpoller("explain", "--since", "1d", "--config", str(site.config))
    assert said.code == 0
    assert "1 message looked at, 1 would differ" in said.err
    assert "1 passed over: the queue support does not hold their octets" in said.err


def test_a_queue_that_is_renamed_after_a_kill_knows_what_it_holds_under_its_former_name(site: Site) -> None:
    """Killed between its write and the ledger's commit: the same message comes again, under the same delivery id."""
    bring(site, "one", "two")
    assert site.once(kill=("after", "sink.deliver", 1)) == -signal.SIGKILL
    assert in_queue(site).total() >= 1
    queue = site.settings["queues"].pop("support")
    site.settings["queues"]["helpdesk"] = queue | {"formerly": "support"}
    site.settings["mailboxes"]["support"]["default_queue"] = "helpdesk"
    assert site.once() == 0
    assert in_queue(site) == Counter(["one", "two"])
