"""Entries as strangers and broken programs make them, through every way in: refused with a reason, or sent right;
nothing is ever sent by half."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from test_http_intake import LOCAL
from test_intakes import Table
from test_outbox import SENDERS

from mailpoller.core.enclosures import Enclosures
from mailpoller.core.errors import EntryRefused
from mailpoller.core.ports import OutboxMail
from mailpoller.engine.senders import Answering, Intake
from mailpoller.intakes.http.listener import HttpIntake

ENTRY: dict[str, Any] = {"to": "ada@x.example", "subject": "Order", "text": "Hello"}
REFUSED = "refused"
EVIL = (
    "x\r\nBcc: evil@e.example", "x\nBcc: evil@e.example", "x\rBcc: evil@e.example", "x\r\n\r\nevil@e.example",
    "x\x00evil@e.example", "x\x0bevil@e.example", "x\x85Bcc: evil@e.example", "x\u2028Bcc: evil@e.example",
    "x\u2029Bcc: evil@e.example", "x\ud800evil@e.example", "\x1b[2Jevil@e.example", "evil@e.example\n",
)  # fmt: skip
FIELDS = (
    "to", "cc", "bcc", "subject", "in_reply_to", "references", "conversation", "key", "identity", "mailbox",
    "department", "reply_to", "incoming_charset",
)  # fmt: skip
OUR_FIELDS = {
    "from", "to", "cc", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding",
    "in-reply-to", "references",
}  # fmt: skip


class Ways(Table):
    """One acceptance, and every way in to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        mailboxes = {"help": Answering("support", ("root",), enclosures=Enclosures())}
        shop = Intake("shop", ("root",), by_socket=False)
        self.use(
            replace(
                SENDERS,
                mailboxes=mailboxes,
                default_mailboxes={"root": "help"},
                intakes={"desk": SENDERS.intakes["desk"], "shop": shop, "local": LOCAL},
            )
        )
        self.listener = HttpIntake(path / "send.sock", frozenset(), frozenset())

    async def socket(self, octets: bytes) -> str:
        """The reason, or nothing."""
        try:
            await self.hand_in(octets)
        except EntryRefused as error:
            return str(error)
        return ""

    async def table(self, octets: bytes) -> str:
        self.insert(octets)
        while await self.step():
            pass
        return self.rows()[-1][2] or ""

    async def http(self, octets: bytes) -> str:
        reader, writer = await asyncio.open_unix_connection(str(self.path / "send.sock"))
        writer.write(b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(octets) + octets)
        head, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
        writer.close()
        status = int(head.split(b" ")[1])
        assert status == 202 or 400 <= status < 500, head
        return "" if status == 202 else str(json.loads(body)["detail"])

    async def taken(self) -> list[OutboxMail]:
        return list(await self.ledger.outbox_list(limit=1000))


@pytest.fixture
async def ways(tmp_path: Path) -> AsyncIterator[Ways]:
    made = Ways(tmp_path)
    await made.step()
    ended, there = asyncio.Event(), asyncio.Event()

    async def take(octets: bytes, key: str) -> Any:
        return await made.reader._taken("local", octets, key)

    task = asyncio.create_task(made.listener.serve(take, ended, largest=10_000_000, opened=there.set))
    await asyncio.wait_for(there.wait(), 5)
    made.reader._largest = 10_000_000
    yield made
    ended.set()
    await task
    await made.source.close()


def raw(entry: object) -> bytes:
    """In ASCII, half pairs among it."""
    return entry if isinstance(entry, bytes) else json.dumps(entry).encode()


Sent = dict[str, Any]
HARMLESS: tuple[tuple[str, dict[str, Any], Sent | str], ...] = (
    ("a comment", {"to": "Ada (the (first)) <ada@x.example>"}, {"recipients": ("ada@x.example",)}),
    ("a quoted local part", {"to": '"a..b"@x.example'}, {"recipients": ('"a..b"@x.example',)}),
    ("a quoted local part with a blank", {"to": '"a b"@x.example'}, REFUSED),
    ("a quoted name with a comma", {"to": '"Doe, Ada" <ada@x.example>'}, {"recipients": ("ada@x.example",)}),
    ("a domain in another script", {"to": "ada@bücher.example"}, {"recipients": ("ada@xn--bcher-kva.example",)}),
    ("a local part in another script", {"to": "jürgen@x.example"}, {"recipients": ("jürgen@x.example",)}),
    ("an address twice", {"to": ["ada@x.example"] * 3, "cc": "ada@X.example"}, {"recipients": ("ada@x.example",)}),
    ("a literal", {"to": "ada@[192.0.2.1]"}, {"recipients": ("ada@[192.0.2.1]",)}),
    ("nobody", {"to": []}, REFUSED),
    ("an empty address", {"to": ""}, REFUSED),
    ("no domain", {"to": "ada"}, REFUSED),
    ("two at signs", {"to": "ada@b@x.example"}, REFUSED),
    ("a route", {"to": "<@relay.example:ada@x.example>"}, {"recipients": ("ada@x.example",)}),
    ("two dots", {"to": "a..b@x.example"}, REFUSED),
    ("a long local part", {"to": "a" * 65 + "@x.example"}, REFUSED),
    ("a long domain", {"to": "a@" + "b" * 64 + ".example"}, REFUSED),
    ("a quoted line break", {"to": '"a\\\nb"@x.example'}, REFUSED),
    ("an address that is a number", {"to": 7}, REFUSED),
    ("an address that is a block", {"to": {"address": "ada@x.example"}}, REFUSED),
    ("a list within a list", {"to": [["ada@x.example"]]}, REFUSED),
    ("10,000 recipients", {"to": [f"a{n}@x.example" for n in range(10_000)]}, REFUSED),
    ("10,000 recipients in a text", {"bcc": ", ".join(f"a{n}@x.example" for n in range(10_000))}, REFUSED),
    ("a long subject", {"subject": "x" * 2001}, REFUSED),
    ("a subject in another script", {"subject": "Grüße 回复 🙂"}, {"subject": "Grüße 回复 🙂"}),
    ("an encoded word", {"subject": "=?utf-8?q?a=0d=0aBcc:_evil@e.example?="}, {}),
    ("a template", {"text": "{subject} {{x}} ${y} {0.__class__} %s %(a)s {% for x in y %}\n"}, {"text": True}),
    ("a template in the subject", {"subject": "{to.__class__} ${jndi:ldap://x} %n"}, {"subject": True}),
    ("braces", {"text": "{" * 200_000}, {"text": True}),
    ("a text without an end of line", {"text": "x" * 100_000}, {"text": True}),
    ("a dot alone on its line", {"text": "a\n.\nb\n..\n"}, {"text": True}),
    ("lines that look like mail", {"text": "From here on\n>From\n--boundary\nBcc: evil@x.example\n"}, {"text": True}),
    ("HTML that is none", {"html": "<<<>>><b<i</p>" * 1000, "text": None}, {"html": True}),
    ("HTML that never ends", {"html": "<div>" * 50_000, "text": None}, {"html": True}),
    ("HTML with a program", {"html": "<script>x</script><img src=x onerror=y>\n", "text": None}, {"html": True}),
    ("empty HTML", {"html": "", "text": None}, {"html": True}),
    ("a text that is a list", {"text": ["a"]}, REFUSED),
    ("a NUL in the text", {"text": "a\x00b"}, REFUSED),
    ("half a pair in the text", {"text": "a\ud83d"}, REFUSED),
    ("nothing to send", {"text": None}, REFUSED),
    ("a name of a file with a way", {"attachments": [{"name": "../../etc/passwd", "base64": "MQ=="}]}, {}),
    ("a message within", {"attachments": [{"name": "a", "type": "message/rfc822", "base64": "MQ=="}]}, {}),
    ("a type with a parameter", {"attachments": [{"type": 'a/b; name="x"', "base64": "MQ=="}]}, REFUSED),
    ("base64 that is none", {"attachments": [{"base64": "%%%"}]}, REFUSED),
    ("a path", {"attachments": [{"path": "/etc/passwd"}]}, REFUSED),
    ("101 attachments", {"attachments": [{"base64": "MQ=="}] * 101}, REFUSED),
    ("an unknown key", {"headers": {"Bcc": "evil@x.example"}}, REFUSED),
    ("a sender of its own", {"from": "ceo@x.example"}, REFUSED),
    ("another charset than there is", {"incoming_charset": "x-none"}, {"text": True}),
)  # fmt: skip

TABLE: list[Any] = [pytest.param(ENTRY | more, expected, id=name) for name, more, expected in HARMLESS]
TABLE += [
    pytest.param(ENTRY | {field: value}, None, id=f"{field} {number}")
    for field in FIELDS
    for number, value in enumerate(EVIL)
]
TABLE += [
    pytest.param(ENTRY | {"attachments": [{"name": "a", "type": "a/b", "base64": "MQ=="} | {key: value}]}, None,
                 id=f"attachment {key} {number}")
    for key in ("name", "type", "base64")
    for number, value in enumerate(EVIL)
]  # fmt: skip
TABLE += [
    pytest.param(octets, REFUSED, id=f"octets {number}")
    for number, octets in enumerate((b"\xff\xfe{", b"[" * 100_000, b'{"to":' * 50_000, b'{"to": 1e999}', b"null", b"7",
                                     b'{"text": "\\ud800"}', b'{"to": NaN}', b'{"a": 1' + b"0" * 10_000 + b"}"))
]  # fmt: skip


async def test_the_same_is_said_by_every_way_in_and_nothing_is_sent_by_half(
    ways: Ways,
) -> None:
    wrong: list[str] = []
    for param in TABLE:
        entry, expected = param.values
        try:
            await _tried(ways, entry, expected)
        except AssertionError as error:
            wrong.append(f"{param.id}: {error}"[:500])
    assert not wrong, "\n\n".join(wrong)


async def _tried(ways: Ways, entry: Any, expected: Any) -> None:
    reasons: list[str] = []
    seen = {one.id for one in await ways.taken()}
    ways_in: list[Callable[[bytes], Awaitable[str]]] = [ways.socket, ways.table, ways.http]
    for way in ways_in:
        kept = ways.kept
        reason = await way(raw(entry))
        new = [one for one in await ways.taken() if one.id not in seen]
        seen |= {one.id for one in new}
        assert len(new) == (0 if reason else 1), f"{way.__name__}: {reason}"
        assert ways.kept == kept + len(new), "a file is left over"
        if expected == REFUSED:
            assert reason, f"{way.__name__} took it"
        elif expected is not None:
            assert not reason, f"{way.__name__}: {reason}"
        for mail in new:
            _right(ways, mail, entry, {} if expected is None else expected)
        reasons.append(reason)
    assert len(set(reasons)) == 1, reasons


def _right(ways: Ways, mail: OutboxMail, entry: dict[str, Any], expected: Sent) -> None:
    octets = (ways.path / "outbox" / mail.digest.hex()).read_bytes()
    head = octets.partition(b"\r\n\r\n")[0]
    found = message_from_bytes(octets, policy=policy.default)
    names = [name.lower() for name in found]
    assert len(names) == len(set(names))
    assert set(names) <= OUR_FIELDS, names
    assert b"\r" not in octets.replace(b"\r\n", b"")
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert not any(address.startswith("evil") for address in (one.address for one in mail.recipients)), mail.recipients
    assert b"evil" not in head or b"evil" in head.partition(b"Subject:")[2].partition(b"\r\nDate")[0], head
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    if "recipients" in expected:
        assert tuple(one.address for one in mail.recipients) == expected["recipients"]
    if "subject" in expected:
        assert str(found["Subject"]) == (entry["subject"] if expected["subject"] is True else expected["subject"])
    for kind in ("text", "html"):
        if expected.get(kind):
            body: Any = found.get_body(("plain" if kind == "text" else "html",))
            assert body.get_content().replace("\r\n", "\n").rstrip("\n") == entry[kind].rstrip("\n")
