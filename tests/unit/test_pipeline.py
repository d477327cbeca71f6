"""The pipeline: checks first, then rules, then the mailbox's defaults."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from mailpoller.core.attributes import Attributes
from mailpoller.core.body import Body
from mailpoller.core.classification import Classification
from mailpoller.core.errors import ConfigError
from mailpoller.core.message import Address, Message
from mailpoller.core.policy import Policy
from mailpoller.core.standing import Standing
from mailpoller.core.verdict import Deliver, Discard, Effect, Match, Quarantine
from mailpoller.engine.brake import Brake
from mailpoller.engine.pipeline import Pipeline
from unit.rule_message import BodyReads, a_message

MARKER = "[mailpoller quarantine test message]"


class Always:
    """A rule that matches every message."""

    needs_body = False

    def __init__(self, name: str, **effect: Any) -> None:
        self.name = name
        self.effect = Effect(**effect)

    def judge(self, message: Message) -> Match | None:
        return Match(self.effect, "always")


class Never:
    """A rule that matches none."""

    name = "never"
    needs_body = False

    def judge(self, message: Message) -> Match | None:
        return None


class Broken:
    """A rule with a bug, whose error bears a piece of the message."""

    name = "broken"
    needs_body = False

    def judge(self, message: Message) -> Match | None:
        raise LookupError(f"no such thing: {message.subject}")


def classified(kind: str, *evidence: str) -> Any:
    """What classifies a message so."""
    return lambda message: Classification(kind, "", evidence)  # type: ignore[arg-type]


FORCED = Standing(forced=True)


def pipeline(*rules: Any, **settings: Any) -> Pipeline:
    given: dict[str, Any] = {
        "mailbox": "support",
        "default_queue": "support",
        "default_topic": "mail",
        "marker": MARKER,
        "policies": {"auto-reply": Policy("quarantine"), "bounce": Policy("quarantine")},
    }
    return Pipeline(**(given | settings), rules=rules)


def test_message_without_rules_goes_to_the_default_queue() -> None:
    assert pipeline().judge(a_message()).verdict == Deliver(("support",), Attributes("mail"))


def test_message_without_any_queue_is_quarantined() -> None:
    verdict = pipeline(Always("tagger", tags=("x",)), default_queue=None).judge(a_message()).verdict

    assert isinstance(verdict, Quarantine)
    assert (verdict.reason, verdict.rules) == ("no-queue", ("tagger",))


def test_rules_add_queues_and_tags_and_overrule_topic_and_priority() -> None:
    judged = pipeline(
        Always("one", queues=("b", "a"), tags=("x",), topic="first", priority="high"),
        Never(),
        Always("two", queues=("a", "c"), tags=("y", "x"), topic="second"),
        Always("three", priority="low"),
    ).judge(a_message())

    assert judged.verdict == Deliver(("b", "a", "c"), Attributes("second", "low", ("x", "y")), ("one", "two", "three"))


def test_default_queue_is_left_out_when_a_rule_names_one() -> None:
    assert pipeline(Always("one", queues=("billing",))).judge(a_message()).verdict == Deliver(
        ("billing",), Attributes("mail"), rules=("one",)
    )


def test_stop_ends_the_judging_after_its_own_wishes() -> None:
    judged = pipeline(Always("one", topic="kept", stop=True), Always("two", topic="unheard")).judge(a_message())

    assert judged.verdict == Deliver(("support",), Attributes("kept"), rules=("one",))
    assert [name for name, _ in judged.asked] == ["one"]


def test_quarantine_ends_the_judging_and_keeps_the_story() -> None:
    judged = pipeline(
        Always("one", tags=("x",)), Always("two", quarantine="suspicious"), Always("three", discard=True)
    ).judge(a_message())

    assert isinstance(judged.verdict, Quarantine)
    assert (judged.verdict.reason, judged.verdict.rules) == ("suspicious", ("one", "two"))


def test_discard_ends_the_judging() -> None:
    judged = pipeline(Always("one", discard=True), Always("two", quarantine="late")).judge(a_message())

    assert judged.verdict == Discard("rule", ("one",))


def test_every_asked_rule_is_told_with_its_answer() -> None:
    judged = pipeline(Never(), Always("one", topic="t")).judge(a_message())

    assert judged.asked == (("never", None), ("one", Match(Effect(topic="t"), "always")))


def test_forced_default_queue_skips_rules_and_keeps_the_checks() -> None:
    forced = pipeline(Always("one", queues=("other",)), standing=FORCED, oversize="quarantine")

    assert forced.judge(a_message()).verdict == Deliver(("support",), Attributes("mail"))
    assert forced.judge(a_message()).asked == ()
    for message, reason in [
        (a_message(looped=True), "own-mail"),
        (a_message(subject=f"Fwd: {MARKER}"), "test-message"),
        (a_message(truncated=True, announced=10**9), "oversize"),
        (a_message(classify=classified("auto-reply")), "auto-reply"),
    ]:
        verdict = forced.judge(message).verdict
        assert isinstance(verdict, Quarantine)
        assert verdict.reason == reason


def test_own_mail_is_set_apart_whatever_else_speaks() -> None:
    own = a_message(looped=True, subject=MARKER, auto="auto-generated", truncated=True, announced=10**9)

    verdict = pipeline(Broken(), Always("one", quarantine="x"), oversize="quarantine", default_queue=None).judge(own)

    assert verdict.verdict == Quarantine("own-mail", "the message bears our own loop header")


def test_empty_marker_is_never_found() -> None:
    assert isinstance(pipeline(marker="").judge(a_message(subject="anything")).verdict, Deliver)


def test_truncated_message_is_delivered_unless_oversize_says_quarantine() -> None:
    cut = a_message(truncated=True, announced=10**9)

    assert isinstance(pipeline(oversize="truncate").judge(cut).verdict, Deliver)
    assert isinstance(pipeline(oversize="quarantine").judge(cut).verdict, Quarantine)


BOUNCE = {"classify": classified("bounce", "from-daemon")}


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        (Policy("quarantine"), Quarantine("bounce", "the message is of the class bounce: from-daemon")),
        (Policy("discard"), Discard("bounce")),
        (Policy(queue="bounces"), Deliver(("bounces",), Attributes("mail"))),
        (None, Deliver(("support",), Attributes("mail"))),
    ],
)
def test_a_class_ends_as_the_mailbox_says(policy: Policy | None, verdict: object) -> None:
    policies = {"bounce": policy} if policy else {}

    assert pipeline(policies=policies).judge(a_message(**BOUNCE)).verdict == verdict
    assert pipeline(policies=policies).judge(a_message()).verdict == Deliver(("support",), Attributes("mail"))


def test_policy_comes_after_the_rules_and_keeps_what_they_said() -> None:
    tagging = Always("one", queues=("other",), tags=("seen",), priority="high", topic="t")

    routed = pipeline(tagging, policies={"bounce": Policy(queue="bounces")}).judge(a_message(**BOUNCE))

    assert routed.verdict == Deliver(("bounces",), Attributes("t", "high", ("seen",)), ("one",))
    assert pipeline(tagging).judge(a_message(**BOUNCE)).verdict == Quarantine(
        "bounce", "the message is of the class bounce: from-daemon", ("one",)
    )


@pytest.mark.parametrize(
    "effect",
    [{"quarantine": "mine"}, {"discard": True}, {"stop": True, "tags": ("x",)}, {"by_class": True, "queues": ("q",)},
     {"kind": "human"}],
)  # fmt: skip
def test_policy_is_not_asked_if_a_rule_decided(effect: dict[str, Any]) -> None:
    verdict = pipeline(Always("one", **effect)).judge(a_message(**BOUNCE)).verdict

    assert getattr(verdict, "reason", "") != "bounce"
    assert verdict.rules == ("one",)


def test_asking_for_the_class_alone_does_not_keep_its_policy_away() -> None:
    for effect in ({"by_class": True, "tags": ("x",)}, {"queues": ("q",)}):
        assert isinstance(pipeline(Always("one", **effect)).judge(a_message(**BOUNCE)).verdict, Quarantine)


def test_a_rule_may_give_a_message_another_class() -> None:
    message = a_message()

    verdict = pipeline(Always("one", kind="bounce")).judge(message).verdict

    assert verdict == Quarantine("bounce", "the message is of the class bounce: rule", ("one",))
    assert message.classification == Classification("bounce", "", ("rule",))
    message = a_message(**BOUNCE)
    pipeline(Always("one", kind="human")).judge(message)
    assert message.classification == Classification("human", "", ("rule", "from-daemon"))


@pytest.mark.parametrize(
    ("senders", "excepted"),
    [({"boss@example.com"}, True), ({"example.com"}, True), ({"com"}, True), ({"ample.com"}, False),
     ({"mail.example.com"}, False), ({"jane@example.com"}, False), (set(), False)],
)  # fmt: skip
def test_policy_leaves_those_alone_who_are_excepted(senders: set[str], excepted: bool) -> None:
    policies = {"bounce": Policy("quarantine", senders=frozenset(senders))}
    message = a_message(from_=(Address("", "Boss@Example.com"),), **BOUNCE)

    assert isinstance(pipeline(policies=policies).judge(message).verdict, Deliver) is excepted


def test_list_of_excepted_senders_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    listed = tmp_path / "partners"
    listed.write_text("# ours\n\n@Partner.example\n", "utf-8")
    judging = pipeline(policies={"bounce": Policy("quarantine", files=(listed,))})

    def delivered(address: str) -> bool:
        return isinstance(judging.judge(a_message(from_=(Address("", address),), **BOUNCE)).verdict, Deliver)

    assert delivered("x@mail.partner.example")
    assert not delivered("jane@example.com")
    listed.write_text("jane@example.com\n", "utf-8")
    assert delivered("Jane@example.com")
    assert not delivered("x@partner.example")
    with structlog.testing.capture_logs() as logs:
        listed.unlink()
        assert delivered("jane@example.com")  # the machine's trouble is no mail's
        assert delivered("jane@example.com")
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("list.unread", "No such file or directory")]


def test_a_list_that_is_being_written_excepts_whom_it_excepted(tmp_path: Path) -> None:
    listed = tmp_path / "partners"
    listed.write_text("partner.example\n", "utf-8")
    judging = pipeline(policies={"bounce": Policy("discard", files=(listed,))})
    message = a_message(from_=(Address("", "x@partner.example"),), **BOUNCE)

    assert isinstance(judging.judge(message).verdict, Deliver)
    with listed.open("w"):  # as cp does, and an editor
        assert isinstance(judging.judge(message).verdict, Deliver)
    os.utime(listed, (0, time.time() - 2))
    assert isinstance(judging.judge(message).verdict, Discard)


def test_nothing_is_judged_by_a_list_of_excepted_senders_that_nobody_has_read_yet(tmp_path: Path) -> None:
    for make in (
        lambda: pipeline(policies={"bulk": Policy("discard", files=(tmp_path / "partners",))}),
        lambda: Brake(5, timedelta(hours=1), files=[tmp_path / "partners"]),
    ):
        with pytest.raises(ConfigError, match="partners: No such file"):
            make()


class Asking(Always):
    """A rule that asks for force_default_queue."""

    asks_forced = True

    def judge(self, message: Message) -> Match | None:
        return super().judge(message) if message.standing.forced else None


def test_forced_default_queue_asks_the_rules_that_ask_for_it() -> None:
    tagging = Asking("one", tags=("x",), queues=("other",), by_class=True)

    def judged(*rules: Any) -> Any:
        return pipeline(Always("zero", queues=("other",)), *rules, standing=FORCED).judge(a_message()).verdict

    assert judged(tagging) == Deliver(("support",), Attributes("mail", "normal", ("x",)), ("one",))
    assert judged(Asking("one", discard=True)) == Discard("rule", ("one",))
    assert judged(Asking("one", quarantine="mine")).reason == "mine"
    assert judged(Asking("one", kind="bounce")).reason == "bounce"
    assert pipeline(Asking("one", discard=True)).judge(a_message()).verdict == Deliver(("support",), Attributes("mail"))
    # The queue that it names for a class has no effect, so the policy of the class is asked.
    forced = pipeline(tagging, standing=FORCED)
    assert isinstance(forced.judge(a_message(**BOUNCE)).verdict, Quarantine)


def test_forced_default_queue_keeps_the_policies() -> None:
    forced = pipeline(Always("one", queues=("other",)), standing=FORCED)

    assert isinstance(forced.judge(a_message(**BOUNCE)).verdict, Quarantine)


def test_rule_that_raises_quarantines_the_message_without_showing_it() -> None:
    with structlog.testing.capture_logs() as logs:
        judged = pipeline(Always("one", topic="t"), Broken(), Always("two", discard=True)).judge(
            a_message(subject="confidential")
        )

    assert judged.verdict == Quarantine("rule-failed", "the rule broken raised LookupError", ("one",))
    assert [name for name, _ in judged.asked] == ["one", "broken"]
    assert [(entry["event"], entry["rule"], entry["error"], entry["mid"]) for entry in logs] == [
        ("rule.failed", "broken", "LookupError", "mid-1")
    ]
    assert logs[0]["raised_at"].startswith("test_pipeline.py:")
    assert "confidential" not in repr(logs) + repr(judged.verdict)


def test_lack_of_memory_is_not_blamed_on_the_message() -> None:
    class Starved(Never):
        def judge(self, message: Message) -> Match | None:
            raise MemoryError

    with pytest.raises(MemoryError):
        pipeline(Starved()).judge(a_message())


def test_body_is_needed_only_if_a_rule_may_ask_for_it() -> None:
    class Silent:
        name = "silent"

        def judge(self, message: Message) -> Match | None:
            return None

    assert not pipeline().needs_body
    assert not pipeline(Never(), Always("one", topic="t")).needs_body
    assert pipeline(Never(), Silent()).needs_body
    assert not pipeline(Silent(), standing=FORCED).needs_body


def test_judging_never_parses_the_body_by_itself() -> None:
    reads = BodyReads(Body("", "", ()))

    pipeline(Never(), oversize="quarantine").judge(a_message(load=reads))

    assert reads.count == 0


def test_plain_message_is_judged_in_microseconds() -> None:
    judged = pipeline(Never(), Never(), Never())
    message = a_message(subject="hello")
    rounds: list[float] = []
    for _ in range(5):
        began = time.thread_time()
        for _ in range(1000):
            judged.judge(message)
        rounds.append((time.thread_time() - began) / 1000)

    # About three microseconds; the bound leaves room for a busy machine.
    assert min(rounds) < 15e-6


# --- what rules send on ----------------------------------------------------------------------------------------------
def judged(message: Message, *effects: dict[str, Any], **settings: Any) -> Any:
    rules = [Always(f"r{number}", **effect) for number, effect in enumerate(effects)]
    return Pipeline(mailbox="support", rules=rules, **{"default_queue": "desk", **settings}).judge(message)


def test_what_is_redirected_goes_to_no_queue_and_what_is_forwarded_goes_to_both() -> None:
    message = a_message()
    assert judged(message, {"redirect": ("redirect:a@b",)}).verdict.queues == ("redirect:a@b",)
    assert judged(message, {"forward": ("forward:a@b",)}).verdict.queues == ("desk", "forward:a@b")
    both = judged(message, {"redirect": ("redirect:a@b",)}, {"queues": ("q",), "forward": ("forward:a@b",)})
    assert both.verdict.queues == ("redirect:a@b", "q", "forward:a@b")
    assert judged(message, {"forward": ("forward:a@b",)}, default_queue=None).verdict.queues == ("forward:a@b",)


@pytest.mark.parametrize(
    "automatic",
    [
        a_message(auto="auto-submitted"),
        a_message(auto="null-return-path", return_path=""),
        *(
            a_message(classify=lambda _, kind=kind: Classification(kind, "", ("x",)))
            for kind in ("bounce", "report", "challenge", "auto-reply", "auto-generated")
        ),
    ],
)
def test_automatic_mail_is_sent_on_only_by_a_rule_that_asks_for_its_class(automatic: Message) -> None:
    effect = {"redirect": ("redirect:a@b",), "forward": ("forward:a@b",)}
    judgement = judged(automatic, effect, policies={})
    assert judgement.verdict.queues == ("desk",)
    ((_, match),) = judgement.asked
    assert match is not None and "not sent on" in match.why
    asked = judged(automatic, {**effect, "by_class": True})
    assert asked.verdict.queues == ("redirect:a@b", "forward:a@b")


def test_lists_and_newsletters_are_sent_on() -> None:
    for kind in ("list", "bulk", "calendar"):
        message = a_message(classify=lambda _, kind=kind: Classification(kind, "", ("x",)))
        assert judged(message, {"redirect": ("redirect:a@b",)}).verdict.queues == ("redirect:a@b",)


def test_force_default_queue_sends_nothing_on() -> None:
    class Asking(Always):
        asks_forced = True

    rule = Asking("r", redirect=("redirect:a@b",), forward=("forward:a@b",), by_class=True)
    pipeline = Pipeline(mailbox="s", default_queue="desk", standing=Standing(forced=True), rules=[rule])
    assert pipeline.judge(a_message()).verdict == Deliver(("desk",), rules=("r",))


def test_the_policy_of_a_class_takes_the_place_of_a_redirection_and_not_of_a_forward() -> None:
    message = a_message(classify=lambda _: Classification("list", "", ("x",)))
    effects = {"redirect": ("redirect:a@b",), "forward": ("forward:a@b",)}
    assert judged(message, effects, policies={"list": Policy(queue="lists")}).verdict.queues == ("lists", "forward:a@b")
