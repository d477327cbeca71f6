"""The event: CloudEvents 1.0, the documented schema, one rendering for many queues."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mailpoller.core.attributes import Attributes
from mailpoller.core.delivery import Event
from mailpoller.core.message import Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.spool import Octets, Spool
from mailpoller.core.standing import Standing
from mailpoller.core.verdict import Deliver, Quarantine
from mailpoller.mail import event as event_module
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse, unparsed
from mailpoller.testing import builders
from odd_mail.reading import NOW, raw

OCTETS = builders.with_attachment(
    markup="<p>x</p>",
    headers={"Cc": '"Doe, J" <j@example.com>', "Reply-To": "r@example.com", "Return-Path": "<e@example.com>"},
)
VERDICT = Deliver(("a", "b"), Attributes("billing", "high", ("vip",)), rules=("invoices",))


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(
        resources.files("mailpoller.mail").joinpath("event.schema.json").read_text("utf-8")
    )
    return loaded


def renderer(message: Message | None = None, verdict: Deliver | Quarantine = VERDICT) -> EventRenderer:
    return EventRenderer(
        message or parse(raw(OCTETS)),
        verdict=verdict,
        source="mailpoller/support",
        now=datetime(2030, 1, 1, tzinfo=UTC),
    )


def checked(rendered: Event) -> dict[str, Any]:
    octets = rendered.structured()
    assert len(octets) == rendered.size
    event: dict[str, Any] = json.loads(octets.decode("utf-8"))
    jsonschema.Draft202012Validator(schema()).validate(event)
    return event


def test_event_says_what_the_mailbox_is():
    standing = Standing(trusted=True, departments=("billing", "shop"))
    renders = EventRenderer(parse(raw(OCTETS)), verdict=VERDICT, source="s", now=NOW, standing=standing)
    told = checked(renders.render(queue="a", delivery_id="d", payload="summary"))["data"]
    usual = checked(renderer().render(queue="a", delivery_id="d", payload="raw"))["data"]

    assert (told["trusted"], told["departments"]) == (True, ["billing", "shop"])
    assert (usual["trusted"], usual["departments"]) == (False, ["root"])


def test_envelope_is_cloudevents():
    event = checked(renderer().render(queue="a", delivery_id="d-1"))
    assert {name: value for name, value in event.items() if name != "data"} == {
        "specversion": "1.0",
        "id": "mid",
        "source": "mailpoller/support",
        "type": "org.mailpoller.message.received",
        "subject": "INBOX/17",
        "time": "2026-03-14T09:26:53Z",
        "datacontenttype": "application/json",
        "dataschema": schema()["$id"],
        "deliveryid": "d-1",
        "queue": "a",
        "topic": "billing",
        "priority": "high",
    }
    for name in event:
        assert re.fullmatch("[a-z0-9]{1,20}", name), "CloudEvents 1.0 section 3.1"


def test_data_says_what_is_in_the_message():
    data = checked(renderer().render(queue="a", delivery_id="d"))["data"]
    assert data["from"] == [{"name": "Jürgen Groß", "address": "juergen@example.com"}]
    assert data["cc"] == [{"name": "Doe, J", "address": "j@example.com"}]
    assert data["return_path"] == "e@example.com"
    assert data["subject"] == "Signed contract"
    assert data["date"] == "2026-03-14T09:26:53Z"
    assert data["message_id"] == "<1.20260314092653@example.com>"
    assert ["Subject", "Signed contract"] in data["headers"]
    assert (data["topic"], data["priority"], data["tags"], data["rules"]) == ("billing", "high", ["vip"], ["invoices"])
    assert data["text"] == "The contract is attached.\n"
    assert data["html"].strip() == "<p>x</p>"
    assert data["attachments"][0]["name"] == "Vertrag für Müller.pdf"
    assert data["size"] == len(OCTETS)
    assert data["sha256"] == raw(OCTETS).octets.digest.hex()


@pytest.mark.parametrize(
    ("payload", "inside", "present", "absent"),
    [
        ("summary", False, set(), {"text", "html", "attachments", "raw"}),
        ("parsed", False, {"text", "html", "attachments"}, {"raw"}),
        ("parsed", True, {"text", "html", "attachments", "raw"}, set()),
        ("raw", True, {"raw"}, {"text", "html", "attachments"}),
        ("raw", False, set(), {"text", "html", "attachments", "raw"}),
    ],
)
def test_payload_levels(payload, inside, present, absent):
    data = checked(renderer().render(queue="a", delivery_id="d", payload=payload, octets_inside=inside))["data"]
    assert data["payload"] == payload
    assert present <= set(data)
    assert not absent & set(data)
    if inside:
        assert base64.b64decode(data["raw"], validate=True) == OCTETS


def test_summary_and_raw_never_read_the_body():
    message = parse(raw(OCTETS))
    for payload in ("summary", "raw"):
        renderer(message).render(queue="a", delivery_id="d", payload=payload, octets_inside=True)
    assert message._body is None


def test_second_queue_costs_no_second_rendering(monkeypatch):
    renders = renderer()
    first = renders.render(queue="a", delivery_id="1", octets_inside=True)
    calls: list[object] = []
    real = event_module._dumps
    monkeypatch.setattr(event_module, "_dumps", lambda value: calls.append(value) or real(value))
    monkeypatch.setattr(event_module.pybase64, "b64encode", lambda octets: pytest.fail("encoded twice"))
    second = renders.render(queue="b", delivery_id="2", octets_inside=True)
    assert all(len(str(value)) < 1000 for value in calls)
    assert first.data() == second.data()
    assert first.envelope.replace(b'"deliveryid":"1","queue":"a"', b'"deliveryid":"2","queue":"b"') == second.envelope


def test_the_same_message_rendered_later_is_the_same_event():
    message = parse(raw(OCTETS))
    both = [
        EventRenderer(message, verdict=VERDICT, source="s", now=datetime(year, 1, 1, tzinfo=UTC)).render(
            queue="a", delivery_id="d"
        )
        for year in (2027, 2028)
    ]
    assert both[0] == both[1]


def test_the_binary_mode_has_the_same_attributes_and_data_beside_each_other():
    event = renderer().render(queue="a", delivery_id="d", redelivery=2)
    together = checked(event)
    assert json.loads(event.data()) == together.pop("data")
    assert event.context() == {**together, "redelivery": "2"}


def test_time_is_ours_if_the_server_said_none():
    message = parse(replace(raw(OCTETS), received=None))
    event = checked(renderer(message).render(queue="a", delivery_id="d"))
    assert event["time"] == "2030-01-01T00:00:00Z"
    assert event["data"]["received"] is None


def test_quarantined_message_says_why():
    verdict = Quarantine("auto-reply", "Auto-Submitted says so", rules=("r",))
    event = checked(
        renderer(verdict=verdict).render(queue="quarantine", delivery_id="d", payload="raw", octets_inside=True)
    )
    assert event["type"] == "org.mailpoller.message.quarantined"
    assert event["data"]["quarantine"] == {"reason": "auto-reply", "detail": "Auto-Submitted says so"}
    assert event["data"]["rules"] == ["r"]
    assert "topic" not in event


def test_unparsed_message_can_be_rendered_too():
    event = checked(renderer(unparsed(raw(OCTETS))).render(queue="a", delivery_id="d", octets_inside=True))
    assert event["data"]["defects"] == ["unparsed"]
    assert event["data"]["subject"] == ""
    assert base64.b64decode(event["data"]["raw"]) == OCTETS


def test_octets_of_a_spooled_message_are_inside_too(tmp_path):
    intake = Spool(tmp_path, threshold=1).begin(1 << 20)
    intake.write(OCTETS)
    octets = intake.finish()
    event = checked(renderer(parse(raw(octets))).render(queue="a", delivery_id="d", octets_inside=True))
    octets.close()
    assert base64.b64decode(event["data"]["raw"]) == OCTETS


def test_redelivery_repeat_and_truncation_are_told():
    message = parse(replace(raw(OCTETS), truncated=True, announced=10**6, flags=("\\Seen", "vip")))
    renders = EventRenderer(message, verdict=VERDICT, source="s", now=NOW, repeat_of="earlier")
    event = checked(renders.render(queue="a", delivery_id="d", redelivery=2))
    assert event["redelivery"] == 2
    data = event["data"]
    assert (data["truncated"], data["announced_size"], data["repeat_of"]) == (True, 10**6, "earlier")
    assert data["flags"] == ["\\Seen", "vip"]


def test_defects_of_the_body_are_told_once_it_was_read():
    message = parse(raw(builders.broken()))
    assert (
        "charset-unknown"
        not in checked(renderer(message).render(queue="a", delivery_id="d", payload="summary"))["data"]["defects"]
    )
    assert "charset-unknown" in checked(renderer(message).render(queue="a", delivery_id="d"))["data"]["defects"]


def test_names_that_are_no_valid_unicode_do_not_stop_an_event():
    ref = MessageRef(Folder("support", "\udc80\ud800Entw\u00fcrfe\r\n", "e\udfff"), "1\ud800")
    message = parse(RawMessage(Claim(ref, "mid"), Octets.of(OCTETS), announced=2**70, received=NOW, flags=("\ud800",)))
    event = checked(renderer(message).render(queue="a", delivery_id="d"))
    assert event["subject"] == "\ufffd\ufffdEntwürfe /1\ufffd"
    assert event["data"]["flags"] == ["\ufffd"]
    assert event["data"]["announced_size"] is None


def test_schema_refuses_what_is_no_event():
    event = checked(renderer().render(queue="a", delivery_id="d"))
    for spoil in (
        lambda e: e.update(Upper="x"),
        lambda e: e.pop("deliveryid"),
        lambda e: e["data"].pop("text"),
        lambda e: e["data"].update(payload="raw"),
        lambda e: e["data"].update(sha256="x"),
        lambda e: e["data"]["from"].append("a@example.com"),
    ):
        spoiled = json.loads(json.dumps(event))
        spoil(spoiled)
        assert not jsonschema.Draft202012Validator(schema()).is_valid(spoiled)


# --- the page about it -----------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "event.md"


def test_page_lists_every_defect_and_no_other():
    source = "".join(path.read_text("utf-8") for path in Path(event_module.__file__).parent.glob("*.py"))
    defined = set(re.findall(r'^[A-Z0-9_]+ = "([a-z0-9-]+)"\n"""Defect: ', source, re.MULTILINE))
    listed = set(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text("utf-8").partition("## Defects")[2], re.MULTILINE))
    assert len(defined) > 20
    assert listed == defined


def test_example_on_the_page_is_a_shortened_event():
    (example,) = re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    shortened = json.loads(example)
    assert {name: value for name, value in shortened.items() if name != "data"}.keys() == (
        checked(renderer().render(queue="a", delivery_id="d")).keys() - {"data"}
    )
    assert shortened["data"].keys() <= schema()["properties"]["data"]["properties"].keys()
