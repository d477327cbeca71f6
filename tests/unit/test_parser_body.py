"""The body: structure as the standard library sees it, text, attachments, encodings."""

from __future__ import annotations

import base64
import binascii
import quopri
from email import message_from_bytes, policy
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import odd_mail
from mailpoller.core.message import Message
from mailpoller.core.spool import Spool
from mailpoller.mail import body as bodies
from mailpoller.mail.structure import DEEPEST, PARTS_KEPT, scan
from mailpoller.mail.transfer import decoded
from odd_mail.reading import read

ODD = odd_mail.files()


def mime(*parts: str, subtype: str = "mixed", boundary: str = "x") -> bytes:
    body = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    head = f'From: a@example.com\r\nContent-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'
    return (head + body + f"--{boundary}--\r\n").encode()


def attachments(message: Message) -> list[tuple[str, str]]:
    return [(attachment.name, attachment.content_type) for attachment in message.body.attachments]


QUICK = {
    "plain": ("\r\nPlain.", "Content-Type: text/html\r\n\r\n<p>HTML"),
    "the HTML first": ("Content-Type: text/html\r\n\r\n<p>HTML", "\r\nPlain."),
    "no text": ("\r\n \r\n", "Content-Type: text/html\r\n\r\n<p>HTML"),
    "a file in the text": ("\r\nbegin 644 a.txt\r\n#86)C\r\n`\r\nend\r\n", "Content-Type: text/html\r\n\r\n<p>"),
    "enciphered": ("\r\n-----BEGIN PGP MESSAGE-----\r\nx", "Content-Type: text/html\r\n\r\n<p>"),
    "unknown charsets": (
        "Content-Type: text/plain; charset=x\r\n\r\na\0\rb\r\n",
        "Content-Type: text/html; charset=x\r\n\r\n<p>",
    ),
    "an attached text": ("Content-Disposition: attachment\r\n\r\na", "Content-Type: text/html\r\n\r\n<p>"),
    "a named text": ("Content-Type: text/plain; name=a.txt\r\n\r\na", "Content-Type: text/html\r\n\r\n<p>"),
    "flowed": ("Content-Type: text/plain; format=flowed\r\n\r\na \r\nb", "Content-Type: text/html\r\n\r\n<p>"),
    "base64": (
        "Content-Transfer-Encoding: base64\r\n\r\nYQ==\r\n\r\nfooter of a list",
        "Content-Type: text/html\r\n\r\n<p>",
    ),
    "two texts": ("\r\na", "\r\nb"),
}


@pytest.mark.parametrize("subtype", ["alternative", "mixed", "related"])
@pytest.mark.parametrize("parts", QUICK.values(), ids=QUICK)
def test_a_text_and_its_html_are_read_on_the_short_way_as_on_the_long_one(monkeypatch, parts, subtype):
    octets = mime(*parts, subtype=subtype)
    short = read(octets).body
    monkeypatch.setattr(bodies, "_two_texts", lambda *_: None)
    assert short == read(octets).body


def test_line_ends_of_a_text_are_line_feeds_whatever_its_length():
    for text in ("a\r\n\rb\n\r\r\n", "a\r\n\rb\n\r\r\n" * 4000):
        octets = b"From: a@example.org\r\n\r\n" + text.encode()
        assert read(octets).body.text == text.replace("\r\n", "\n").replace("\r", "\n")


# --- which part is what --------------------------------------------------------------------------------------------


def test_first_text_and_html_of_an_alternative_are_the_messages_own():
    body = read(mime("\r\ntext", "Content-Type: text/html\r\n\r\n<p>", "\r\nother", subtype="alternative")).body
    assert (body.text, body.html) == ("text", "<p>")
    assert [a.content_type for a in body.attachments] == ["text/plain"]


def test_further_text_in_a_mixed_message_is_appended():
    message = read(ODD["footer-after-alternative"])
    assert message.body.text == "text\nfooter"
    assert message.body.html == "<p>html</p>"
    assert message.body.attachments == ()


@pytest.mark.parametrize(
    "part",
    [
        "Content-Disposition: attachment\r\n\r\nx",
        "Content-Type: text/plain; name=a.txt\r\n\r\nx",
        "Content-Disposition: inline; filename=a.txt\r\n\r\nx",
        "Content-Type: text/calendar\r\n\r\nx",
        "Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nx",
        "Content-Type: application/pkcs7-mime\r\n\r\nx",
        "Content-Type: application/pgp-encrypted\r\n\r\nx",
    ],
)
def test_named_marked_and_other_parts_are_attachments(part):
    body = read(mime("\r\ntext", part)).body
    assert body.text == "text"
    assert len(body.attachments) == 1


def test_message_within_a_message_is_an_attachment_and_not_looked_into():
    message = read(mime("\r\nmy text", "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nother text"))
    assert message.body.text == "my text"
    (inner,) = message.body.attachments
    assert inner.sha256 == sha256(b"Subject: inner\r\n\r\nother text").hexdigest()


def test_inline_is_what_says_so_or_is_referred_to():
    image = "Content-Type: image/png\r\nContent-ID: <i@x>\r\n"
    body = read(
        mime(
            "\r\nt",
            image + "\r\n1",
            image + "Content-Disposition: attachment\r\n\r\n2",
            "Content-Type: image/gif\r\n\r\n3",
        )
    ).body
    assert [(a.inline, a.content_id) for a in body.attachments] == [(True, "<i@x>"), (False, "<i@x>"), (False, "")]


def test_attachment_can_be_cut_out_of_the_raw_octets():
    content = bytes(range(256)) * 20
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n").decode()
    octets = mime("\r\nt", f"Content-Type: image/png\r\nContent-Transfer-Encoding: BASE64\r\n\r\n{encoded}")
    (attachment,) = read(octets).body.attachments
    assert attachment.encoding == "base64"
    assert binascii.a2b_base64(octets[attachment.start : attachment.end]) == content
    assert (attachment.size, attachment.sha256) == (len(content), sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("attachment-name-climbs", "passwd"),
        ("attachment-name-continued", "Für M%FCller.pdf"),
        ("attachment-name-encoded-word", "ü.pdf"),
        ("attachment-name-of-surrogates", "ÿþ.pdf"),
        ("attachment-name-turns-around", "invoice\ufffdfdp.exe\ufffd.pdf"),
    ],
)
def test_attachment_names(name, expected):
    assert [a.name for a in read(ODD[name]).body.attachments] == [expected]


@pytest.mark.parametrize("name", ["..", ".", "a/", "/", "a\\\\", "C:\\a\\..", "a/..", ""])
def test_a_name_that_is_only_a_directory_is_none(name):
    octets = mime("\r\nt", f'Content-Type: image/png; name="{name}"\r\n\r\nx')
    assert [a.name for a in read(octets).body.attachments] == ["part-1.png"]


def test_a_windows_path_is_no_escape():
    octets = mime('Content-Disposition: attachment; filename="C:\\Users\\new.txt"\r\n\r\nx')
    assert attachments(read(octets)) == [("new.txt", "text/plain")]


def test_a_long_name_keeps_its_suffix():
    (attachment,) = read(mime(f"Content-Type: image/png; name={'x' * 3000}.png\r\n\r\nx")).body.attachments
    assert len(attachment.name) <= 255
    assert attachment.name.endswith(".png")


# --- structure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "defects"),
    [
        ("boundary-missing", "--x\n\nhi\n--x--\n", ("boundary-missing",)),
        ("boundary-empty", "--\n\nhi\n----\n", ("boundary-missing",)),
        ("boundary-never-found", "no boundary here\n", ("boundary-missing",)),
        ("boundary-never-closed", "hi", ("boundary-unclosed",)),
        ("boundary-long", "hi", ()),
        ("boundary-of-regex-characters", "hi", ()),
        ("boundary-prefix-of-another", "one\ntwo", ()),
        ("boundary-with-trailing-space", "hi", ()),
        ("boundary-closed-at-once", "", ()),
        ("inner-multipart-never-closed", "one\ntwo", ("boundary-unclosed",)),
        ("encoding-unknown", "hi\n", ("encoding-unknown",)),
        ("content-type-malformed", "hi\n", ("content-type-malformed",)),
        ("multipart-in-base64", "--x\n\nhi\n--x--\n", ("boundary-missing",)),
    ],
)
def test_odd_structure_loses_no_text(name, text, defects):
    message = read(ODD[name])
    assert message.body.text == text
    assert message.defects == defects


def test_parts_beyond_the_bound_are_kept_whole_as_one_attachment():
    octets = odd_mail.MADE["10000-parts"]()
    message = read(octets)
    (rest,) = message.body.attachments
    assert message.defects == ("parts-cut",)
    assert message.body.text == "a\n" * (PARTS_KEPT - 1) + "a"
    assert octets[rest.start : rest.end].startswith(b"\r\na\r\n--x\r\n")
    assert octets[rest.start : rest.end].count(b"--x\r\n") == 10_000 - PARTS_KEPT - 1
    assert rest.size == rest.end - rest.start


def test_multiparts_beyond_the_depth_are_kept_whole_as_an_attachment():
    message = read(odd_mail.MADE["2000-nested-multiparts"]())
    assert "depth-cut" in message.body.defects
    (rest,) = message.body.attachments
    assert rest.content_type == "multipart/mixed"
    assert message.raw.octets.view()[rest.start : rest.end].startswith(b"--b%d\r\n" % DEEPEST)


def leaves_of_standard_library(octets: bytes) -> list[tuple[str, str, str]]:
    return [
        (part.get_content_type(), part.get_filename() or "", sha256(part.get_payload(decode=True)).hexdigest())
        for part in message_from_bytes(octets, policy=policy.compat32).walk()
        if not part.is_multipart()
    ]


def leaves_of_ours(octets: bytes) -> list[tuple[str, str, str]]:
    from mailpoller.mail.header import read_header

    header = read_header(octets, 0, len(octets))
    parts, defects = scan(octets, header.body, len(octets), {name.lower(): value for name, value in header.fields})
    assert defects == []
    return [
        (
            part.content_type,
            part.name,
            sha256(b"".join(decoded(octets, part.start, part.end, part.encoding, []))).hexdigest(),
        )
        for part in parts
    ]


LINES = st.lists(
    st.text(st.sampled_from("-=xyab \t."), max_size=12)
    | st.sampled_from(["--x", "--x--", "--", "-- ", "--b", "--=_b1x", "--=_b x", "--=_b-", "-- =_b", "From x"]),
    max_size=8,
).map("\n".join)


@st.composite
def leaf(draw: st.DrawFn) -> MIMEBase:
    kind = draw(st.sampled_from(["text", "html", "binary"]))
    if kind == "binary":
        part: MIMEBase = MIMEApplication(draw(st.binary(max_size=200)), "pdf")
        part.add_header(
            "Content-Disposition",
            "attachment",
            filename=draw(st.text("abc.", min_size=1, max_size=5).map(lambda n: f"f{n}x")),
        )
        return part
    text = draw(LINES) + draw(st.sampled_from(["", "\n", "\n\n", "é"]))
    part = MIMEText(text, "html" if kind == "html" else "plain", "utf-8")
    if draw(st.booleans()):
        del part["Content-Transfer-Encoding"]
        payload = draw(LINES)
        part.set_payload(quopri.encodestring(payload.encode()).decode())
        part["Content-Transfer-Encoding"] = "quoted-printable"
    return part


@st.composite
def multipart(draw: st.DrawFn, children: st.SearchStrategy[MIMEBase]) -> MIMEBase:
    whole = MIMEMultipart(draw(st.sampled_from(["mixed", "alternative", "related"])))
    for child in draw(st.lists(children, min_size=1, max_size=3)):
        whole.attach(child)
    whole.preamble = draw(st.sampled_from([None, "", "preamble"]))
    whole.epilogue = draw(st.sampled_from([None, "", "epilogue\n"]))
    return whole


TREES = st.recursive(leaf(), lambda children: multipart(children), max_leaves=6)


def with_distinct_boundaries(message: MIMEBase) -> MIMEBase:
    """Boundaries that are prefixes of one another, which well-formed mail may have."""
    for number, part in enumerate(part for part in message.walk() if part.is_multipart()):
        part.set_boundary("=_b" + "1" * number)
    return message


@settings(max_examples=150, deadline=None)
@given(TREES, st.sampled_from([b"\r\n", b"\n"]))
def test_well_formed_mail_has_the_structure_the_standard_library_sees(message, newline):
    octets = with_distinct_boundaries(message).as_bytes().replace(b"\n", newline)
    assert leaves_of_ours(octets) == leaves_of_standard_library(octets)


@settings(max_examples=60, deadline=None)
@given(TREES, st.data())
def test_mutated_mail_never_raises(message, data):
    octets = bytearray(with_distinct_boundaries(message).as_bytes().replace(b"\n", b"\r\n"))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(octets)))
        octets[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=4))
    body = read(bytes(octets)).body
    (body.text + body.html).encode("utf-8")


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300)
    | st.text(st.sampled_from("Content-Type: multipart/mixed;boundary=x\r\n-\x00é\xff"), max_size=300).map(
        lambda t: t.encode("latin-1")
    )
)
def test_random_octets_never_raise(octets):
    message = read(octets)
    body = message.body
    (message.subject + body.text + body.html).encode("utf-8")


# --- transfer encodings --------------------------------------------------------------------------------------------


def undone(octets: bytes, encoding: str) -> tuple[bytes, list[str]]:
    defects: list[str] = []
    return b"".join(decoded(octets, 0, len(octets), encoding, defects)), defects


@given(st.binary(max_size=200), st.integers(1, 80), st.sampled_from([b"\r\n", b"\n", b" \r\n", b"\r\n!\r\n"]))
def test_base64_is_decoded_however_it_is_broken_into_lines(content, width, newline):
    encoded = base64.b64encode(content)
    lines = newline.join(encoded[at : at + width] for at in range(0, len(encoded), width))
    assert undone(lines + newline, "base64") == (content, [])


@pytest.mark.parametrize("width", [76, 75, 1000, 10_000_000])
def test_large_base64_is_decoded_in_pieces_wherever_its_lines_end(width):
    content = sha256(b"x").digest() * 100_000
    encoded = base64.b64encode(content)
    lines = b"\r\n".join(encoded[at : at + width] for at in range(0, len(encoded), width))
    assert undone(lines, "base64") == (content, [])


def test_base64_in_several_stretches_is_decoded_to_its_end():
    assert undone(b"YQ==\r\nYmI=\r\nY2Nj\r\n", "base64") == (b"abbccc", ["base64-malformed"])


def test_base64_that_was_cut_is_decoded_as_far_as_it_goes():
    assert undone(b"YWJjZ", "base64") == (b"abc", ["base64-malformed"])
    assert undone(b"YWJjZGU", "base64") == (b"abcde", ["base64-malformed"])


def test_quoted_printable_is_decoded_the_same_in_pieces():
    line = b"a=3Db=C3=BC soft=\r\n"
    content = line * 150_000
    assert undone(content, "quoted-printable") == (binascii.a2b_qp(content), [])
    long_line = b"=3D" * 1_000_000
    assert undone(long_line, "quoted-printable") == (b"=" * 1_000_000, [])


def test_uuencode_is_decoded():
    content = bytes(range(256)) * 300
    lines = b"".join(binascii.b2a_uu(content[at : at + 45]) for at in range(0, len(content), 45))
    assert undone(b"junk\nbegin 644 f\n" + lines + b"`\nend\n", "x-uuencode") == (content, [])


def test_long_text_is_cut_and_said_so():
    message = read(b"Subject: x\r\n\r\n" + b"x" * 6_000_000)
    assert len(message.body.text) == 5_000_000
    assert message.body.defects == ("text-cut",)


def test_sixty_megabytes_are_digested_in_little_memory(tmp_path):
    import tracemalloc

    content = b"0123456789abcdef" * 64
    block = base64.encodebytes(content * 3 * 16).replace(b"\n", b"\r\n")
    intake = Spool(tmp_path).begin(1 << 30)
    head = mime("\r\nt", "Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n").removesuffix(
        b"\r\n--x--\r\n"
    )
    intake.write(head)
    repeats = 60_000_000 // len(block)
    for _ in range(repeats):
        intake.write(block)
    intake.write(b"--x--\r\n")
    octets = intake.finish()
    tracemalloc.start()
    message = read(octets)
    (attachment,) = message.body.attachments
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert attachment.size == len(content) * 3 * 16 * repeats
    assert peak < 16_000_000
    octets.close()


def test_a_part_whose_lines_end_with_a_carriage_return_alone_keeps_its_text_within_a_message_of_proper_lines():
    message = read(mime("Content-Type: text/plain; charset=utf-8\rX-A: 1\r\rhi\rthere\r"))
    assert message.body.text.split() == ["hi", "there"]
    assert "header-bare-cr" in message.defects


def test_ascii_that_calls_itself_utf_16_is_read_as_what_it_is_and_utf_16_as_that():
    head = b"From: a@example.com\r\nContent-Type: text/plain; charset=utf-16\r\n\r\n"
    message = read(head + b"Your parcel\r\nis here\r\n")
    assert message.body.text == "Your parcel\nis here\n"
    assert "charset-wrong" in message.defects
    assert read(head + "你好\n".encode("utf-16-le")).body.text == "你好\n"
