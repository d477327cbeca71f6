"""Which conversation a message belongs to: what is signed is believed, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mailpoller.config.model import ConversationsConfig
from mailpoller.core.conversation import Conversation
from mailpoller.core.message import Message
from mailpoller.core.verdict import Deliver
from mailpoller.engine.pipeline import Pipeline
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.understand.conversation import Finder, mint
from odd_mail.reading import NOW, read
from pace import paced

KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"
TOKEN = mint("case 4711", "a", KEY)
PATTERN = r"\[#(?P<id>[0-9]+)\]"


def finder(*places: str, patterns: tuple[str, ...] = (PATTERN,), key: bytes | None = KEY) -> Finder:
    config = ConversationsConfig(patterns=list(patterns))
    return Finder({"a": lambda: key}, config.finder()._searches, places or ("subject", "headers", "body"))


def mail(subject: str = "x", body: str = "hi", **fields: str) -> Message:
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in {"Subject": subject, **fields}.items())
    return read((head + "\r\n" + body).encode())


# --- tokens ----------------------------------------------------------------------------------------------------------

GENUINE = Conversation("case 4711", "token", verified=True)


@pytest.mark.parametrize(
    "message",
    [
        mail(f"Re: my order [{TOKEN}]"),
        mail(f"RE: MY ORDER {TOKEN.upper()}"),
        mail(To=f"Support <support+{TOKEN}@example.com>"),
        mail(Delivered_To=f"support+{TOKEN}@example.com"),
        mail(body=f"> Please keep this: {TOKEN}.\r\n"),
        mail(f"[#99] {TOKEN}"),
        mail(f"{TOKEN[:-1]}x, and {TOKEN}"),
    ],
)
def test_token_is_found_wherever_an_answer_brings_it_back(message: Message) -> None:
    assert finder().find(message) == GENUINE


def test_token_in_a_message_id_is_found_by_what_answers_it() -> None:
    answered = f"<{TOKEN}@example.com>"
    found = finder().find(mail(In_Reply_To=answered, References=f"<first@example.org> {answered}"))
    assert found == Conversation("case 4711", "token", verified=True, thread="<first@example.org>")


@pytest.mark.parametrize("key", [OTHER, None])
def test_forgery_is_said_and_never_verified(key: bytes | None) -> None:
    assert finder(key=key).find(mail(TOKEN)) == Conversation("case 4711", "token", forged=True)
    assert finder().find(mail(mint("case 4711", "b", KEY))) == Conversation("case 4711", "token", forged=True)


def test_signature_holds_for_its_id_and_key_alone() -> None:
    text, signature = TOKEN.rsplit("-", 1)
    other = mint("case 4712", "a", KEY).rsplit("-", 1)[0]
    assert len(signature) == 16  # 80 bits
    assert finder().find(mail(f"{other}-{signature}")) == Conversation("case 4712", "token", forged=True)
    assert text.startswith("mpc-a-")


@pytest.mark.parametrize(
    "text", ["mpc-a-aa", f"{TOKEN}x", f"x{TOKEN}", "mpc-a-777-" + "a" * 16, "mpc-", "mpc-a-!!-" + "a" * 16]
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert finder().find(mail(text)) is None


@given(st.text(min_size=1, max_size=25).filter(str.isprintable), st.sampled_from([str.upper, str.lower, str]))
def test_every_id_comes_back_whatever_becomes_of_the_case(identity: str, case: object) -> None:
    found = finder("subject").find(mail(f"a {case(mint(identity, 'a', KEY))} b"))  # type: ignore[operator]
    assert found == Conversation(identity, "token", verified=True)


def test_an_id_too_long_for_a_token_is_refused() -> None:
    for identity in ("", "x" * 101):
        with pytest.raises(ValueError, match="1 to 100"):
            mint(identity, "a", KEY)


# --- patterns and threads --------------------------------------------------------------------------------------------


def test_pattern_is_found_and_never_verified() -> None:
    assert finder().find(mail("Re: [#4711] my order")) == Conversation("4711", "pattern")
    assert finder("subject").find(mail(body="[#4711]")) is None
    assert finder("body").find(mail(body="[#4711]")) == Conversation("4711", "pattern")


def test_thread_alone_has_no_id() -> None:
    assert finder().find(mail()) is None
    assert finder().find(mail(In_Reply_To="<a@b>")) == Conversation("", "thread", thread="<a@b>")


def test_body_is_read_only_if_it_is_looked_in() -> None:
    assert not finder("subject", "headers").needs_body
    message = mail()
    finder("subject", "headers").find(message)
    assert message._body is None
    assert finder("body").needs_body


@pytest.mark.parametrize(
    "piece", [TOKEN + " ", "mpc-", "mpc-a-", "mpc-a-" + "a" * 160 + "-", "[#", "[#1", "a-", TOKEN[:-1] + "! "]
)
def test_a_hundred_kilobytes_are_searched_in_time(piece: str) -> None:
    filling = piece * (100_000 // len(piece))
    for message in (mail(body=filling), mail(subject=filling), mail(References=filling)):
        message.body  # noqa: B018
        began = time.process_time()
        finder(key=OTHER).find(message)
        assert time.process_time() - began < paced(0.15)


# --- configuration, event and command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        {"patterns": ["[#"]},
        {"patterns": ["#([0-9]+)"]},
        {"keys": [{"id": "a", "secret": "env:X"}, {"id": "a", "secret": "env:Y"}]},
        {"keys": [{"id": "A-B", "secret": "env:X"}]},
        {"look_in": []},
        {"look_in": ["header"]},
    ],
)
def test_wrong_block_is_refused(written: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConversationsConfig.model_validate(written)


def test_key_that_cannot_be_read_verifies_nothing() -> None:
    config = ConversationsConfig.model_validate({"keys": [{"id": "a", "secret": "file:/nowhere"}]})
    assert config.finder().find(mail(TOKEN)) == Conversation("case 4711", "token", forged=True)


def test_event_says_the_conversation_at_every_payload_level() -> None:
    message = mail(TOKEN)
    Pipeline(mailbox="support", default_queue="q", conversations=finder()).judge(message)
    renderer = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/support", now=NOW)
    for payload in ("summary", "parsed"):
        event = json.loads(renderer.render(queue="q", delivery_id="d", payload=payload).structured())  # type: ignore[arg-type]
        assert event["data"]["conversation"] == {
            "id": "case 4711", "found_by": "token", "verified": True, "forged": False, "thread": "",
        }  # fmt: skip


def test_command_mints_what_the_service_believes(tmp_path: Path) -> None:
    """In a process of its own: a verb sets up the log for good."""
    config = tmp_path / "mailpoller.yaml"

    def minted(text: str) -> subprocess.CompletedProcess[str]:
        config.write_text(text, "utf-8")
        words = [sys.executable, "-m", "mailpoller", "conversation", "mint", "-c", str(config), "case 4711"]
        key = {"CONVERSATION_KEY": KEY.decode()}
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **key})

    said = minted("conversations: {keys: [{id: a, secret: 'env:CONVERSATION_KEY'}]}\n")
    assert (said.stdout, said.returncode) == (TOKEN + "\n", 0)
    refused = minted("service: {}\n")
    assert refused.returncode != 0
    assert "no key is configured" in refused.stderr
