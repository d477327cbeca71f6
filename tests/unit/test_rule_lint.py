"""Rules that can have no effect are told by ``check``, and none that has one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from mailpoller.config import load
from mailpoller.rules.condition import Condition
from mailpoller.rules.implication import contradiction, covers
from pace import paced


def condition(written: str) -> Condition:
    return Condition.model_validate(yaml.safe_load(written))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("{subject: x, not: {subject: x}}", "what must not hold is what must hold"),
        ("{subject: {equals: invoice 1}, none: [{from: y}, {subject: INV}]}", "what must not hold is what must hold"),
        ("{all: [{trusted: true}, {trusted: false}]}", "two tests of trusted exclude each other"),
        ("{class: bounce, all: [{class: [human, list]}]}", "two tests of class exclude each other"),
        ("{all: [{size: {above: 5MB}}, {size: {below: 1MB}}]}", "two tests of size exclude each other"),
        ("{all: [{subject: {equals: a}}, {subject: {equals: [b, c]}}]}", "two tests of subject exclude each other"),
        ("{all: [{header: {X-A: {exists: false}}}, {header: {x-a: {exists: true}}}]}",
         "two tests of header:x-a exclude each other"),
        ("{any: [{subject: x, not: {subject: x}}, {to: y, not: {to: y}}]}", "none of what stands below any can hold"),
        ("{not: {any: [{subject: x}, {to: y}]}, to: y}", "what must not hold is what must hold"),
    ],
)  # fmt: skip
def test_contradiction_is_told(when: str, said: str) -> None:
    assert contradiction(condition(when)) == said


@pytest.mark.parametrize(
    "when",
    [
        "{subject: x, not: {subject: y}}",
        "{subject: x, not: {subject: xy}}",
        "{subject: {contains: x}, not: {subject: {contains: x, case: sensitive}}}",
        "{all: [{from: {equals: a@b}}, {from: {equals: c@d}}]}",
        "{all: [{class: [bounce, human]}, {class: human}]}",
        "{all: [{size: {above: 1MB}}, {size: {below: 5MB}}]}",
        "{any: [{trusted: true}, {trusted: false}]}",
        "{not: {not: {subject: x}}, subject: x}",
        "{not: {subject: x, to: y}, subject: x}",
        "{all: [{subject: {equals: a, case: sensitive}}, {subject: {equals: A}}]}",
    ],
)
def test_what_can_hold_is_no_contradiction(when: str) -> None:
    assert contradiction(condition(when)) == ""


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("{subject: x}", "{subject: x}", True),
        ("{subject: x}", "{subject: axb}", True),
        ("{subject: [x, y]}", "{subject: X}", True),
        ("{subject: x}", "{subject: [x, y]}", False),
        ("{subject: {contains: x, case: sensitive}}", "{subject: x}", False),
        ("{subject: x}", "{subject: {contains: X, case: sensitive}}", True),
        ("{subject: x}", "{subject: {equals: a x b}, from: y}", True),
        ("{subject: x, from: y}", "{subject: x}", False),
        ("{from: {domain: example.com}}", "{from: {domain: mail.example.com}}", True),
        ("{from: {domain: example.com}}", "{from: {domain: [example.com, x.test]}}", False),
        ("{any: [{subject: x}, {to: y}]}", "{to: y}", True),
        ("{any: [{subject: x}, {to: y}]}", "{any: [{to: y}, {subject: x1}]}", True),
        ("{any: [{subject: x}, {to: y}]}", "{any: [{to: y}, {cc: z}]}", False),
        ("{class: [bounce, report]}", "{class: bounce}", True),
        ("{size: {above: 1MB}}", "{size: {above: 2MB, below: 3MB}}", True),
        ("{size: {above: 2MB}}", "{size: {above: 1MB}}", False),
        ("{not: {subject: xy}}", "{not: {subject: x}}", True),
        ("{not: {subject: x}}", "{not: {subject: xy}}", False),
        ("{header: {X-A: {exists: true}}}", "{header: {x-a: {exists: true}}}", True),
        ("{subject: {matches: 'a'}}", "{subject: {matches: 'ab'}}", False),
    ],
)
def test_what_covers_another_is_told_only_where_it_is_sure(wide: str, narrow: str, expected: bool) -> None:
    assert covers(condition(wide), condition(narrow)) is expected


MAIN = """
service: {{state_directory: {state}}}
queues: {{support: {{type: jsonl, path: {state}/q}}}}
{more}
"""


def warnings(tmp_path: Path, more: str) -> list[str]:
    path = tmp_path / "mailpoller.yaml"
    path.write_text(MAIN.format(state=tmp_path, more=more), "utf-8")
    return [str(problem).removeprefix(f"{path}:") for problem in load(path).warnings]


def test_shadowed_rule_is_told_with_the_one_that_shadows_it(tmp_path: Path) -> None:
    assert warnings(
        tmp_path,
        """rules:
  - {name: tagging, when: {subject: spam}, then: {tags: x}}
  - {name: spam, when: {any: [{subject: spam}, {from: spammer}]}, then: {discard: true}}
  - {name: late, when: {subject: 'this is spam'}, then: {queue: support}}
  - {name: other, when: {to: y, from: spammer}, then: {tags: y}}
mailboxes:
  a: {type: maildir, path: /a, rules: [tagging, spam, late, other]}
  b: {type: maildir, path: /b, rules: [tagging, spam, late, other]}
  c: {type: maildir, path: /c, rules: [other, spam]}
""",
    ) == [
        "7:6: rules[2].name: has no effect: wherever it matches, the rule spam has matched before it and ended the "
        "judging",
        "8:6: rules[3].name: has no effect in the mailbox a and 1 more: wherever it matches, the rule spam has matched "
        "before it and ended the judging",
    ]


def test_condition_that_no_mailbox_can_meet_is_told(tmp_path: Path) -> None:
    told = warnings(
        tmp_path,
        """rules:
  - {name: d, when: {departments: [billing, shop]}, then: {tags: x}}
  - {name: t, when: {trusted: true}, then: {tags: x}}
  - {name: f, when: {fields: {order: '1'}}, then: {tags: x}}
  - {name: e, when: {to: y}, then: {extract: {from: subject, pattern: '(?P<order>x)'}}}
  - {name: g, when: {fields: {order: '1'}, force_default_queue: true}, then: {tags: x}}
  - {name: never, when: {subject: x, not: {subject: x}}, then: {tags: x}}
mailboxes:
  a: {type: maildir, path: /a, rules: [d, t, f, e, g, never]}
  b: {type: maildir, path: /b, force_default_queue: true, rules: [d]}
""",
    )

    assert [line.partition(": ")[2] for line in told] == [
        "rules[0].name: no mailbox that asks this rule serves the department billing or shop",
        "rules[1].name: every mailbox that asks this rule is not trusted",
        "rules[2].name: no rule before it sets the field order",
        "rules[4].name: force_default_queue is not set in every mailbox that asks this rule",
        "rules[5].when: this can never hold: what must not hold is what must hold",
        "mailboxes.b.force_default_queue: with force_default_queue these are never asked: d; a rule that is to be "
        "asked says force_default_queue: true in its condition",
    ]


def test_hundreds_of_rules_of_many_mailboxes_cost_seconds_at_most(tmp_path: Path) -> None:
    rules = "\n".join(f"  - {{name: r{n}, when: {{subject: x{n}x}}, then: {{stop: true}}}}" for n in range(400))
    names = ", ".join(f"r{n}" for n in range(400))
    boxes = "\n".join(f"  m{n}: {{type: maildir, path: /m{n}, rule_sets: [s]}}" for n in range(200))

    begun = time.process_time()
    assert warnings(tmp_path, f"rules:\n{rules}\nrule_sets: {{s: {{rules: [{names}]}}}}\nmailboxes:\n{boxes}") == []
    assert time.process_time() - begun < paced(10)  # 2 s on an idle machine
