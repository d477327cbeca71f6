"""What an attachment is, whatever it says of itself: told from its octets, and nothing is unpacked for it."""

from __future__ import annotations

import binascii
import gzip
import io
import json
import tarfile
import time
import tracemalloc
import zipfile
from base64 import encodebytes
from datetime import UTC, datetime, timedelta

import jsonschema
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.core.body import Attachment, Body
from mailpoller.core.verdict import Deliver
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.filetype import Look, Looker
from mailpoller.mail.transfer import decoded
from odd_mail.reading import NOW, read
from pace import paced
from unit.test_event import schema

# --- by their octets -------------------------------------------------------------------------------------------------


def look(octets: bytes, size: int = 1 << 20) -> Look:
    looker = Looker()
    for at in range(0, len(octets), size):
        looker.feed(octets[at : at + size])
    return looker.look()


def zipped(*names: str, mimetype: str = "") -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        if mimetype:
            archive.writestr("mimetype", mimetype, compress_type=zipfile.ZIP_STORED)
        for name in names:
            archive.writestr(name, b"x" * 100)
    return held.getvalue()


def with_password(octets: bytes, *, central: bool) -> bytes:
    held = bytearray(octets)
    held[octets.rindex(b"PK\1\2") + 8 if central else 6] |= 1
    return bytes(held)


def ole(*names: str) -> bytes:
    """The header and a directory of an OLE file (MS-CFB sections 2.2 and 2.6)."""
    entries = b"".join(name.encode("utf-16-le").ljust(64, b"\0") + bytes(64) for name in ("Root Entry", *names))
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + bytes(512) + entries


def tarred() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"), io.BytesIO())
    return held.getvalue()


CONTENT_TYPES = "[Content_Types].xml"
OFFICE = "application/vnd.openxmlformats-officedocument."
PDF = b"%PDF-1.7\n1 0 obj\n<< /EncryptMetadata true >>\nendobj\n" + bytes(2000) + b"trailer << /Root 1 0 R {} >>\n%%EOF"


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (PDF, Look("application/pdf")),
        (PDF.replace(b"{}", b"/Encrypt 5 0 R"), Look("application/pdf", encrypted=True)),
        (b"\0" * 500 + PDF, Look("application/pdf")),
        (zipped("a.txt"), Look("application/zip")),
        (with_password(zipped("a.txt", "b.txt"), central=False), Look("application/zip", encrypted=True)),
        (with_password(zipped("a.txt", "b.txt"), central=True), Look("application/zip", encrypted=True)),
        (zipped(CONTENT_TYPES, "word/document.xml"), Look(f"{OFFICE}wordprocessingml.document")),
        (zipped(CONTENT_TYPES, "xl/vbaProject.bin"), Look(f"{OFFICE}spreadsheetml.sheet", macros=True)),
        (zipped("META-INF/MANIFEST.MF", "a.class"), Look("application/java-archive")),
        (
            zipped("Basic/Standard/script-lb.xml", mimetype="application/vnd.oasis.opendocument.text"),
            Look("application/vnd.oasis.opendocument.text", macros=True),
        ),
        (zipped(*[f"{number:0100}.txt" for number in range(1900)], "word/vbaProject.bin"),
         Look(f"{OFFICE}wordprocessingml.document", macros=True)),
        (ole("WordDocument"), Look("application/msword")),
        (ole("Workbook", "_VBA_PROJECT_CUR"), Look("application/vnd.ms-excel", macros=True)),
        (ole("__properties_version1.0"), Look("application/vnd.ms-outlook")),
        (ole("EncryptionInfo", "EncryptedPackage"), Look("application/x-ole-storage", encrypted=True)),
        (ole("x") + "_VBA_PROJECT\0".encode("utf-16-le"), Look("application/x-ole-storage", macros=True)),
        (ole("x") + b"." + "_VBA_PROJECT\0".encode("utf-16-le"), Look("application/x-ole-storage")),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), Look("application/x-7z-compressed")),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100) + b"\x06\xf1\x07\x01", Look("application/x-7z-compressed", encrypted=True)),
        (b"Rar!\x1a\7\1\0" + bytes(4) + b"\x8a\0\1" + bytes(40), Look("application/vnd.rar")),
        (b"Rar!\x1a\7\1\0" + bytes(4) + b"\x21\4" + bytes(40), Look("application/vnd.rar", encrypted=True)),
        (b"Rar!\x1a\7\0" + b"..s\0\0\x0d\0" + bytes(6) + b"..t\x20\x80", Look("application/vnd.rar")),
        (b"Rar!\x1a\7\0" + b"..s\x80\0\x0d\0" + bytes(20), Look("application/vnd.rar", encrypted=True)),
        (b"Rar!\x1a\7\0" + b"..s\0\0\x0d\0" + bytes(6) + b"..t\x24\x80", Look("application/vnd.rar", encrypted=True)),
        (gzip.compress(b"x", mtime=0), Look("application/gzip")),
        (tarred(), Look("application/x-tar")),
        (b"MZ\x90\0" + bytes(60), Look("application/vnd.microsoft.portable-executable")),
        (b"MZ is how some words begin", Look()),
        (b"BZh and so on", Look()),
        (b"#!/bin/sh\n", Look("text/x-shellscript")),
        (b"L\0\0\0\1\x14\2\0" + bytes(60), Look("application/x-ms-shortcut")),
        (b"RIFF....WEBPVP8 ", Look("image/webp")),
        (b"12345678WEBP", Look()),
        (b"  <!DOCTYPE html><html>", Look("text/html")),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="x">', Look("image/svg+xml")),
        (b'\xef\xbb\xbf<?xml version="1.0"?><a/>', Look("application/xml")),
        (b"-----BEGIN PGP MESSAGE-----\n", Look("application/pgp-encrypted", encrypted=True)),
        (b"Guten Tag", Look()),
        (b"", Look()),
    ],
)  # fmt: skip
def test_octets_tell_what_a_file_is(octets: bytes, found: Look) -> None:
    assert look(octets) == found
    if len(octets) > 10_000 or found.kind not in ("", "application/x-tar", "application/pdf"):
        assert look(octets, 5000) == found


@pytest.mark.parametrize("size", [600, 1129, 3720, 3850])
def test_names_across_pieces_are_found(size: int) -> None:
    assert look(ole(*["x"] * 20, "Workbook", "_VBA_PROJECT"), size) == Look("application/vnd.ms-excel", macros=True)


def test_word_across_pieces_is_found() -> None:
    octets = PDF.replace(b"{}", b"/Encrypt 5 0 R")
    assert look(octets, octets.index(b"/Encrypt 5") + 4).encrypted


HOSTILE = {
    "zip": b"PK\3\4" + b"PK\1\2" * 4_000_000,
    "entries": b"PK\3\4" + (b"PK\1\2" + bytes(42)) * 400_000 + b"PK\5\6" + bytes(8) + b"\xff\xff\xff\xff" + bytes(6),
    "ole": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "xVBA\0".encode("utf-16-le") * 1_500_000,
    "pdf": b"%PDF-" + b"/Encrypt" * 2_000_000,
    "markup": b" " * 4000 + b"<!--" * 4_000_000,
    "xml": b"<?xml " * 2_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_look_takes_little_time_and_memory(name: str) -> None:
    octets = HOSTILE[name]
    tracemalloc.start()
    begun = time.process_time()
    try:
        look(octets)
        assert time.process_time() - begun < paced(1.0)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 600))
def test_no_octets_make_a_look_raise(noise: bytes, at: int) -> None:
    for good in (zipped("word/x"), ole("Workbook"), PDF, b"Rar!\x1a\7\0" + bytes(30), b"Rar!\x1a\7\1\0" + bytes(30)):
        look(good[:at] + noise + good[at + len(noise) :], 1 + at)


# --- in a mail -------------------------------------------------------------------------------------------------------


def mixed(*parts: bytes, top: str = "multipart/mixed") -> Body:
    inner = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return read(f"From: a@example.com\r\nContent-Type: {top}; boundary=b\r\n\r\n".encode() + inner + b"--b--\r\n").body


def part(kind: str, octets: bytes = b"x", *fields: str) -> bytes:
    head = "\r\n".join((f"Content-Type: {kind}", "Content-Transfer-Encoding: base64", *fields))
    return head.encode() + b"\r\n\r\n" + encodebytes(octets)


def test_real_type_stands_beside_the_declared_one() -> None:
    found = mixed(b"\r\nhi", part('image/png; name="cat.png"', b"MZ\x90\0" + bytes(100))).attachments[0]
    assert (found.content_type, found.detected_type) == ("image/png", "application/vnd.microsoft.portable-executable")


@pytest.mark.parametrize(
    ("kind", "octets", "name"),
    [
        ("application/pdf", b"x", "part-1.pdf"),
        ("message/delivery-status", b"x", "part-1.txt"),
        ("application/octet-stream", b"%PDF-1.4", "part-1.pdf"),
        ("application/octet-stream", b"x", "part-1.bin"),
        ("application/x-unheard-of", b"x", "part-1.bin"),
        ("image/jpeg; name=a.jpg", b"x", "a.jpg"),
    ],
)
def test_nameless_part_is_named_by_its_type(kind: str, octets: bytes, name: str) -> None:
    assert mixed(part(kind, octets), top="multipart/mixed").attachments[0].name == name


def test_pictures_that_the_text_shows_are_inline_whatever_they_say() -> None:
    html = b"Content-Type: text/html\r\n\r\n<img src=3D'cid:a%40b'><img src=\"CID:c@d\"> cid:e"
    body = mixed(
        html,
        part("image/png", b"x", "Content-ID: <a@b>", "Content-Disposition: attachment"),
        part("image/png", b"x", "Content-ID: <c@d>", "Content-Disposition: attachment; filename=x.png"),
        part("image/png", b"x", "Content-ID: <f@g>", "Content-Disposition: attachment"),
        part("image/png", b"x", "Content-ID: <h@i>"),
        part("image/png"),
    )
    assert [one.inline for one in body.attachments] == [True, True, False, True, False]


# --- files in a text -------------------------------------------------------------------------------------------------


def uuencoded(octets: bytes, name: str = "a b.txt", end: str = "\r\n") -> str:
    lines = [binascii.b2a_uu(octets[at : at + 45]).decode().rstrip("\n") for at in range(0, len(octets), 45)]
    return end.join((f"begin 644 {name}", *lines, "`", "end", ""))


def yenc(octets: bytes, name: str = "a b.gif") -> bytes:
    out = bytearray()
    for octet in octets:
        value = (octet + 42) & 255
        out += b"=" + bytes([(value + 64) & 255]) if value in (0, 10, 13, 61) else bytes([value])
    lines = [bytes(out[at : at + 128]) for at in range(0, len(out), 128)]
    for number, line in enumerate(lines[:-1]):  # an escape never lies across a line end
        if line.endswith(b"="):
            lines[number], lines[number + 1] = line[:-1], b"=" + lines[number + 1]
    head = f"=ybegin line=128 size={len(octets)} name={name}\r\n".encode()
    return head + b"\r\n".join(lines) + f"\r\n=yend size={len(octets)}\r\n".encode()


FILE = bytes(range(256)) * 3
GIF = b"GIF89a" + FILE


def cut_out(octets: bytes, one: Attachment) -> bytes:
    return b"".join(decoded(octets, one.start, one.end, one.encoding, []))


@pytest.mark.parametrize("head", ["", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"])
def test_file_in_a_text_is_an_attachment_and_can_be_cut_out(head: str) -> None:
    octets = (
        f"Subject: x\r\n{head}\r\nbefore\r\n{uuencoded(GIF, 'x.gif')}between\r\n".encode() + yenc(FILE) + b"after\r\n"
    )
    body = read(octets).body
    assert body.text == "before\nbetween\nafter\n"
    first, second = body.attachments
    assert (first.name, first.content_type, first.detected_type, first.size) == (
        "x.gif", "image/gif", "image/gif", len(GIF)
    )  # fmt: skip
    assert (second.name, second.content_type, second.size) == ("a b.gif", "image/gif", len(FILE))
    assert (cut_out(octets, first), cut_out(octets, second)) == (GIF, FILE)


def test_what_fills_the_last_group_up_costs_no_line() -> None:
    line = binascii.b2a_uu(FILE[:41] + b"x").decode()
    body = body_of(f"begin 644 a.bin\r\n{chr(32 + 41)}{line[1:].rstrip()}\r\n`\r\nend\r\n".encode())
    assert [(one.name, one.size) for one in body.attachments] == [("a.bin", 41)]
    assert body.defects == ()


def test_file_in_an_encoded_text_has_no_offsets() -> None:
    body = mixed(part("text/plain", f"hi\n{uuencoded(FILE, end=chr(10))}bye\n".encode()))
    assert body.text == "hi\nbye\n"
    (found,) = body.attachments
    assert (found.start, found.end, found.size, found.name) == (0, 0, len(FILE), "a b.txt")


@pytest.mark.parametrize(
    "text",
    [
        "begin 644 x\r\nthis is a person's text, at whose end stands\r\nend\r\n",
        "begin 644 x\r\nTHIS IS A PERSON'S TEXT\r\nend\r\n",
        "begin 644 x\r\nend\r\n",
        "begin at 644\r\n",
        uuencoded(FILE[:100])[:-5].replace("M", "L"),
        "=ybegin line=128 size=3 name=x\r\nabc\r\n",
        "to begin with\r\n",
    ],
)
def test_what_only_looks_like_a_file_stays_in_the_text(text: str) -> None:
    body = read(f"Subject: x\r\n\r\n{text}".encode()).body
    assert (body.text, body.attachments) == (text.replace("\r\n", "\n"), ())


def body_of(text: bytes) -> Body:
    return read(b"Subject: x\r\n\r\n" + text).body


@pytest.mark.parametrize("end", ["`\r\nend\r\n", "end\r\n"])
def test_uuencoded_file_that_was_cut_is_an_attachment_all_the_same(end: str) -> None:
    text = uuencoded(FILE)[: -len("`\r\nend\r\n")]
    body = body_of(f"hi\r\n{text}".encode())
    assert (body.text, [one.size for one in body.attachments]) == ("hi\n", [len(FILE)])
    assert body.defects == ("file-cut",)
    assert body_of(f"hi\r\n{text}{end}".encode()).defects == ()


def test_yenc_that_was_cut_is_an_attachment_and_ends_before_the_text_below() -> None:
    whole = yenc(FILE)
    cut = whole[: whole.rindex(b"=yend")]
    body = body_of(b"hi\r\n" + cut)
    assert (body.text, [one.size for one in body.attachments], body.defects) == ("hi\n", [len(FILE)], ("file-cut",))
    shorter = cut[: cut.rindex(b"\r\n", 0, -2) + 2]
    body = body_of(b"hi\r\n" + shorter + b"words below\r\n\r\n" + whole + b"bye\r\n")
    assert body.text == "hi\nwords below\n\nbye\n"
    assert [one.size for one in body.attachments][1:] == [len(FILE)]


def test_no_file_stays_in_a_text_however_many_there_are() -> None:
    body = body_of(f"hi\r\n{uuencoded(b'abc') * 1003}bye\r\n".encode())
    assert body.text == "hi\n"
    assert len(body.attachments) == 1001
    last = body.attachments[-1]
    assert (last.name, last.content_type, last.encoding) == ("part-1001.txt", "text/plain", "")
    assert last.size == len(uuencoded(b"abc") * 3 + "bye\r\n")
    assert body.defects == ("files-cut",)


@pytest.mark.parametrize(
    "text",
    [
        "begin 644 x\r\n" * 300_000,
        "begin 644 x\r\n" + "M" * 4_000_000,
        ("begin 644 x\r\n" + ("M" + "A" * 60 + "\r\n") * 10) * 6_000,
        "=ybegin name=x\r\n" * 250_000,
        "=ybegin " + "=" * 4_000_000,
        "=ybegin name=x\r\n" + "==" * 1_500_000 + "\r\n=yend \r\n",
        "\r\n".join(["begin 644 x\r\n#86)C\r\n`\r\nend"] * 100_000),
        "=ybegin line=100 size=1 name=x\r\n" + ("a" * 100 + "\r\n") * 40_000,
        ("=ybegin line=100 size=1 name=x\r\n" + "a" * 100 + "\r\n") * 30_000,
    ],
    ids=range(9),
)
def test_hostile_texts_take_no_second(text: str) -> None:
    octets = f"Subject: x\r\n\r\n{text}".encode()
    begun = time.process_time()
    _ = read(octets).body
    assert time.process_time() - begun < paced(1.5)


# --- encrypted mail --------------------------------------------------------------------------------------------------


def enveloped() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=9))
        .sign(key, hashes.SHA256())
    )
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(b"secret").add_recipient(certificate)
    return builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def test_encrypted_mail_is_known() -> None:
    kind = "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m"
    assert mixed(part(kind, enveloped())).encryption == "smime"
    assert mixed(part("application/octet-stream; name=SMIME.P7M", enveloped())).encryption == "smime"
    assert mixed(part("application/pgp-encrypted", b"Version: 1"), part("application/octet-stream")).encryption == "pgp"
    inline = "Subject: x\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nabc\r\n-----END PGP MESSAGE-----\r\n"
    assert read(inline.encode()).body.encryption == "pgp"
    assert mixed(b"\r\nhi", part(kind, b"\x30\x03\x06\x01\x01")).encryption == ""


def test_all_of_it_is_in_the_event_as_the_schema_says() -> None:
    octets = b"Content-Type: application/octet-stream\r\n\r\n" + with_password(
        zipped("xl/vbaProject.bin"), central=True
    )
    rendered = EventRenderer(read(octets), verdict=Deliver(("q",)), source="mailpoller/m", now=NOW).render(
        queue="q", delivery_id="d"
    )
    event = json.loads(rendered.structured())
    jsonschema.Draft202012Validator(schema()).validate(event)
    found = event["data"]["attachments"][0]
    assert (found["detected_type"], found["macros"], found["encrypted"]) == (f"{OFFICE}spreadsheetml.sheet", True, True)
    assert found["name"] == "part-1.xlsx"
    assert event["data"]["encryption"] is None
