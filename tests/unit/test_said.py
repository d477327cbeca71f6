"""What somebody said, apart from what he quotes and signs with; and what he forwards within his text."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelled import replies
from mailpoller.core.attributes import Attributes
from mailpoller.core.said import Said, Span
from mailpoller.core.verdict import Deliver
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.understand import reply
from mailpoller.mail.understand.html import render
from mailpoller.mail.understand.reply import split
from odd_mail.reading import NOW, read
from pace import paced


def wanted(pieces: tuple[replies.Piece, ...]) -> tuple[str, dict[str, Span]]:
    text: str = ""
    found: dict[str, Span] = {}
    for kind, words in pieces:
        start = len(text) + len(words) - len(words.lstrip())
        text += words
        found[kind] = (start, len(text.rstrip()))
    return text, found


def spans(said: Said) -> dict[str, Span]:
    found = {"reply": said.reply, "quoted": said.quoted, "signature": said.signature}
    return {kind: span for kind, span in found.items() if span is not None}


def words(text: str) -> tuple[str, str, str]:
    """Reply, quotes and signature."""
    said = split(text)
    return tuple("" if span is None else text[span[0] : span[1]] for span in (said.reply, said.quoted, said.signature))  # type: ignore[return-value]


def event(octets: bytes) -> dict[str, Any]:
    renderer = EventRenderer(read(octets), verdict=Deliver(("q",), Attributes()), source="mailpoller/support", now=NOW)
    rendered = renderer.render(queue="q", delivery_id="d", payload="parsed")
    data: dict[str, Any] = json.loads(rendered.structured())["data"]
    return data


def mail(body: str, subject: str = "x", kind: str = "text/plain") -> bytes:
    return f"From: a@example.com\nSubject: {subject}\nContent-Type: {kind}; charset=utf-8\n\n{body}".encode()


# --- the labelled texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(pieces, id=f"{number}-{kind}-{language}".replace(" ", "-"))
        for number, (kind, language, pieces) in enumerate(replies.texts())
    ],
)
def test_reply_quotes_and_signature_are_told_apart(pieces: tuple[replies.Piece, ...]):
    text, found = wanted(pieces)
    assert spans(split(text)) == found


def test_nothing_of_a_reply_is_taken_for_a_quote_where_lines_end_in_white_space():
    for _, _, pieces in replies.texts():
        text, found = wanted(tuple((kind, piece.replace("\n", " \n")) for kind, piece in pieces))
        said = split(text)
        assert said.reply[0] <= found["reply"][0]
        assert said.reply[1] >= found["reply"][1]


# --- what holds of any text -------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    ("", "Yes.", "> quoted", ">> deeper", "-- ", "--", "_" * 30, "Sent from my iPhone", "-----Original Message-----",
     "Begin forwarded message:", "On Mon, Mar 4, 2024 at 10:05 AM Jane <jane@example.com> wrote:", "Jane wrote:",
     "From: Jane <jane@example.com>", "Sent: March 4, 2024", "To: me", "Subject: x", "a word", "  ", "so:", "\u2028")
)  # fmt: skip


@given(st.lists(LINES, max_size=14).map("\n".join) | st.text(alphabet=">-_:\n aA@", max_size=80))
@settings(max_examples=500, deadline=None)
def test_nothing_is_lost_and_the_reply_is_never_empty(text: str):
    said = split(text)
    pieces = sorted(spans(said).values())
    for (_, end), (start, _) in pairwise(pieces):
        assert end <= start
    covered = "".join(text[start:end] for start, end in pieces)
    assert "".join(covered.split()) == "".join(text.split())
    assert bool(text[said.reply[0] : said.reply[1]].strip()) == bool(text.strip())


HOSTILE = {
    "on": "On " * 33_000,
    "on, by line": "On \n" * 25_000,
    "colons": "a:\n" * 33_000,
    "attributions": "2024 wrote:\n" * 8_000,
    "names of fields": "From: x\n" * 9_990,
    "quotes": "> x\n" * 9_990,
    "quotes in turn": "> x\ny:\n" * 4_900,
    "line ends": "\n" * 100_000,
    "dashes": "--\n" * 9_990,
    "long lines": ("x" * 100 + " 2024 @:\n") * 900,
    "spaces": (" " * 9 + ":\n") * 9_990,
    "telephones": "sent from my iphone\n" * 5_000,
    "one line": "wrote " * 16_000 + ":",
    "markers": "--begin forwarded messag\n" * 4_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_of_100_kb_takes_less_than_50_ms(name: str):
    def took() -> float:
        began = time.process_time()
        split(HOSTILE[name])
        return time.process_time() - began

    assert min(took() for _ in range(3)) < paced(0.05)


def test_text_of_more_lines_than_we_look_at_is_the_reply_and_the_event_says_so():
    data = event(mail("Yes.\n" + "> x\n" * reply.LINES))
    assert data["reply_text"] == [0, len(data["text"]) - 1]
    assert (data["quoted"], data["signature"]) == (None, None)
    assert {"what": "reply", "why": "too-large"} in data["undone"]


def test_lines_that_a_program_broke_are_still_quoted():
    text = f"Yes.\n\nOn 3/4/24 10:05, Jane wrote:\n> {'word ' * 15}\nbroken\n> and more\n"
    assert words(text)[0] == "Yes."
    assert words("On 3/4/24 10:05, Jane wrote:\n> Is it?\nYes.\n> And now?\n")[0].endswith("> And now?")


def test_own_words_between_lines_across_the_page_stay_with_the_reply():
    text = f"One.\n\n{'_' * 80}\n\nTwo.\n\nBest regards,\nJane\n\nOn March 4, 2024, Support wrote:\n> x\n"
    assert words(text)[0].endswith("Jane")
    assert words("One.\n--\n" + "line\n" * 10)[0].endswith("line")


def test_header_needs_three_fields_of_one_language_and_a_date():
    below = "Yes.\n\nFrom: Jane <jane@example.com>\n{}\n\ntext\n"
    assert words(below.format("Sent: March 4\nTo: me"))[0] == "Yes."
    assert words(below.format("To: me\nSubject: x"))[1] == ""
    assert words(below.format("Gesendet: 4. März\nBetreff: x"))[1] == ""


def test_reply_in_html_is_told_from_its_quote():
    markup = (
        '<div dir="ltr">Yes.<br clear="all"><div><br></div><span class="gmail_signature_prefix">-- </span><br>'
        '<div class="gmail_signature">Jane</div></div><br><div class="gmail_quote"><div class="gmail_attr">On Mon, Mar '
        '4, 2024 at 10:05 AM Support &lt;<a href="mailto:s@example.com">s@example.com</a>&gt; wrote:<br></div>'
        '<blockquote class="gmail_quote"><div>Did it arrive?</div></blockquote></div>'
    )
    reply_text, quoted, signature = words(render(markup).text)
    assert (reply_text, signature) == ("Yes.", "-- \nJane")
    assert quoted.endswith("> Did it arrive?")
    outlook = (
        "<p class=MsoNormal>Yes.</p><p class=MsoNormal>&nbsp;</p><div style='border:none'><p class=MsoNormal>"
        "<b>Von:</b> Support &lt;s@example.com&gt; <br><b>Gesendet:</b> Montag, 4. März 2024 10:05<br><b>An:</b> Jo<br>"
        "<b>Betreff:</b> x</p></div><p class=MsoNormal>Did it arrive?</p>"
    )
    assert words(render(outlook).text)[0] == "Yes."


# --- the event --------------------------------------------------------------------------------------------------------


def test_places_count_code_points_of_the_text():
    data = event(mail("😀 Ja.\n\nSupport wrote:\n> Da?\n"))
    start, end = data["reply_text"]
    assert data["text"][start:end] == "😀 Ja."
    start, end = data["quoted"]
    assert data["text"][start:end] == "Support wrote:\n> Da?"
    assert data["signature"] is None
    assert event(mail(""))["reply_text"] == [0, 0]


FORWARDED = """\
From: Jane Doe <jane@example.org>
Date: Mon, 4 Mar 2024 10:05:00 +0100
Subject: order 4711
To: me

It is
broken.
"""


@pytest.mark.parametrize("above", ["", "Please see to it.\n\n"])
def test_message_forwarded_within_the_text_is_opened(above: str):
    data = event(mail(f"{above}---------- Forwarded message ---------\n{FORWARDED}"))
    assert data["forwarded"] == {
        "from": [{"name": "Jane Doe", "address": "jane@example.org"}],
        "date": "2024-03-04T09:05:00Z",
        "subject": "order 4711",
        "text": "It is\nbroken.",
        "html": "",
        "attachments": [],
        "calendar": None,
    }


@pytest.mark.parametrize("between", ["\n", "> \n"])
def test_message_forwarded_behind_marks_is_opened_without_them(between: str):
    marked = "".join(f"> {line}\n" for line in FORWARDED.split("\n"))
    data = event(mail(f"See below\n\nBegin forwarded message:\n{between}{marked}"))
    assert data["text"][slice(*data["reply_text"])] == "See below"
    assert (data["forwarded"]["subject"], data["forwarded"]["text"]) == ("order 4711", "It is\nbroken.")
    data = event(mail(f"> Begin forwarded message:\n{marked}"))
    assert data["forwarded"]["text"] == "It is\nbroken."


@pytest.mark.parametrize(
    "forwarded",
    [
        "---------- Forwarded message ---------\nGönderen: Jane <jane@example.org>\nDate: 4 Mar 2024 Pzt, 10:05\n"
        "Subject: order\nTo: <me@example.com>\n\nIt is\nbroken.\n",
        "-------- Preposlaná správa --- Forwarded Message --------\nPredmet: \torder\nDátum: \tMon, 4 Mar 2024\n"
        "Od: \tJane <jane@example.org>\nPre: \tme@example.com\n\n\nIt is\nbroken.\n",
        "Forwarded message:\n\n> From: Jane <jane@example.org>\n> Subject: order\n> Date: Mon, 4 Mar 2024\n>\n> It is\n"
        "broken.\n",
        "----- Forwarded message -----\nDe : Jane <jane@example.org>\nDate : lundi 4 mars\nÀ : me@example.com,\n"
        " you@example.com\nObjet : order\nIt is\nbroken.\n",
        "________________________________\nBegin forwarded message:\nFrom: Jane <jane@example.org>\nSent: March 4\n"
        "Subject: order\n\nIt is\nbroken.",
    ],
)
def test_message_is_opened_as_many_programs_forward_it(forwarded: str):
    found = event(mail(forwarded))["forwarded"]
    assert found["from"] == [{"name": "Jane", "address": "jane@example.org"}]
    assert (found["subject"], found["text"]) == ("order", "It is\nbroken.")


def test_earlier_mail_below_is_forwarded_only_if_the_subject_says_so():
    text = f"FYI\n\n{FORWARDED}"
    assert event(mail(text, "Re: x"))["forwarded"] is None
    assert event(mail(text, "WG: x"))["forwarded"]["subject"] == "order 4711"
    german = "Von: Jane [mailto:jane@example.org]\nGesendet: Montag, 4. März 2024 10:05\nAn: x\nBetreff: y\n\nz"
    found = event(mail(german, "WG: y"))["forwarded"]
    assert found["from"] == [{"name": "Jane", "address": "jane@example.org"}]
    assert (found["date"], found["subject"], found["text"]) == (None, "y", "z")


def test_attached_message_counts_before_one_in_the_text():
    parts = (
        f"--b\n\n---------- Forwarded message ---------\n{FORWARDED}\n--b\nContent-Type: message/rfc822\n\n"
        "Subject: attached\n\ninner\n--b--\n"
    )
    assert event(mail(parts, kind="multipart/mixed; boundary=b"))["forwarded"]["subject"] == "attached"
