"""``mailpoller test``: tests that stand beside the rules are carried out as the service would judge."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import structlog

from mailpoller.cli import exits
from mailpoller.cli.mail_of_test import compose
from mailpoller.cli.program import program
from mailpoller.config.tests_of_rules import MailOfTest
from odd_mail.reading import read

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")
MAIN = """
service: {{state_directory: {state}}}
queues:
  support: {{type: jsonl, path: {state}/support}}
  billing: {{type: jsonl, path: {state}/billing}}
rules:
  - name: invoices
    when: {{subject: {{contains: [invoice, Rechnung]}}}}
    then: {{topic: billing, queue: billing}}
  - name: executables
    when: {{attachment: {{name: {{matches: '\\.(exe|scr|js)$'}}}}}}
    then: {{quarantine: executable}}
  - name: vip
    when: {{from: boss@}}
    then: {{tags: [vip, german]}}
mailboxes:
  support: {{type: maildir, path: {state}/mail, rules: [invoices, executables, vip], default_queue: support}}
"""


class Place:
    """A configuration with tests, and what the verb says of it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.err = ""
        self.main()

    def main(self, more: str = "") -> None:
        self.write("mailpoller.yaml", MAIN.format(state=self.directory / "state") + more)

    def main_more(self, more: str) -> None:
        main = self.directory / "mailpoller.yaml"
        main.write_text(main.read_text("utf-8") + more, "utf-8")

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text, "utf-8")
        return path

    def run(self, *words: str, verb: str = "test") -> tuple[int, str]:
        argv = ["mailpoller", verb, "--config", str(self.directory / "mailpoller.yaml"), *words]
        self._monkeypatch.setattr(sys, "argv", argv)
        code = exits.exit_code(program)
        captured = self._capsys.readouterr()
        self.err = captured.err
        return code, captured.out

    def json(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run(*words, "--json")[1])
        return found


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    logging = structlog.get_config()  # a verb that does not log says so to all of the process
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    (tmp_path / "rules").mkdir()
    yield Place(tmp_path / "rules", capsys, monkeypatch)
    structlog.configure(**logging)


def a_test(expect: str, mail: str = "{subject: Invoice 17}", name: str = "one", more: str = "") -> str:
    return f"tests:\n  - name: {name}\n    mail: {mail}\n    expect: {expect}\n{more}"


def test_example_of_the_page_passes_against_its_rules(place: Place) -> None:
    (block,) = re.findall(r"^```yaml\n# [^\n]*test\.yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    place.write("billing.test.yaml", block)

    assert place.run() == (
        0,
        "passed  An invoice goes to billing, whoever sends it\npassed  Programs are kept for a human\n"
        "passed  Nothing else is kept\n3 passed\nno test meets 1 rule: vip\n",
    )


@pytest.mark.parametrize(
    ("expect", "difference"),
    [
        ("{verdict: quarantine}", 'verdict: expected "quarantine", got "deliver"'),
        ("{queues: [billing, support]}", 'queues: expected "billing", "support", got "billing"'),
        ("{queues: []}", 'queues: expected none, got "billing"'),
        ("{topic: other}", 'topic: expected "other", got "billing"'),
        ("{priority: high}", 'priority: expected "high", got "normal"'),
        ("{tags: x}", 'tags: expected "x", got none'),
        ("{reason: rule}", 'reason: expected "rule", got none'),
        ("{class: bounce}", 'class: expected "bounce", got "human"'),
        ("{rules: [invoices, vip]}", 'rules: expected "invoices", "vip", got "invoices"'),
        ("{event: {subject: x}}", 'event subject: expected "x", got "Invoice 17"'),
        ("{event: {nothing.0.here: x}}", 'event nothing.0.here: expected "x", and there is no such field'),
    ],
)
def test_what_differs_is_said_with_the_trace_and_the_place(place: Place, expect: str, difference: str) -> None:
    file = place.write("a.test.yaml", a_test(expect))

    code, said = place.run()

    assert code == 1
    assert said.splitlines()[:6] == [
        "failed  one", f"        {file}:2:5, judged as support", f"        {difference}",
        '          + invoices: subject contains "invoice"', "          - executables", "          - vip",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mail", "expect"),
    [
        ("{from: BOSS@x.example}", "{queues: support, tags: [german, vip], rules: [vip]}"),
        ("{attachments: [{name: a.exe, size: 2KB}]}", "{verdict: quarantine, reason: executable, queues: []}"),
        ("{headers: {Auto-Submitted: auto-replied}}", "{reason: auto-reply, class: auto-reply}"),
        ("{attachments: [{name: ä\".pdf, content: x}]}", "{event: {attachments.0.name: 'ä\".pdf'}}"),
        ("{text: grüße, html: <p>}", "{event: {text: \"grüße\\n\", html: \"<p>\\n\"}}"),
        ("{headers: {Subject: [Rechnung]}, to: x@y.z, cc: a@b.c}", "{topic: billing, event: {cc.0.address: a@b.c}}"),
    ],
)  # fmt: skip
def test_mail_of_a_block_is_what_it_says(place: Place, mail: str, expect: str) -> None:
    place.write("a.test.yaml", a_test(expect, mail))

    assert place.run()[1].startswith("passed")


def test_composed_mail_has_no_defect() -> None:
    block = {"text": "=_test ü", "html": "<b>", "attachments": [{"name": "x.bin", "size": "70KB"}], "subject": "Grüße"}
    message = read(compose(MailOfTest.model_validate(block), "Käthe <k@example.com>"))

    assert message.body.attachments[0].size == 70_000
    assert message.to[0].name == "Käthe"
    assert message.defects == ()


def test_explain_shows_the_fields_that_rules_made(place: Place) -> None:
    rewritten(place, "then: {tags: [vip, german]}", "then: {set: {source: boss, level: 2}}")
    mail = place.write("one.eml", "From: boss@x.example\nSubject: x\n\nx\n")

    code, said = place.run(str(mail), verb="explain")

    assert code == 0
    assert "fields    source: boss, level: 2\n" in said


def test_files_are_found_beside_the_test_and_one_that_is_missing_stops_no_other(place: Place) -> None:
    place.write("1.eml", "Subject: invoice\n\nx\n")
    place.write("2.eml", "Subject: Rechnung\n\nx\n")
    files = "[1.eml, none.eml, 2.eml]"
    place.write("a.test.yaml", f"tests: [{{name: n, file: {files}, expect: {{topic: billing}}}}]")

    found = place.json()

    assert [one["result"] for one in found["tests"]] == ["passed", "error", "passed"]
    assert found["tests"][1]["error"] == "none.eml: No such file or directory"
    assert place.run()[0] == 1


def test_time_of_receipt_is_that_of_the_test(place: Place) -> None:
    more = "    received: 2026-03-14T09:26:53+01:00\n"
    place.write("a.test.yaml", a_test("{event: {received: '2026-03-14T08:26:53Z'}}", more=more))

    assert place.run()[0] == 0


def test_tests_of_the_configuration_are_carried_out_too_and_may_be_chosen_by_name(place: Place) -> None:
    place.main(a_test("{topic: billing}", name="An invoice"))
    place.write("a.test.yaml", a_test("{topic: other}", name="Another"))

    assert [one["name"] for one in place.json()["tests"]] == ["An invoice", "Another"]
    assert place.run("-k", "invoice") == (0, "passed  An invoice\n1 passed\n")
    assert [one["name"] for one in place.json(str(place.directory / "a.test.yaml"))["tests"]] == ["Another"]


def test_wildcard_of_include_passes_over_files_of_tests(place: Place) -> None:
    place.main("include: '*.yaml'\n")
    place.write("b.yaml", "tests: []")
    place.write("a.test.yaml", "not even: a test")

    code, _ = place.run(str(place.write("c.test.yaml", a_test("{topic: billing}"))))

    assert code == 0


def test_wrong_test_is_refused_with_its_place(place: Place) -> None:
    file = place.write(
        "a.test.yaml",
        "mailbox: support\ntests:\n"
        "  - {name: a, expect: {topic: x}}\n"
        "  - {name: b, mail: x, expect: {}}\n"
        "  - {name: c, mail: x, expect: {queues: bilding}}\n"
        "  - {name: d, mail: x, mailbox: suport, expect: {rules: vop}}\n"
        "  - {mail: x, expect: {topic: x}}\n"
        "  - {name: e, mail: x, received: 2026-03-14T09:26:53, expect: {topic: x}}\n"
        "  - {name: f, mail: {subject: \"a\\nb\"}, expect: {topic: x}}\n"
        "  - {name: f, mail: x, expect: {topic: x}}\n"
        "  - {name: g, mail: x, expect: {topic: x, tpoic: x}}\n"
        "other: 1\n",
    )  # fmt: skip

    code, _ = place.run()

    assert code == 78
    assert [line.removeprefix(f"mailpoller: {file}:") for line in place.err.splitlines()] == [
        "3:5: tests[0]: a test has a mail or a file, one of them",
        "4:24: tests[1].expect: nothing is expected, so nothing could fail",
        '5:33: tests[2].expect.queues: no queue is called bilding; did you mean "billing"?',
        '6:24: tests[3].mailbox: no mailbox is called suport; did you mean "support"?',
        '6:50: tests[3].expect.rules: no rule is called vop; did you mean "vip"?',
        "7:5: tests[4].name: this key is required: what is promised, on one line",
        "8:24: tests[5].received: is not valid (timezone aware)",
        "9:22: tests[6].mail.subject: a header field is written on one line",
        f"10:6: tests[7].name: this name is taken by {file}:9:6",
        '11:43: tests[8].expect.tpoic: there is no such key; did you mean "topic"?',
        "12:1: other: there is no such key; there is mailbox or tests",
    ]


def test_no_test_at_all_is_told(place: Place) -> None:
    assert place.run() == (66, "")
    assert place.err == "mailpoller: there is no test\n"


def test_junit_holds_every_case_whatever_characters_it_has(place: Place) -> None:
    place.write("a.test.yaml", a_test("{topic: billing}", name="'<a> & \"b\"'"))
    place.write("b.test.yaml", a_test('{topic: "x\\x07\\uFFFE]]>"}'))
    report = place.directory / "results.xml"

    assert place.run("--junit", str(report))[0] == 1

    suite = ElementTree.parse(report).getroot()[0]
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "2", "failures": "1", "errors": "0",
    }  # fmt: skip
    assert suite[0].get("name") == '<a> & "b"'
    assert suite[1][0].get("message") == 'topic: expected "x\ufffd\ufffd]]>", got "billing"'


def test_junit_that_cannot_be_written_is_told(place: Place) -> None:
    place.write("a.test.yaml", a_test("{topic: billing}"))

    assert place.run("--junit", str(place.directory / "none" / "x.xml"))[0] == 74


def rewritten(place: Place, old: str, new: str) -> None:
    main = place.directory / "mailpoller.yaml"
    main.write_text(main.read_text("utf-8").replace(old, new), "utf-8")


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda place: None, 0),
        (lambda place: place.write("a.test.yaml", a_test("{queues: billing}")), 1),
        (lambda place: place.write("one.eml", "Subject: another invoice\n\nx\n"), 1),
        (lambda place: rewritten(place, "rules:\n", "rules:\n  - {name: x, when: {to: x}, then: {stop: true}}\n"), 0),
        (lambda place: rewritten(place, "boss@", "chair@"), 2),
        (lambda place: rewritten(place, "{type: maildir,", "{type: maildir, trusted: true,"), 2),
    ],
)
def test_only_what_changed_is_carried_out_again(place: Place, change: Callable[[Place], Any], again: int) -> None:
    place.write("one.eml", "Subject: invoice\n\nx\n")
    place.write("a.test.yaml", a_test("{topic: billing}"))
    place.write("b.test.yaml", "tests: [{name: b, file: one.eml, expect: {topic: billing}}]")
    assert place.run("--changed")[0] == 0
    change(place)

    found = place.json("--changed")

    assert (len(found["tests"]), found["unchanged"]) == (again, 2 - again)
    assert found["unmatched"] == ["executables", "vip"]


def test_what_failed_is_carried_out_again_though_nothing_changed(place: Place) -> None:
    place.write("a.test.yaml", a_test("{topic: other}"))

    assert [place.run("--changed")[0] for _ in range(2)] == [1, 1]


def test_spoilt_memory_of_what_passed_costs_nothing_but_time(place: Place) -> None:
    place.write("a.test.yaml", a_test("{topic: billing}"))
    place.run()
    (memory,) = (place.directory.parent / "cache" / "mailpoller").iterdir()
    for spoilt in ("", "[1]", '{"x": 1}', "\xff" * 9):
        memory.write_text(spoilt, "latin-1")
        assert len(place.json("--changed")["tests"]) == 1


def test_rules_of_a_set_are_asked_before_the_mailbox_s_own_and_none_twice(place: Place) -> None:
    rewritten(place, "rules: [invoices, executables, vip]", "rules: [invoices, vip], rule_sets: [house, more]")
    place.main_more("rule_sets: {house: {rules: [vip, executables]}, more: {rules: [executables]}}\n")
    place.write("a.test.yaml", a_test("{rules: [vip, invoices]}", "{from: boss@x, subject: invoice}"))

    (told,) = place.json()["tests"]

    assert [rule["rule"] for rule in told["rules"]] == ["vip", "executables", "invoices"]
    assert told["result"] == "passed"


def test_rule_may_name_another_and_no_circle(place: Place) -> None:
    rewritten(place, "when: {from: boss@}", "when: {any: [{subject: x}, {rule: executables}]}")
    rewritten(place, "when: {attachment: {name: {matches: '\\.(exe|scr|js)$'}}}", "when: {not: {rule: invoices}}")
    place.write("a.test.yaml", a_test("{verdict: quarantine}", "{subject: hello}"))
    assert place.run()[0] == 0
    rewritten(place, "{subject: {contains: [invoice, Rechnung]}}", "{all: [{subject: y}, {rule: vip}]}")

    assert place.run()[0] == 78
    assert place.err.rpartition("yaml:")[2] == (
        "11:18: rules[1].when.not.rule: the rules name one another in a circle: "
        "invoices -> vip -> executables -> invoices\n"
    )


def test_mailbox_whose_list_is_missing_cannot_judge_and_others_can(place: Place) -> None:
    rewritten(place, "{subject: {contains: [invoice, Rechnung]}}", "{subject: {list: /none/at/all}}")
    place.main_more("tests: []\n")
    rewritten(place, "mailboxes:\n", "mailboxes:\n  other: {type: maildir, path: /nowhere, default_queue: support}\n")
    place.write("a.test.yaml", "mailbox: support\n" + a_test("{topic: x}"))
    place.write("b.test.yaml", "mailbox: other\n" + a_test("{queues: support}"))

    assert [(one["result"], one["error"]) for one in place.json()["tests"]] == [
        ("error", "the mailbox support cannot judge: /none/at/all: No such file or directory"),
        ("passed", ""),
    ]


@pytest.mark.parametrize("when", ["{from: {list: %s}}", "{subject: {words: [x, {file: %s}]}}"])
def test_changed_list_has_the_tests_of_its_rules_carried_out_again(place: Place, when: str) -> None:
    listed = place.directory / "listed"
    listed.write_text("one\n", "utf-8")
    rewritten(place, "{from: boss@}", when % listed)
    place.write("a.test.yaml", a_test("{topic: billing}"))
    place.run()
    assert place.json("--changed")["unchanged"] == 1
    listed.write_text("another\n", "utf-8")

    assert place.json("--changed")["unchanged"] == 0


def test_rule_behind_another_is_a_reason_to_carry_out_the_tests_of_the_first(place: Place) -> None:
    rewritten(place, "when: {from: boss@}", "when: {rule: hidden}")
    place.main_more("")
    rewritten(
        place,
        "rules:\n  - name: invoices",
        "rules:\n  - {name: hidden, when: {to: x}, then: {stop: true}}\n  - name: invoices",
    )
    place.write("a.test.yaml", a_test("{topic: billing}"))
    place.run()
    assert place.json("--changed")["unchanged"] == 1
    rewritten(place, "when: {to: x}", "when: {to: y}")

    assert place.json("--changed")["unchanged"] == 0


def test_brake_of_the_mailbox_stops_no_test(place: Place) -> None:
    rewritten(place, "{type: maildir,", "{type: maildir, brake: {mails: 2},")
    more = "    received: 2026-03-14T09:26:53+01:00\n"
    for number in range(4):
        place.write(f"{number}.test.yaml", a_test("{verdict: deliver}", more=more))

    assert place.run()[0] == 0
