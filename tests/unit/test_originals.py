"""What an answer takes over from mail that came: only what is kept, and only of the departments that may send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from test_outbox import ENTRY, SENDERS, Site

from mailpoller.blobs.filesystem import FilesystemBlobsConfig
from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.enclosures import Enclosures
from mailpoller.core.errors import EntryForbidden, EntryPutOff, EntryRefused, MachineTrouble
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.core.ports import BlobReference
from mailpoller.core.spool import Octets
from mailpoller.engine.acceptance import Acceptance, OutboxBounds
from mailpoller.engine.originals import Originals
from mailpoller.engine.senders import Answering, Senders
from unit.sink_runtime import make_runtime

PDF = b"%PDF-1.4 order\n" + bytes(range(256)) * 20


def senders(enclosures: Enclosures | None) -> Senders:
    mailboxes = {
        "help": Answering("support", ("root",), enclosures=enclosures),
        "deals": Answering("sales", ("sales",), enclosures=enclosures),
    }
    return replace(SENDERS, mailboxes=mailboxes, default_mailboxes={"root": "help", "sales": "deals"})


def customers(text: str = "Please see the order.") -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"] = "Ada <ada@c.example>", "support@x.example"
    mail["Subject"], mail["Message-ID"] = "Order", "<17@c.example>"
    mail["Date"] = "Mon, 30 Nov 2026 10:00:00 +0100"
    mail.set_content(text)
    mail.add_attachment(PDF, maintype="application", subtype="pdf", filename="order.pdf")
    mail.add_attachment(b"one", maintype="image", subtype="png", filename="a\u2028b.png")
    mail.set_boundary("=-=")
    return mail.as_bytes()


class Desk(Site):
    """A site whose events refer to blobs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.blobs: Any = FilesystemBlobsConfig.model_validate(
            {"type": "filesystem", "path": path / "blobs", "min_free": 0}
        ).build(make_runtime(path, self.clock))
        self.keeping(self.blobs)
        self.allow(Enclosures())

    def keeping(self, blobs: Any) -> None:
        bounds, originals = OutboxBounds(**self.bounds), Originals(self.ledger, blobs)
        self.acceptance = Acceptance(
            self.ledger, self.files, SENDERS, self.clock, bounds, self.room, self.postman.wake, originals=originals
        )

    def allow(self, enclosures: Enclosures | None) -> None:
        self.use(senders(enclosures))

    async def came(self, mailbox: str = "help", octets: bytes | None = None, uid: str = "17") -> str:
        """A message came, was brought to a queue, and its octets are a blob; its mid."""
        held = Octets.of(customers() if octets is None else octets)
        ref = MessageRef(Folder(mailbox, "INBOX", "1"), uid, held.size)
        await self.ledger.open_folder(ref.folder, Account("imap", "imap.example.com", mailbox))
        (claim,) = await self.ledger.claim([ref])
        assert isinstance(claim, Claim)
        await self.blobs.refer([held], [BlobReference(held.digest, "q", f"d-{claim.mid}", claim.mid)])
        outcome = Outcome(
            claim, "delivered", LEAVE, {"q": "1"}, message_id=f"<{uid}@c.example>", sender="ada@c.example"
        )
        await self.ledger.settle([outcome])
        return claim.mid

    async def sent(self, entry: dict[str, Any]) -> EmailMessage:
        mail = await self.mail((await self.hand_in(entry))["id"])
        octets = (self.path / "outbox" / mail.digest.hex()).read_bytes()
        found: Any = message_from_bytes(octets, _class=EmailMessage)
        assert isinstance(found, EmailMessage)
        return found


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    await made.blobs.close()


def digest(octets: bytes = PDF) -> str:
    return f"sha256:{sha256(octets).hexdigest()}"


def files(mail: EmailMessage) -> list[tuple[str | None, str, Any]]:
    return [
        (one.get_filename(), one.get_content_type(), one.get_payload(decode=True))
        for one in mail.walk()
        if one.get_filename()
    ]


async def test_a_part_of_the_message_that_is_answered_goes_along_as_it_was(desk: Desk) -> None:
    mail = await desk.sent({"reply_to": await desk.came(), "text": "Back.", "attachments": [{"digest": digest()}]})
    assert files(mail) == [("order.pdf", "application/pdf", PDF)]


async def test_parts_by_digest_and_by_base64_keep_their_order_and_may_be_called_otherwise(desk: Desk) -> None:
    mid = await desk.came()
    attachments = [
        {"name": "1.txt", "base64": "MQ=="},
        {"digest": digest().removeprefix("sha256:").upper(), "mid": mid.upper(), "name": "2.pdf", "type": "x/y"},
        {"name": "3.txt", "base64": "Mw=="},
        {"digest": digest(b"one"), "mid": mid},
    ]
    found = files(await desk.sent({**ENTRY, "attachments": attachments}))
    assert [(name, kind) for name, kind, _ in found] == [
        ("1.txt", "application/octet-stream"),
        ("2.pdf", "x/y"),
        ("3.txt", "application/octet-stream"),
        ("a b.png", "image/png"),
    ]


async def test_the_message_itself_goes_along_by_the_digest_of_its_octets(desk: Desk) -> None:
    mid = await desk.came()
    mail = await desk.sent({**ENTRY, "attachments": [{"digest": digest(customers()), "mid": mid}]})
    assert files(mail) == [("message.eml", "application/octet-stream", customers())]


async def test_a_digest_is_no_permission(desk: Desk) -> None:
    foreign = await desk.came("deals", uid="18")
    own = await desk.came()
    for mid in (foreign, "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(EntryForbidden, match="no message of that mid in a mailbox of these departments"):
            await desk.hand_in({**ENTRY, "attachments": [{"digest": digest(), "mid": mid}]})
    with pytest.raises(EntryRefused, match="no part of the digest"):
        await desk.hand_in({"reply_to": own, "text": "x", "attachments": [{"digest": digest(b"another's")}]})
    desk.allow(None)
    with pytest.raises(EntryRefused, match="sends no attachments"):
        await desk.hand_in({"reply_to": own, "text": "x", "attachments": [{"digest": digest()}]})
    assert desk.kept == 0


async def test_types_and_sizes_are_asked_of_a_part_by_digest_too(desk: Desk) -> None:
    mid = await desk.came()
    desk.allow(Enclosures(types=frozenset({"image/png"})))
    with pytest.raises(EntryRefused, match="application/pdf"):
        await desk.hand_in(
            {"reply_to": mid, "text": "x", "attachments": [{"digest": digest(), "type": "image/png", "name": "a.png"}]}
        )
    desk.allow(Enclosures(max_size=100))
    with pytest.raises(EntryRefused, match="max_size"):
        await desk.hand_in({"reply_to": mid, "text": "x", "attachments": [{"digest": digest()}]})


async def test_many_references_to_one_large_part_cost_what_the_outgoing_takes(desk: Desk) -> None:
    mid = await desk.came()
    small = replace(
        senders(Enclosures()), identities={"support": replace(SENDERS.identities["support"], max_size=9000)}
    )
    desk.use(small)
    with pytest.raises(EntryRefused, match="max_size"):
        await desk.hand_in({"reply_to": mid, "text": "x", "attachments": [{"digest": digest()}] * 100})


async def test_what_is_not_kept_is_refused_and_what_cannot_be_read_now_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    mid = await desk.came()
    entry = {"reply_to": mid, "text": "x", "attachments": [{"digest": digest()}]}

    async def down(*_: object) -> bool:
        raise MachineTrouble("not mounted")

    with monkeypatch.context() as patched:
        patched.setattr(desk.blobs, "read", down)
        with pytest.raises(EntryPutOff, match="not mounted"):
            await desk.hand_in(entry)
    for one in (desk.path / "blobs").glob("?" * 64):
        one.unlink()
    with pytest.raises(EntryRefused, match="not kept"):
        await desk.hand_in(entry)
    desk.keeping(None)
    desk.allow(Enclosures())
    with pytest.raises(EntryRefused, match=r"\(blobs\)"):
        await desk.hand_in(entry)


@pytest.mark.parametrize(
    "attachment",
    [
        {"digest": "md5:00"},
        {"digest": 7},
        {"digest": digest() + "0"},
        {"digest": digest(), "base64": "MQ=="},
        {"digest": digest(), "path": "/etc/passwd"},
        {"digest": digest(), "name": "a\nb"},
        {"digest": digest(), "mid": "a\nb"},
        {"digest": digest(), "mid": 7},
        {"digest": digest(), "type": "text"},
        {"digest": digest()},
    ],
)
async def test_a_reference_that_is_none_is_refused(desk: Desk, attachment: dict[str, Any]) -> None:
    with pytest.raises(EntryRefused):
        await desk.hand_in({**ENTRY, "attachments": [attachment]})


@pytest.mark.parametrize(
    "octets", [b"", b"\r\r\r", b"\x00" * 5000, customers()[:-500], b"Content-Type: multipart/mixed"]
)
async def test_no_message_however_it_is_made_stops_what_comes_after_it(desk: Desk, octets: bytes) -> None:
    mid = await desk.came(octets=octets)
    with pytest.raises(EntryRefused):
        await desk.hand_in({"reply_to": mid, "text": "x", "attachments": [{"digest": digest(b"none")}]})
    assert (await desk.hand_in())["id"]


async def test_a_blob_that_is_removed_meanwhile_is_read_to_its_end(desk: Desk) -> None:
    mid = await desk.came()
    several = [desk.sent({"reply_to": mid, "text": str(n), "attachments": [{"digest": digest()}]}) for n in range(3)]
    for mail in await asyncio.gather(*several):
        assert files(mail) == [("order.pdf", "application/pdf", PDF)]


def words(mail: EmailMessage, kind: str = "plain") -> str:
    for part in mail.walk():
        if part.get_content_type() == f"text/{kind}":
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            return payload.decode(part.get_content_charset() or "ascii").replace("\r\n", "\n")
    raise AssertionError


LONG_THREAD = (
    "Thanks, and the second one?\n\nOn Mon, 30 Nov 2026 at 09:00, Support <support@x.example> wrote:\n> It is sent.\n"
)


async def test_what_was_written_for_the_message_is_quoted_below_the_signature(desk: Desk) -> None:
    mid = await desk.came(octets=customers(LONG_THREAD))
    mail = await desk.sent({"reply_to": mid, "text": "Tomorrow.", "html": "<p>Tomorrow.</p>", "quote": "top"})
    below = "Ada, 2026-11-30 09:00 UTC:\n> Thanks, and the second one?\n"
    assert words(mail) == f"Tomorrow.\n\n{below}"
    assert "&gt; Thanks, and the second one?</pre>" in words(mail, "html")
    whole = words(await desk.sent({"reply_to": mid, "text": "Tomorrow.", "quote": "full"}))
    assert whole.endswith(">> It is sent.\n")


async def test_what_a_stranger_wrote_is_text_wherever_it_is_quoted(desk: Desk) -> None:
    text = "</pre></blockquote><script>x</script>\x00\x07\u2028Bcc: a@x.example\r\n-- \n.\n\u20ac"
    mid = await desk.came(octets=customers(text))
    mail = await desk.sent({"reply_to": mid, "text": "a", "html": "<body>a</body>", "quote": "full"})
    assert "<script>" not in words(mail, "html")
    assert words(mail, "html").rstrip().endswith("</body>")
    assert "\x00" not in words(mail) + words(mail, "html")
    assert all(one.startswith(("> ", ">")) for one in words(mail).split("\n")[3:] if one)
    assert mail["Bcc"] is None
    assert "\u20ac" in words(mail)


async def test_long_mail_is_quoted_up_to_a_bound(desk: Desk) -> None:
    mid = await desk.came(octets=customers("word " * 60_000))
    quoted = words(await desk.sent({"reply_to": mid, "text": "a", "quote": "full"}))
    assert len(quoted) < 70_000
    assert quoted.endswith("> […]\n")


async def test_the_outgoings_wish_is_left_out_where_it_cannot_be_had_and_an_entrys_is_refused(desk: Desk) -> None:
    support = SENDERS.identities["support"]
    quoting = replace(support, sender=replace(support.sender, quote="top"))
    desk.use(replace(senders(Enclosures()), identities={"support": quoting}))
    mid = await desk.came()
    assert "> Please see the order." in words(await desk.sent({"reply_to": mid, "text": "a"}))
    assert words(await desk.sent({"reply_to": mid, "text": "a", "quote": "none"})) == "a\n"
    assert words(await desk.sent(ENTRY)) == "Hello\n"
    for one in (desk.path / "blobs").glob("?" * 64):
        one.unlink()
    assert words(await desk.sent({"reply_to": mid, "text": "b"})) == "b\n"
    with pytest.raises(EntryRefused, match="not kept here"):
        await desk.hand_in({"reply_to": mid, "text": "a", "quote": "top"})
    with pytest.raises(EntryRefused, match="reply_to"):
        await desk.hand_in({**ENTRY, "quote": "full"})
    with pytest.raises(EntryRefused, match="none, top or full"):
        await desk.hand_in({"reply_to": mid, "text": "a", "quote": "all"})


async def test_another_departments_mail_is_quoted_to_nobody(desk: Desk) -> None:
    foreign = await desk.came("deals", uid="18")
    with pytest.raises(EntryForbidden):
        await desk.hand_in({"reply_to": foreign, "mailbox": "help", "to": "a@x.example", "text": "a", "quote": "full"})


@pytest.mark.parametrize(
    "octets", [b"", b"\x00" * 9000, b"Date: Mon, 99 Xyz\r\nFrom: <<<\r\n\r\n\xff\xfe" + b">" * 9000]
)
async def test_no_message_however_it_is_made_stops_its_answer(desk: Desk, octets: bytes) -> None:
    mid = await desk.came(octets=octets)
    assert words(await desk.sent({"reply_to": mid, "to": "a@x.example", "text": "a", "quote": "full"})).startswith(
        "a\n"
    )
