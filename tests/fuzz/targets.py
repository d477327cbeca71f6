"""What is fed to what. A target takes any octets and raises nothing but bugs; errors that are decisions it
keeps."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import struct
import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

from mailpoller.assembly.plans import Rules
from mailpoller.config import effective, load
from mailpoller.core.attributes import Attributes
from mailpoller.core.authentication import EXCHANGE_ONLINE, GMAIL
from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError, MailpollerError
from mailpoller.core.literals import Secret
from mailpoller.core.message import Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.spool import Octets, Spool
from mailpoller.core.verdict import Deliver, Quarantine
from mailpoller.engine.clock import SystemClock
from mailpoller.mail.compose import quarantine_mail
from mailpoller.mail.contents.compressed_rtf import unpacked_rtf
from mailpoller.mail.contents.kinds import FAILED, KINDS
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.contents.rtf import read_rtf
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse
from mailpoller.mail.understand.arrival import Arrival
from mailpoller.mail.understand.flowed import join
from mailpoller.mail.understand.html import render
from mailpoller.mail.understand.reply import split
from mailpoller.remote.graph.client import _answer
from mailpoller.remote.standins import stand_in
from mailpoller.sources.ews.authentication import _Ntlm, certificate_hash, read_challenge
from mailpoller.sources.graph.listing import _told_at
from mailpoller.sources.pop3 import reader as pop3_reader
from mailpoller.sources.pop3.listing import Listing, NameLines, SizeLines, counted, totalled
from mailpoller.sources.pop3.protocol import Reply
from mailpoller.wire.http import HttpAnswer, error_of, http_date, iso_date, retry_after
from mailpoller.wire.imap import reader as imap_reader
from mailpoller.wire.imap import responses as imap
from mailpoller.wire.imap import uids
from mailpoller.wire.sasl.exchange import decoded
from mailpoller.wire.sasl.mechanisms import CramMd5, OAuthBearer
from mailpoller.wire.sasl.scram import ScramSha256

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
LIMIT = 1 << 16
"""Octets of an input at most."""
CUTS = (1, 2, 7, 64, 1 << 20)
"""In pieces of such sizes octets arrive."""


def _message(octets: bytes, *, truncated: bool = False) -> Message:
    claim = Claim(MessageRef(Folder("support", "INBOX", "1"), "17"), "mid")
    return parse(RawMessage(claim, Octets.of(octets), truncated=truncated, announced=len(octets), received=NOW))


def mail(data: bytes) -> None:
    """A message: parsed, rendered in every form, wrapped for quarantine."""
    message = _message(data, truncated=len(data) % 2 == 1)
    for trust in (EXCHANGE_ONLINE, GMAIL):
        Arrival(("a@example.com",), trust=trust).note(message)
    for verdict in (Deliver(("q",), Attributes("t")), Quarantine("reason", "detail")):
        renderer = EventRenderer(message, verdict=verdict, source="mailpoller/support", now=NOW)
        event = renderer.render(queue="q", delivery_id="d", payload="parsed", octets_inside=True)
        assert isinstance(json.loads(event.structured().decode("utf-8")), dict)
        assert isinstance(json.loads(event.data().decode("utf-8")), dict)
    sent = quarantine_mail(
        sender="a@example.com", recipients=["b@example.com"], raw=message.raw, delivery_id="d", at=NOW,
        subject=message.subject[:100], explanation=["why"], trace=[("from", str(message.from_))],
    )  # fmt: skip
    assert b"\r\n\r\n" in sent.octets
    stand_in(message.raw.octets, len(data) * 2)


def text(data: bytes) -> None:
    """What people write: HTML, and lines that flow."""
    written = data.decode("utf-8", "replace")
    for words in (written, render(written).text):
        words.encode("utf-8")
        said = split(words)
        assert bool(words[slice(*said.reply)].strip()) == bool(words.strip())
    for delsp in (False, True):
        join(written, delsp=delsp)


REPORTS = (
    b"From: a@example.net\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: %s; name=x%s\r\n\r\n"
)


def contents(data: bytes) -> None:
    """A part that takes a reader of its own: the first octet says which one."""
    kinds = (
        (b"application/gzip", b".xml.gz"),
        (b"application/zip", b".zip"),
        (b"application/tlsrpt+json", b".json"),
        (b"message/feedback-report", b""),
        (b"message/disposition-notification", b""),
        (b"text/calendar", b".ics"),
        (b"application/ms-tnef", b".dat"),
    )
    kind, name = kinds[data[0] % len(kinds)] if data else kinds[0]
    _opened(_message(REPORTS % (kind, name) + data[1:]))


def _opened(message: Message) -> None:
    found = read_contents(message, KINDS)
    assert all(undone.why != FAILED for undone in found.undone)
    message.take_contents(found)
    renderer = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/support", now=NOW)
    assert json.loads(renderer.render(queue="q", delivery_id="d").data())["undone"] is not None


WITHIN = b"From: a@example.net\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n"


def within(data: bytes) -> None:
    """Messages within a message, and what is in them."""
    _opened(_message(WITHIN + data))


def rich_text(data: bytes) -> None:
    """The rich text of a TNEF, compressed and as it is."""
    for octets in (b"{\\rtf1" + data, data):
        with contextlib.suppress(Closed):
            read_rtf(octets).text.encode("utf-8")
    with contextlib.suppress(Closed):
        unpacked_rtf(data)
    head = struct.pack("<IIII", len(data) + 12, 100_000, 0x75465A4C, crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF)
    with contextlib.suppress(Closed):
        unpacked_rtf(head + data)


def _pieces(data: bytes) -> list[bytes]:
    """The octets as they arrive: the first one says in what pieces."""
    size, data = CUTS[data[0] % len(CUTS)] if data else 1, data[1:]
    return [data[at : at + size] for at in range(0, len(data), size)]


def imap_responses(data: bytes) -> None:
    """What an IMAP server sends: cut into responses, each of which is read as everything that it might be."""

    def deliver(response: imap_reader.Response) -> None:
        head = response[0]
        assert isinstance(head, bytes)
        words = head.partition(b" ")[2]
        status = imap.read_status(words)
        _ = status.busy, status.pause, str(status)
        for read in (imap.read_fetch, imap.read_values, imap.read_list, imap.read_namespace):
            with contextlib.suppress(imap_reader.ProtocolViolation):
                read(response)
        for read_words in (uids.read_search, uids.read_esearch, uids.read_set):
            with contextlib.suppress(imap_reader.ProtocolViolation):
                read_words(words.partition(b" ")[2])

    reader = imap_reader.ResponseReader(deliver, lambda line, size: None)
    try:
        for piece in _pieces(data):
            reader.feed(piece)
    except imap_reader.ProtocolViolation:
        pass
    finally:
        reader.unfinished()
        reader.close()


_STAT = Reply(True, "", "2 320")


class _Pop3Lines:
    """Every answer has a body, which is by turns one of UIDL and one of LIST."""

    def __init__(self) -> None:
        self.listings: list[NameLines | SizeLines] = []

    def line(self, line: bytes) -> pop3_reader.Taker | None:
        reply = Reply.read(line)
        if reply is None:
            return None
        _ = str(reply), counted(reply), totalled(reply)
        if not reply.ok:
            return None
        self.listings.append(SizeLines() if len(self.listings) % 2 else NameLines())
        return self.listings[-1]


def pop3_answers(data: bytes) -> None:
    """What a POP3 server sends: lines and bodies, and the bodies as listings."""
    lines = _Pop3Lines()
    reader = pop3_reader.AnswerReader(lines)
    try:
        for piece in _pieces(data):
            reader.feed(piece)
    except (pop3_reader.ProtocolViolation, pop3_reader.Enough):
        return
    finally:
        reader.close()
    names = next((one for one in lines.listings if isinstance(one, NameLines)), None)
    sizes = next((one for one in lines.listings if isinstance(one, SizeLines)), SizeLines())
    for given in (names, None):
        with contextlib.suppress(pop3_reader.ProtocolViolation):
            Listing.read(given, sizes, _STAT)


def http(data: bytes) -> None:
    """Fields and bodies of an HTTP answer: dates, waits, errors, challenges, answers of a batch."""
    head, _, body = data.partition(b"\r\n\r\n")
    fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))]
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in fields}
    wait = retry_after(headers)
    assert wait is None or wait.total_seconds() <= 3600
    for value in {"", *headers.values()}:
        retry_after({"retry-after": value}, NOW)
        _ = http_date(value), iso_date(value)
    _told_at(HttpAnswer(200, headers, body, "example.com"))
    for kind in ("application/json", "text/plain", headers.get("content-type", "")):
        error_of(body, kind, ["secret"], ["https://example.com/v1.0/users/a/messages/" + "x" * 60])
    read_challenge([(name, value) for name, value in fields] + [(b"WWW-Authenticate", body[:1000])])
    with contextlib.suppress(MailpollerError):
        found = HttpAnswer(200, {"content-type": "application/json"}, body, "example.com").object()
        for one in found.get("responses", [found]) if isinstance(found.get("responses", []), list) else []:
            _answer(one, ["/a"] * 20)


def challenges(data: bytes) -> None:
    """What a server sends while we log in: NTLM and Negotiate, SCRAM, CRAM-MD5, OAuth."""
    which, said = (data[0] % 5, data[1:]) if data else (0, b"")
    with contextlib.suppress(MailpollerError):
        if which < 2:
            asyncio.run(_ntlm("ntlm" if which == 0 else "negotiate", said))
        else:
            made = (ScramSha256("user", "pass", nonce="abc"), CramMd5("user", "pass"), OAuthBearer("u", "t", "h", 1))
            exchange: Any = made[which - 2]
            exchange.first()
            for challenge in said.split(b"\n")[:3]:
                decoded(challenge)
                asyncio.run(exchange.answer(_cheap(challenge)))
            exchange.conclude()
    certificate_hash(said)


def _cheap(challenge: bytes) -> bytes:
    """With as many rounds of hashing as are allowed this would be about nothing else."""
    return challenge.replace(b",i=", b",i=4096,x=")


async def _ntlm(scheme: str, said: bytes) -> None:
    login = _Ntlm("example.com", "DOMAIN\\user", Secret("pass"), scheme)
    from mailpoller.sources.ews.authentication import Challenge

    await login.begin()
    await login.next(Challenge({scheme: ""}, login))
    token = said.decode("latin-1") if said[:1] == b"=" else b64encode(said).decode("ascii")
    await login.next(Challenge({scheme: token}, login))


@cache
def _place() -> Path:
    """A directory in memory, where there is one."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="mailpoller-fuzz-", dir=memory))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "conf.d").mkdir()
    return place


def configuration(data: bytes) -> None:
    """A file and its drop-in, loaded, shown, and looked through for what it lacks."""
    main, _, drop_in = data.partition(b"\n%%%\n")
    path = _place() / "mailpoller.yaml"
    path.write_bytes(main)
    (_place() / "conf.d" / "a.yaml").write_bytes(drop_in)
    try:
        config = load(path)
    except MailpollerError as error:
        assert len(str(error)) < 1 << 22
        return
    config.missing_secrets()
    config.missing_files()
    effective(config)


RULES = b"""queues: {q: {type: sqlite, path: /q/q.db}, r: {type: sqlite, path: /q/r.db}}
mailboxes: {m: {type: imap, host: imap.example.com, username: a, password: x, default_queue: q}}
rules:
"""


def rules(data: bytes) -> None:
    """Rules as they stand in a file, and a message that they judge."""
    written, _, octets = data.partition(b"\n%%%\n")
    path = _place() / "rules.yaml"
    path.write_bytes(RULES + written)
    try:
        config = load(path)
    except MailpollerError:
        return
    made = Rules(config, Runtime(clock=SystemClock(), spool=Spool(_place()), state_directory=_place()))
    message = _message(octets)
    for name in config.rules:
        try:
            match = made[name].judge(message)
        except ConfigError:  # a file that it names is not there
            continue
        assert match is None or isinstance(match.why, str)
        if match is not None:
            message.fields = {**message.fields, **match.effect.fields}
    renderer = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/support", now=NOW)
    assert isinstance(json.loads(renderer.render(queue="q", delivery_id="d").data())["fields"], dict)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "mail": mail,
    "contents": contents,
    "within": within,
    "rich-text": rich_text,
    "text": text,
    "imap": imap_responses,
    "pop3": pop3_answers,
    "http": http,
    "challenges": challenges,
    "configuration": configuration,
    "rules": rules,
}
CORPUS = Path(__file__).parent / "corpus"


def seeds(target: str) -> dict[str, bytes]:
    """Where a target begins: name -> octets. For mail also what the tests know of odd mail."""
    found = {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}
    if target == "mail":
        odd = Path(__file__).parents[1] / "odd_mail"
        found |= {path.name: path.read_bytes() for path in sorted(odd.glob("*.eml"))}
    return found
