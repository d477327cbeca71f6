"""The text of a message: made of HTML where there is none, and whole where its lines were broken to be sent."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpoller.core.body import Undone
from mailpoller.mail.understand import flowed, html
from mailpoller.mail.understand.html import render
from odd_mail.reading import read
from pace import paced


def text(markup: str) -> str:
    return render(markup).text


def mail(kind: str, body: str) -> bytes:
    return f"From: a@example.com\r\nContent-Type: {kind}; charset=utf-8\r\n\r\n{body}".encode()


# --- HTML -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markup", "wanted"),
    [
        ("<p>Grüße,</p><p>J&uuml;rgen&nbsp;M.</p>", "Grüße,\n\nJürgen M."),
        ("one\n  two<br>three<br/>\n<br>four", "one two\nthree\n\nfour"),
        ("<div>a</div><div><br></div><div>b</div>", "a\n\nb"),
        ("<p class=MsoNormal>a</p><p class=MsoNormal>&nbsp;</p><p class=MsoNormal>b</p>", "a\n\nb"),
        ("<ul><li>a<li>b<ol><li>x</li><li>y</li></ol></ul>after", "* a\n* b\n  1. x\n  2. y\n\nafter"),
        ("<table><tr><td>No<td><p>17</p></td></tr><tr><th>Of</th><th>May</th></tr></table>", "No\t17\nOf\tMay"),
        ("<table><tr><td>a<br>b</td><td>c</td></tr></table>", "a\nb\nc"),
        ("x<blockquote>q<br><br>r<blockquote>s</blockquote></blockquote>y", "x\n> q\n>\n> r\n> > s\ny"),
        ("<pre>a\n  b</pre>c", "a\n  b\nc"),
        ("<title>T</title><style>p{}</style><script>if (a<b) c</script>x", "x"),
        ("<!-- no --><!--[if mso]>no<![endif]--><![if !mso]>x<![endif]>", "x"),
        ("<!--[if !mso]><!-->x<!--<![endif]-->", "x"),
        ("a < b, 3<4 & &amp;lt; &unknown; &#65;&#x42;", "a < b, 3<4 & &lt; &unknown; AB"),
        ("<p title='a > b'>x</p>", "x"),
        ("<img src=x alt='The shop'> hello <img src=y alt=''>", "[The shop] hello"),
        ("a<hr>b", "a\n----------\nb"),
        ("", ""),
    ],
)  # fmt: skip
def test_text_of_html_keeps_its_blocks(markup: str, wanted: str):
    assert text(markup) == wanted


@pytest.mark.parametrize(
    ("markup", "wanted"),
    [
        ('<a href="https://x.example/?a=1&amp;b=2">order</a>', "order <https://x.example/?a=1&b=2>"),
        ('<a href="https://x.example/">x.example</a>', "x.example"),
        ('<a href="mailto:j@x.example">j@x.example</a>', "j@x.example"),
        ('<a href="mailto:j@x.example">Jo</a>', "Jo <mailto:j@x.example>"),
        ("<a href=https://x.example/1>a</a> <a href=https://x.example/1>b</a>", "a <https://x.example/1> b"),
        ('<a href="javascript:alert(1)">a</a> <a href="#top">b</a> <a name=c>c</a>', "a b c"),
        ('<a href="https://x.example/1"><img src=x></a>y', "y"),
        (f'<a href="https://x.example/{"1" * 3000}">a</a>', "a"),
    ],
)
def test_address_of_a_link_is_told_once_where_its_words_do_not(markup: str, wanted: str):
    assert text(markup) == wanted


@pytest.mark.parametrize(
    ("markup", "wanted", "hidden"),
    [
        ('<div style="display: none">Pre <b>header</b></div>x', "x", len("Pre") + len("header")),
        ("<div STYLE='Visibility:Hidden'><div>a</div>b</div>c", "c", 2),
        ("<div hidden>ab</div>c", "c", 2),
        ('<div style="overflow: hidden" class="hidden">ab</div>', "ab", 0),
        ('<td style="font-size:0px">a<div style="font-size:13px">b</div>c</td>', "b", 2),
        ('<span style="font-size:0.8em">a</span><span style="opacity:0.5">b</span>', "ab", 0),
        ('<span style="opacity:0">a</span>b', "b", 1),
        ('<p style="display:none">a<p>b', "b", 1),
        ('<p style="display:none">a<div>b</div>', "b", 1),
        ('<ul><li style="display:none">a<li>b</ul>', "* b", 1),
        ('<div style="display:none">a<img style="display:none">b</div>c', "c", 2),
        ('<a href="http://x.example/1" style="display:none">a</a>b', "b", 1),
    ],
)
def test_what_nobody_was_to_see_is_left_out_and_counted(markup: str, wanted: str, hidden: int):
    rendered = render(markup)
    assert (rendered.text, rendered.hidden) == (wanted, hidden)


HOSTILE = {
    "tags": "<b>" * 330_000,
    "attributes": "<a " + "x=1 " * 250_000 + ">",
    "quotes": '<a "' * 250_000,
    "quotes of two kinds": "<b \"'>" * 160_000,
    "no tag ends": "<a" * 500_000,
    "less-than": "<" * 1_000_000,
    "quotes within quotes": "<blockquote>x" * 80_000,
    "lists": "<ul><li>x" * 110_000,
    "hidden": '<div style="display:none">x' * 40_000,
    "cells": "<table><tr><td>" + "<i>x</i>" * 10_000 + "<td>y" * 100_000,
    "entities": "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 31_000,
    "digits": "&#" + "9" * 900_000 + ";",
    "comments": "<!--" * 250_000,
    "styles": "<style>" * 140_000,
    "links": "<a href=http://x>y" * 50_000,
    "href": "<a " + 'href="' * 160_000 + ">",
    "spaces": "<p" + " " * 900_000 + ">",
    "alternatives": "<img " + " alt=" * 200_000 + ">",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_html_ends_soon(name: str):
    began = time.process_time()
    render(HOSTILE[name])
    assert time.process_time() - began < paced(0.5)


def test_html_that_is_too_large_is_read_as_far_as_it_goes_and_the_event_says_so():
    body = read(mail("text/html", "<p>begin</p>" + "<b>x</b>" * html.TAGS)).body
    assert body.text.startswith("begin\n\nxx")
    assert body.undone == (Undone("html", "too-large"),)
    assert render("<p>" + "x " * html.CHARACTERS).cut
    assert not text("x" * (html.CHARACTERS - 10) + "<p style='aaaaaaaaaaaaaaaaaaaaaaaaa").endswith("a")


@given(st.text(alphabet="<>/!-&#;'\"= abpxtdrliunok\n\xa0", max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_html_gives_valid_text(markup: str):
    render(markup).text.encode("utf-8")


def test_text_is_made_of_html_only_where_there_is_none():
    body = read(mail("text/html", "<p>Hello<p>you")).body
    assert (body.text, body.text_from, body.html) == ("Hello\n\nyou", "html", "<p>Hello<p>you")
    parts = "--b\r\n\r\n{}\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>markup\r\n--b--\r\n"
    body = read(mail("multipart/alternative; boundary=b", parts.format("plain"))).body
    assert (body.text, body.text_from, body.text_hidden) == ("plain", "plain", 0)
    body = read(mail("multipart/alternative; boundary=b", parts.format(" \r\n"))).body
    assert (body.text, body.text_from) == ("markup", "html")
    assert read(mail("text/plain", "x")).body.text_from == "plain"
    assert read(mail("text/plain", "")).body.text_from == "none"
    assert read(mail("image/png", "x")).body.text_from == "none"


# --- format=flowed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ("Hello \nyou.\n\nBye", "Hello you.\n\nBye"),
        ("> a \n> b\n>> c \n>> d\n> e \nf", "> a b\n>> c d\n> e \nf"),
        ("text \n-- \nJane \nDoe", "text \n-- \nJane Doe"),
        (" > no quote\n From here", "> no quote\nFrom here"),
        (">quote \n> goes on", "> quote goes on"),
        ("", ""),
        ("a \n", "a "),
        ("a\n", "a\n"),
    ],
)
def test_lines_that_flow_are_one(sent: str, wanted: str):
    assert flowed.join(sent, delsp=False) == (wanted, True)


def test_deleted_space_is_no_part_of_the_text():
    assert flowed.join("日本 \n語です。\nx", delsp=True) == ("日本語です。\nx", True)


def test_only_what_says_so_flows():
    assert read(mail("text/plain; format=flowed", "a \r\nb")).body.text == "a b"
    assert read(mail("text/plain; format=Flowed; delsp=Yes", "a \r\nb")).body.text == "ab"
    assert read(mail("text/plain; format=fixed", "a \r\nb")).body.text == "a \nb"
    assert read(mail("text/plain", "a \r\nb")).body.text == "a \nb"


def test_lines_beyond_those_we_look_at_stay_as_they_are():
    body = read(mail("text/plain; format=flowed", "a \r\nb\r\n" * flowed.LINES)).body
    assert body.undone == (Undone("flowed", "too-large"),)
    assert body.text.count("\n") == 3 * flowed.LINES // 2
    assert body.text.endswith("a \nb\n")


@given(st.text(alphabet="> -ab\n", max_size=200))
@settings(max_examples=300, deadline=None)
def test_flowing_loses_no_word(sent: str):
    joined, _ = flowed.join(sent, delsp=False)
    assert sorted(joined.replace("\n", "").replace(">", "").replace(" ", "")) == sorted(
        sent.replace("\n", "").replace(">", "").replace(" ", "")
    )
