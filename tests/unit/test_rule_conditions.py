"""The rule type match: what its conditions hold of."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mailpoller.core.body import Body
from mailpoller.core.classification import Classification
from mailpoller.core.component import Runtime
from mailpoller.core.message import Message
from mailpoller.core.spool import Spool
from mailpoller.core.standing import Standing
from mailpoller.rules.match import MatchConfig, MatchRule
from pace import paced
from unit.rule_message import BodyReads, a_message, addresses, attached

RUNTIME = Runtime(clock=None, spool=Spool(Path("unused")), state_directory=Path("unused"))  # type: ignore[arg-type]


def rule(when: str, then: str = "{topic: found}", *, name: str = "r", runtime: Runtime = RUNTIME) -> MatchRule:
    config = MatchConfig.model_validate({"name": name, "when": yaml.safe_load(when), "then": yaml.safe_load(then)})
    return config.build(name, runtime)


def holds(when: str, message: Message) -> bool:
    return rule(when).judge(message) is not None


def why(when: str, message: Message) -> str:
    match = rule(when).judge(message)
    assert match is not None
    return match.why


LETTER = a_message(
    subject="Ihre RECHNUNG für die Hauptstraße",
    headers=(("List-Id", "<news.example.com>"), ("X-Spam", "no"), ("x-spam", "YES")),
    from_=addresses("Boss@Example.com"),
    sender=addresses("secretary@example.com"),
    to=addresses("support@example.org", "help@example.org"),
    cc=addresses("archive@example.org"),
    reply_to=addresses("answers@example.com"),
    text="Dear all,\nplease PAY now.",
    html="<b>Second</b> view",
    attachments=(attached("offer.PDF"), attached("logo.png", "image/png", 90_000)),
)


@pytest.mark.parametrize(
    "when",
    [
        "{subject: rechnung}",
        "{subject: [invoice, rechnung]}",
        "{subject: {contains: [invoice, Rechnung]}}",
        "{subject: HAUPTSTRASSE}",
        "{subject: {contains: RECHNUNG, case: sensitive}}",
        "{subject: {equals: 'ihre rechnung FÜR die hauptstrasse'}}",
        r"{subject: {matches: '^ihre\s'}}",
        r"{subject: {matches: '\p{L}+straße$'}}",
        "{subject: {matches: 'FÜR'}}",
        "{subject: {contains: Ihre, matches: '^I', case: sensitive}}",
        "{header: {list-id: news.example.com}}",
        "{header: {X-SPAM: {equals: yes, case: sensitive}}}".replace("yes", "'YES'"),
        "{header: {X-Spam: {equals: 'no'}, List-Id: news}}",
        "{from: {equals: boss@example.com}}",
        "{from: {matches: '@example\\.com$'}}",
        "{to: help@example.org}",
        "{to: archive@example.org}",
        "{cc: {equals: archive@example.org}}",
        "{reply_to: answers@}",
        "{sender: secretary}",
        "{body: please pay}",
        "{body: '<b>second'}",
        "{body: {matches: '(?m)^please'}}",
        "{size: {below: 1KB}}",
        "{size: {above: 5, below: 1MB}}",
        "{attachment: true}",
        "{attachment: {any: true}}",
        "{attachment: {name: {matches: '\\.pdf$'}}}",
        "{attachment: {type: image/}}",
        "{attachment: {type: {equals: image/png}, size: {above: 50KB}}}",
        "{auto: false}",
        "{class: human}",
        "{force_default_queue: false}",
        "{trusted: false}",
        "{departments: root}",
        "{departments: [billing, root]}",
        "{all: [{subject: rechnung}, {from: boss}]}",
        "{any: [{subject: offer}, {from: boss}]}",
        "{not: {subject: offer}}",
        "{from: {domain: example.com}}",
        "{from: {domain: [x.example, com]}}",
        "{from: {local: {equals: boss}, domain: example.com}}",
        "{to: {exists: true}}",
        "{header: {List-Id: {exists: true}, X-Missing: {exists: false}}}",
        "{subject: {words: rechnung}}",
        "{subject: {words: [nothing, 'rechnung für die']}}",
        "{subject: {words: fur, accents: insensitive}}",
        "{attachment: {count: 2}}",
        "{attachment: {type: image/, count: {below: 2}}}",
        "{attachment: {name: nothing, count: {below: 1}}}",
        "{importance: normal}",
        "{conversation: false}",
        "{none: [{subject: offer}, {from: nobody}]}",
        "{event: {truncated: false, folder: INBOX}}",
        "{subject: rechnung, not: {from: nobody}, any: [{to: x}, {cc: archive}]}",
        "{not: {not: {all: [{any: [{subject: rechnung}]}]}}}",
    ],
)
def test_condition_holds(when: str) -> None:
    assert holds(when, LETTER)


@pytest.mark.parametrize(
    "when",
    [
        "{subject: offer}",
        "{subject: {contains: rechnung, case: sensitive}}",
        "{subject: {equals: rechnung}}",
        "{subject: {matches: 'ihre', case: sensitive}}",
        "{subject: {contains: rechnung, equals: rechnung}}",
        "{header: {X-Missing: {matches: ''}}}".replace("''", "'^'"),
        "{header: {X-Spam: {contains: 'no', equals: 'yes'}}}",
        "{header: {List-Id: news, X-Missing: x}}",
        "{from: {equals: secretary@example.com}}",
        "{to: boss@example.com}",
        "{cc: help@example.org}",
        "{body: overdue}",
        "{size: {above: 1KB}}",
        "{attachment: false}",
        "{attachment: {name: offer, type: image/png}}",
        "{attachment: {size: {above: 1MB}}}",
        "{auto: true}",
        "{class: [bounce, auto-reply]}",
        "{force_default_queue: true}",
        "{trusted: true}",
        "{departments: [billing, Root]}",
        "{all: [{subject: rechnung}, {from: nobody}]}",
        "{any: [{subject: offer}, {from: nobody}]}",
        "{not: {subject: rechnung}}",
        "{from: {domain: ample.com}}",
        "{from: {local: secretary, domain: example.com}}",
        "{from: {name: boss}}",
        "{to: {exists: false}}",
        "{header: {X-Missing: {exists: true}}}",
        "{header: {List-Id: {exists: false}}}",
        "{subject: {words: rech}}",
        "{subject: {words: 'rechnung die'}}",
        "{subject: {words: fur}}",
        "{subject: {words: Rechnung, case: sensitive}}",
        "{attachment: {count: {above: 2}}}",
        "{attachment: {type: image/, count: 2}}",
        "{importance: high}",
        "{conversation: true}",
        "{none: [{subject: offer}, {from: boss}]}",
        "{event: {truncated: true}}",
        "{event: {conversation.id: x}}",
        "{age: {above: 1d}}",
        "{received: {days: mon-sun}}",
        "{subject: rechnung, from: nobody}",
    ],
)
def test_condition_does_not_hold(when: str) -> None:
    assert not holds(when, LETTER)


def test_display_name_does_not_pass_for_an_address() -> None:
    forged = a_message(
        from_=(addresses("thief@elsewhere.example")[0].__class__("boss@example.com", "thief@x.example"),)
    )

    assert not holds("{from: boss@example.com}", forged)


def test_empty_subject_can_be_asked_for() -> None:
    assert holds("{subject: {equals: ''}}", a_message(subject=""))
    assert not holds("{subject: {equals: ''}}", LETTER)


def test_word_classes_are_ascii_as_documented() -> None:
    umlaut = a_message(subject="Ärger")

    assert not holds(r"{subject: {matches: '^\w'}}", umlaut)
    assert not holds(r"{subject: {matches: '\bÄrger'}}", umlaut)
    assert holds(r"{subject: {matches: '^\p{L}'}}", umlaut)


def test_size_of_a_truncated_message_is_the_size_on_the_server() -> None:
    cut = a_message(octets=b"x" * 100, truncated=True, announced=30_000_000)

    assert holds("{size: {above: 25MB}}", cut)
    assert not holds("{size: {below: 1MB}}", cut)


def test_size_of_a_whole_message_is_counted_and_not_announced() -> None:
    assert holds("{size: {below: 1KB}}", a_message(octets=b"x" * 100, announced=30_000_000))


def test_class_of_a_mail_can_be_asked_for() -> None:
    bounce = a_message(classify=lambda message: Classification("bounce", "hard", ("from-daemon",)))
    assert holds("{class: bounce}", bounce)
    assert holds("{class: [list, bounce]}", bounce)
    assert not holds("{class: human}", bounce)
    assert holds("{class: human}", a_message())


def test_rule_that_asks_for_the_forced_queue_says_so() -> None:
    for when, asks in (
        ("{force_default_queue: true}", True),
        ("{not: {force_default_queue: false}}", True),
        ("{any: [{subject: x}, {force_default_queue: true}]}", True),
        ("{subject: x}", False),
    ):
        config = MatchConfig.model_validate({"name": "r", "when": yaml.safe_load(when), "then": {"discard": True}})
        assert config.build("r", Runtime(None, None, None)).asks_forced is asks  # type: ignore[arg-type]


def test_root_is_a_department_like_any_other() -> None:
    message = a_message()
    message.standing = Standing(trusted=True, departments=("billing", "shop"))

    assert why("{departments: [shop, claims]}", message) == 'department "shop"'
    assert not holds("{departments: root}", message)
    assert holds("{trusted: true}", message)
    assert not holds("{trusted: false}", message)


def test_automatic_mail_can_be_asked_for() -> None:
    assert holds("{auto: true}", a_message(auto="auto-replied"))
    assert not holds("{auto: false}", a_message(auto="auto-replied"))


@pytest.mark.parametrize(
    "when", ["{subject: x}", "{header: {X-A: x}}", "{from: x, to: x, cc: x}", "{size: {above: 1KB}}", "{auto: true}"]
)
def test_header_rule_never_parses_the_body(when: str) -> None:
    reads = BodyReads(Body("x", "x", ()))
    asked = rule(when)

    asked.judge(a_message(subject="x", load=reads))

    assert not asked.needs_body
    assert reads.count == 0


def test_body_is_not_parsed_when_the_header_decides() -> None:
    reads = BodyReads(Body("pay", "", ()))
    both = rule("{body: pay, subject: invoice}")
    either = rule("{any: [{attachment: true}, {subject: hello}]}")

    assert both.judge(a_message(subject="hello", load=reads)) is None
    assert either.judge(a_message(subject="hello", load=reads)) is not None

    assert both.needs_body and either.needs_body
    assert reads.count == 0


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("{subject: [invoice, Rechnung]}", 'subject contains "Rechnung"'),
        ("{header: {X-Spam: {equals: 'yes'}}}", 'header X-Spam equals "yes"'),
        ("{from: boss, subject: rechnung}", 'subject contains "rechnung", from contains "boss"'),
        ("{not: {subject: [a1, b2]}}", 'not (subject contains "a1" or "b2")'),
        ("{any: [{from: nobody}, {size: {below: 1KB}}]}", "size below 1000 octets"),
        ("{attachment: {name: {matches: 'pdf$'}}}", 'attachment with name matches "pdf$"'),
        ("{subject: {contains: rechnung, matches: '^I'}}", 'subject contains "rechnung" and matches "^I"'),
    ],
)
def test_match_says_why_in_words_of_the_rule(when: str, said: str) -> None:
    assert why(when, LETTER) == said


def test_hostile_pattern_on_hostile_text_takes_bounded_time() -> None:
    hostile = rule(r"{body: {matches: '(a+)+$'}, subject: {matches: '(.*)*(.*)*x$'}}")
    victim = a_message(subject="y" * 200_000 + "x", text="a" * 999_000 + "!")

    began = time.thread_time()
    assert hostile.judge(victim) is None

    assert time.thread_time() - began < paced(2)


def test_text_beyond_the_limit_is_not_looked_at() -> None:
    assert holds("{body: needle}", a_message(text=" " * 999_990 + "needle"))
    assert not holds("{body: needle}", a_message(text=" " * 1_000_000 + "needle"))


def test_rules_without_patterns_do_not_load_the_pattern_engine() -> None:
    program = (
        "import sys; from mailpoller.rules.match import MatchConfig;"
        "MatchConfig.model_validate({'name': 'r', 'when': {'subject': 'x'}, 'then': {'stop': True}});"
        "sys.exit('re2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_asking_the_header_costs_microseconds() -> None:
    headers = tuple((f"X-Field-{n}", "value") for n in range(30))
    letter = a_message(subject="Ihre Rechnung", headers=headers, from_=addresses("boss@example.com"))
    asked = rule("{subject: offer}").judge
    rounds: list[float] = []
    for _ in range(5):
        began = time.thread_time()
        for _ in range(2000):
            asked(letter)
        rounds.append((time.thread_time() - began) / 2000)

    # About half a microsecond; the bound leaves room for a busy machine.
    assert min(rounds) < 10e-6
