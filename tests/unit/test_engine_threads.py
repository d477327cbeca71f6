"""Conversations by the messages that are answered: what the ledger knows, what is in hand, and what was told once."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from engine_rig import Rig, Routes

from mailpoller.config.model import ConversationsConfig
from mailpoller.core.conversation import Conversation
from mailpoller.core.errors import LedgerUnavailable, TransientError
from mailpoller.engine.availability import State
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.threads import ANCESTORS, ThreadFinder
from mailpoller.mail.understand.conversation import Finder, mint
from mailpoller.testing.memory_ledger import MemoryLedger
from odd_mail.reading import read

KEY = b"0123456789abcdef"
BOTH = Routes("both", "support", "archive")


def rig(**more: Any) -> Rig:
    config = ConversationsConfig(patterns=[r"\[#(?P<id>[0-9]+)\]"])
    finder = Finder({"a": lambda: KEY}, config.finder()._searches, ("subject", "headers"))
    return Rig(conversations=finder, **more)


def deliver(rig: Rig, name: str, *answers: str, subject: str = "x", replies_to: str = "") -> None:
    lines = [f"From: {name}@example.org", f"Subject: {subject}", f"Message-ID: <{name}@example.org>"]
    if answers:
        lines.append(f"References: {' '.join(f'<{one}@example.org>' for one in answers)}")
    if replies_to:
        lines.append(f"In-Reply-To: <{replies_to}@example.org>")
    rig.mailbox.deliver("\r\n".join([*lines, "", name]).encode())


def told(rig: Rig, queue: str = "support") -> dict[str, dict[str, Any] | None]:
    """Sender -> the conversation in its event; and sender + " mid" -> the id of that."""
    events = [json.loads(held.event) for held in rig.sinks[queue].held.values()]
    found: dict[str, Any] = {}
    for event in events:
        name = event["data"]["from"][0]["address"].partition("@")[0]
        found[name] = event["data"]["conversation"]
        found[f"{name} mid"] = event["id"]
    return found


def ids(rig: Rig, *names: str) -> list[str]:
    found = told(rig)
    return [(found[name] or {"id": None})["id"] for name in names]


async def test_answer_belongs_to_the_conversation_that_its_thread_began() -> None:
    one = rig()
    deliver(one, "first")
    await one.carry()
    deliver(one, "second", "first", "unknown")
    deliver(one, "third", replies_to="first")
    await one.carry()
    deliver(one, "fourth", "unknown", "second")
    await one.carry()
    found = told(one)
    assert found["first"] is None
    assert found["second"] == {
        "id": found["first mid"],
        "found_by": "thread",
        "verified": False,
        "forged": False,
        "thread": "<first@example.org>",
    }
    assert ids(one, "third", "fourth") == [found["first mid"]] * 2


async def test_messages_of_one_batch_find_each_other_in_any_order() -> None:
    one = rig()
    deliver(one, "third", "first", "second")
    deliver(one, "second", "first")
    deliver(one, "first")
    deliver(one, "other", "nobody")
    deliver(one, "fourth", "other")
    await one.carry()
    found = told(one)
    assert ids(one, "second", "third") == [found["first mid"]] * 2
    assert ids(one, "other", "fourth") == ["", found["other mid"]]
    assert found["first"] is None
    assert one.ledger.calls.count("conversations") == 1


async def test_messages_that_answer_each_other_end_in_one_conversation() -> None:
    one = rig()
    deliver(one, "first", "second")
    deliver(one, "second", "third")
    deliver(one, "third", "first")
    deliver(one, "self", "self")
    await one.carry()
    found = told(one)
    assert len({*ids(one, "first", "second", "third")} - {""}) == 1
    assert found["self"]["id"] == ""


async def test_messages_of_batches_that_are_in_hand_find_each_other() -> None:
    one = rig(batch=1)
    for number in range(8):
        deliver(one, f"m{number}", *(f"m{earlier}" for earlier in range(number)))
    await one.carry()
    assert ids(one, *(f"m{number}" for number in range(1, 8))) == [told(one)["m0 mid"]] * 7


async def test_what_is_judged_and_not_settled_yet_is_known_and_not_asked_for() -> None:
    asked: list[Collection[str]] = []

    class Nothing:
        async def conversations(self, mailbox: str, message_ids: Collection[str], among: object) -> Mapping[str, str]:
            asked.append(message_ids)
            return {}

    config = ConversationsConfig()
    pipeline = Pipeline(mailbox="support", conversations=config.finder())
    finder = ThreadFinder(pipeline, Nothing(), lambda: None)
    message = read(b"Message-ID: <2@example.org>\r\nReferences: <0@example.org> <1@example.org>\r\n\r\n")
    assert finder.waits(message)
    await finder.find([message], (), {"<1@example.org>": "case 1"})
    assert message.conversation == Conversation("case 1", "thread", thread="<0@example.org>")
    assert asked == [["<0@example.org>"]]
    await finder.find([message], (), {})
    assert len(asked) == 1


async def test_conversation_of_a_token_or_pattern_goes_on_in_its_thread_and_that_of_a_forgery_does_not() -> None:
    one = rig()
    deliver(one, "token", subject=mint("case 1", "a", KEY))
    deliver(one, "pattern", "nobody", subject="[#17]")
    deliver(one, "forged", subject=mint("case 2", "a", b"another key, not ours"))
    deliver(one, "later", "token")
    await one.carry()
    for name in ("token", "pattern", "forged"):
        deliver(one, f"answer-{name}", name)
    deliver(one, "both", "pattern", subject=mint("case 3", "a", KEY))
    await one.carry()
    found = told(one)
    assert ids(one, "later", "answer-token", "answer-pattern") == ["case 1", "case 1", "17"]
    assert [found[name]["verified"] for name in ("later", "answer-token")] == [False, False]
    assert found["answer-forged"]["id"] == found["forged mid"]
    assert (found["both"]["id"], found["both"]["found_by"]) == ("case 3", "token")


async def test_nobody_is_asked_for_mail_that_answers_nothing_or_has_a_token() -> None:
    one = rig()
    deliver(one, "plain")
    deliver(one, "token", "x", subject=mint("case 1", "a", KEY))
    await one.carry()
    assert "conversations" not in one.ledger.calls
    bare = Rig()
    deliver(bare, "answer", "x")
    await bare.carry()
    assert "conversations" not in bare.ledger.calls
    assert told(bare)["answer"] is None


async def test_no_more_than_the_nearest_ancestors_are_looked_for() -> None:
    asked: list[Collection[str]] = []

    class Asked(MemoryLedger):
        async def conversations(self, mailbox: str, message_ids: Collection[str], among: Any) -> Mapping[str, str]:
            asked.append(message_ids)
            return await super().conversations(mailbox, message_ids, among)

    one = rig()
    one = rig(ledger=Asked(one.clock))
    deliver(one, "answer", *(f"m{number}" for number in range(100)), replies_to="direct")
    await one.carry()
    (ids,) = asked
    assert len(ids) == ANCESTORS + 1
    assert list(ids)[:3] == ["<direct@example.org>", "<m99@example.org>", "<m98@example.org>"]


async def test_a_retry_tells_the_conversation_that_the_first_queue_was_told() -> None:
    one = rig(rules=[BOTH])
    one.sinks["archive"].faults.fail("deliver", TransientError("down"))
    deliver(one, "answer", "first", subject="both")
    await one.carry()
    assert told(one)["answer"]["id"] == ""
    deliver(one, "first")  # too late for what was said already
    later = rig(ledger=one.ledger, sinks=one.sinks, rules=[BOTH])
    later.mailbox = later.source.mailbox = one.mailbox
    await later.carry()
    assert told(one, "archive")["answer"]["id"] == ""
    deliver(one, "next", "first", "answer", subject="both")
    await later.carry()
    assert told(one)["next"]["id"] == told(one)["answer mid"]


async def test_what_waits_for_its_first_queue_is_looked_for_once_more() -> None:
    one = rig(rules=[Routes("old", "archive")])
    one.sinks["support"].faults.fail("deliver", TransientError("down"))
    deliver(one, "answer", "first")
    await one.carry()
    deliver(one, "first", subject="old")
    await one.carry()
    assert not one.sinks["support"].held
    one.queues["support"].availability.state = State.PROBING
    await one.carry()
    assert ids(one, "answer") == [told(one, "archive")["first mid"]]


async def test_a_ledger_that_cannot_be_asked_delivers_nothing_and_loses_nothing() -> None:
    one = rig()
    deliver(one, "answer", "first")
    one.ledger.fail("conversations")
    with pytest.raises(LedgerUnavailable):
        await one.carry()
    assert not one.sinks["support"].held
    await one.carry()
    assert list(told(one)) == ["answer", "answer mid"]


async def test_order_of_a_batch_stays_whatever_is_looked_for() -> None:
    one = rig()
    names = [f"m{number}" for number in range(6)]
    for number, name in enumerate(names):
        deliver(one, name, *(["nobody"] if number % 2 else []))
    await one.carry()
    assert [name for name in told(one) if " " not in name] == names


@pytest.mark.parametrize(
    ("scope", "departments", "found"),
    [
        ("all", ["sales"], True),
        ("departments", ["sales", "help"], True),
        ("departments", ["sales"], False),
        ("mailbox", ["help"], False),
    ],
)
async def test_answer_to_another_mailbox_is_found_within_the_scope_alone(
    scope: Any, departments: list[str], found: bool
) -> None:
    one = rig(name="help", departments=["help"])
    deliver(one, "first")
    await one.carry()
    other = rig(name="sales", ledger=one.ledger, scope=scope, departments=departments)
    other.fleet.parts["help"] = one.fleet.parts["help"]
    deliver(other, "answer", "first")
    await other.carry()
    assert ids(other, "answer") == [told(one)["first mid"] if found else ""]


async def test_a_bug_of_ours_costs_a_batch_its_conversations_and_nothing_else() -> None:
    one = rig()
    deliver(one, "first")
    deliver(one, "second", "first")
    deliver(one, "third", "unknown")
    one.ledger.fail("conversations", error=ValueError("of ours"))
    await one.carry()
    assert ids(one, "first", "second", "third") == [None, "", ""]
