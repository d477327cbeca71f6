"""The EWS source without a server: configuration, requests, answers cut anywhere, positions, challenges."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.core.ports import Start
from mailpoller.remote.exchange import impossible
from mailpoller.remote.polled_session import FolderGone
from mailpoller.sources.ews import EwsConfig, soap
from mailpoller.sources.ews.authentication import read_challenge
from mailpoller.sources.ews.listing import Bookmark
from mailpoller.sources.ews.reader import AnswerReader, Malformed, Node
from mailpoller.sources.ews.replies import Reply, fault
from mailpoller.wire.http import iso_date

URL = "https://mail.example.com/EWS/Exchange.asmx"


def config(**settings: Any) -> EwsConfig:
    return EwsConfig.model_validate({"type": "ews", "url": URL, "username": "svc", "password": "env:X", **settings})


# --- configuration -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "host",
    [
        "outlook.office365.com", "OUTLOOK.OFFICE365.COM.", "outlook.office.com", "outlook.office365.us",
        "outlook-dod.office365.us",
        "partner.outlook.cn", "outlook.office.de", "webmail.apps.mil", "eur.outlook.com", "outlook.com",
    ],
)  # fmt: skip
def test_exchange_online_is_refused_with_the_reason_and_the_way_out(host: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(url=f"https://{host}/EWS/Exchange.asmx")
    told = str(caught.value)
    assert "off by default since 2026-10-01 and gone on 2027-04-01" in told
    assert "type: graph" in told


@pytest.mark.parametrize(
    "host", ["mail.example.com", "outlook.example.com", "myoffice365.com", "10.0.0.5", "[::1]:8443"]
)
def test_every_other_host_is_taken(host: str) -> None:
    assert config(url=f"https://{host}/ews/exchange.asmx").url == f"https://{host}/ews/exchange.asmx"


def test_url_of_a_host_alone_gets_the_usual_path() -> None:
    assert config(url="https://mail.example.com").url == URL
    assert config(url="https://mail.example.com/").url == URL


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "mail.example.com"}, {"url": "ftp://mail.example.com/"}, {"url": "https://user:pw@mail.example.com/x"},
        {"url": "https://mail.example.com/x?y=z"}, {"url": "https://mail.example.com/x "
                                                           "y"}, {"url": "https://mail.example.com:x/y"},
        {"url": "https://[bad/"}, {"password": None}, {"username": ""}, {"username": "a\nb"}, {"mailbox": "shared"},
        {"access": "impersonation"}, {"folders": []}, {"folders": ["a//b"]}, {"folders": ["inbox", "Inbox"]},
        {"disposition": {"flag": "\\Answered"}}, {"disposition": {"flag": "a,b"}}, {"disposition": {"move": "a//b"}},
        {"ca_file": "/x", "pin": "ab" * 32}, {"notice_interval": "10ms"}, {"command_timeout": "0s"},
        {"deletion": "shred"},
        {"auth": {"mechanism": "digest"}},
        {"auth": {"type": "oauth2", "grant": "client_credentials", "token_url": "https://l/t", "client_id": "x",
        "client_secret": "y"}},
        {
            "password": None, "mailbox": "a@b",
            "auth": {"type": "oauth2", "grant": "client_credentials", "token_url": "https://l/t", "client_id": "x",
            "client_secret": "y"},
        },
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**wrong)


def test_password_does_not_show_in_the_configuration() -> None:
    assert "hush" not in repr(config(password="hush"))


@pytest.mark.parametrize(
    ("flag", "possible"),
    [
        ("\\Seen", True),
        ("\\FLAGGED", True),
        ("$Done", True),
        ("Red Category", True),
        ("\\Deleted", False),
        ("a;b", False),
    ],
)
def test_flags_are_seen_flagged_and_categories(flag: str, possible: bool) -> None:
    assert (impossible(flag) == "") is possible


# --- requests ------------------------------------------------------------------------------------------------------
@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="\ufffe\uffff")))
def test_whatever_a_name_holds_it_stays_a_name(name: str) -> None:
    for request in (
        soap.find_folders(soap.distinguished("inbox", name), name=name),
        soap.create_folder(soap.folder_id(name), name),
        soap.update_items([soap.Change(name, name, "Message", categories=(name,))]),
        soap.move_items([name], soap.folder_id(name)),
        soap.sync_items(name, name, (), 1),
    ):
        root = ElementTree.fromstring(soap.envelope(request, name))
        assert root[1][0].tag.endswith(request.operation)
        said = [
            *(one.text or "" for one in root.iter()),
            *(value for one in root.iter() for value in one.attrib.values()),
        ]
        assert name in said


# --- answers -------------------------------------------------------------------------------------------------------
ANSWER = """<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:m="M" xmlns:t="T"><s:Body><m:GetItemResponse><m:ResponseMessages>
 <m:GetItemResponseMessage ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode><m:Items><t:Message>
 <t:MimeContent>QUJD&#xA;REVG</t:MimeContent><t:ItemId Id="a&amp;b" ChangeKey="c"/><t:Categories>
 <t:String>x&#x1;y&#11;&#xB;ä</t:String>
 </t:Categories></t:Message></m:Items></m:GetItemResponseMessage>
 <m:GetItemResponseMessage ResponseClass="Error"><m:MessageText>It is gone.</m:MessageText>
 <m:ResponseCode>ErrorItemNotFound
 </m:ResponseCode></m:GetItemResponseMessage></m:ResponseMessages></m:GetItemResponse></s:Body></s:Envelope>""".encode()


class Collected:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def begin(self) -> None:
        self.texts.append("")

    def take(self, text: str) -> None:
        self.texts[-1] += text

    def end(self) -> None:
        self.texts[-1] += "."


@settings(max_examples=60)
@given(st.sets(st.integers(1, len(ANSWER) - 1)))
def test_answer_is_the_same_however_it_is_cut(cuts: set[int]) -> None:
    collected = Collected()
    reader = AnswerReader(limit=10_000, contents=collected)
    places = [0, *sorted(cuts), len(ANSWER)]
    for begin, end in itertools.pairwise(places):
        reader.feed(ANSWER[begin:end])
    assert reader.finish().name == "Envelope"
    assert collected.texts == ["QUJD\nREVG."]
    first, second = (Reply.read(node) for node in reader.arrived)
    assert first.ok
    assert first.node.value("Items", "Message", "Categories", "String") == "x?y??ä"
    found = first.node.find("Items", "Message", "ItemId")
    assert found is not None
    assert found.attributes == {"Id": "a&b", "ChangeKey": "c"}
    assert (second.code, second.text) == ("ErrorItemNotFound", "It is gone.")


@pytest.mark.parametrize("end", range(0, len(ANSWER) - 1, 7))
def test_answer_that_is_not_complete_is_noticed(end: int) -> None:
    reader = AnswerReader(limit=10_000, contents=Collected())
    with pytest.raises(Malformed):
        reader.feed(ANSWER[:end])
        reader.finish()


@given(st.binary(max_size=300))
def test_reader_raises_nothing_else_on_any_octets(octets: bytes) -> None:
    for begin in (b"", ANSWER[:300], ANSWER[:430]):
        reader = AnswerReader(limit=5_000, contents=Collected())
        try:
            reader.feed(begin + octets)
            reader.finish()
        except Malformed as error:
            assert len(str(error)) < 200


def test_reader_is_gone_when_its_answer_is_read_whatever_python_collects() -> None:
    """A parser is a hundred kilobytes that the collector does not see, and a large folder has thousands of answers."""
    gc.disable()
    try:
        for octets in (ANSWER, ANSWER[:50] + b"<", b"<!DOCTYPE x>"):
            reader = AnswerReader(limit=10**6)
            with contextlib.suppress(Malformed):
                reader.feed(octets)
                reader.finish()
            alive = weakref.ref(reader)
            del reader
            assert alive() is None
    finally:
        gc.enable()


def test_content_is_not_counted_and_everything_else_is() -> None:
    large = ANSWER.replace(b"QUJD", b"QUJD" * 10_000)
    reader = AnswerReader(limit=50_000, contents=Collected())
    for begin in range(0, len(large), 1000):
        reader.feed(large[begin : begin + 1000])
    reader.finish()
    small = AnswerReader(limit=len(ANSWER) - 20)
    with pytest.raises(Malformed, match="more than"):
        small.feed(ANSWER)


def reply(code: str, wish: str = "") -> Reply:
    node = Node("GetItemResponseMessage", {"ResponseClass": "Error"})
    said = Node("ResponseCode", {})
    said.text = code
    value = Node("Value", {"Name": "BackOffMilliseconds"})
    value.text = wish
    node.children = [said, value]
    return Reply.read(node)


def test_every_code_is_a_decision() -> None:
    assert isinstance(reply("ErrorServerBusy").trouble("x"), SessionLost)
    assert isinstance(reply("ErrorImpersonateUserDenied").trouble("x"), CredentialsRefused)
    assert isinstance(reply("ErrorFolderNotFound").trouble("x"), FolderGone)
    unknown = reply("ErrorOfTomorrow").trouble("x")
    assert type(unknown) is TransientError, "when unsure: temporary"
    for said, meant in (
        ("1500", 1.5),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("999999999", 3600.0),
        ("9" * 400, None),
    ):
        found = reply("ErrorServerBusy", said).back_off
        assert (None if found is None else found.total_seconds()) == meant


def test_answer_without_a_fault_has_none() -> None:
    reader = AnswerReader(limit=10_000)
    reader.feed(ANSWER)
    assert fault(reader.finish()) is None


# --- positions -----------------------------------------------------------------------------------------------------
NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "start", [Start("now"), Start("unseen"), Start("all"), Start("since", NOW - timedelta(days=9))]
)
def test_position_is_read_as_it_was_written(start: Start) -> None:
    bookmark = Bookmark("H4sI+/A=", start, NOW, NOW + timedelta(hours=1))
    assert Bookmark.read(bookmark.write()) == bookmark


@given(st.text())
def test_position_of_another_kind_is_none(text: str) -> None:
    assert Bookmark.read(text) is None  # type: ignore[arg-type]


def test_instants_are_aware() -> None:
    assert iso_date("2026-03-01T12:30:00Z") == datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert iso_date("2026-03-01T12:30:00") == datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert iso_date("yesterday") is None


# --- challenges ----------------------------------------------------------------------------------------------------
def test_challenges_are_read_in_one_line_and_in_several() -> None:
    assert read_challenge(
        [(b"WWW-Authenticate", b"Negotiate, NTLM"), (b"www-authenticate", b'Basic realm="a, b"')]
    ) == {
        "negotiate": "",
        "ntlm": "",
        "basic": 'realm="a',
    }
    assert read_challenge([(b"WWW-Authenticate", b"NTLM TlRMTVNTUA==")]) == {"ntlm": "TlRMTVNTUA=="}
    assert read_challenge([(b"WWW-Authenticate", b"Digest realm=x"), (b"Location", b"NTLM")]) == {}
