"""Addresses of a mailbox that are answered from in a way of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_rig import Rig
from test_outbox import ENTRY, SENDERS, Site

from mailpoller.assembly.senders import senders_of
from mailpoller.config import load
from mailpoller.config.problems import ConfigErrors
from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.enclosures import Enclosures
from mailpoller.core.errors import EntryPutOff, EntryRefused
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.core.ports import Traits
from mailpoller.core.reply_charset import PRESETS
from mailpoller.engine.senders import Alias, Answering, Senders
from mailpoller.mail.understand.arrival import Arrival
from mailpoller.testing.builders import plain

TEXT = """\
queues: {q: {type: maildir, path: /var/q}}
outgoing:
  shop: {type: smtp, host: relay.example.com, sender: shop@example.com, default: true}
  vip: {type: smtp, host: relay.example.com, sender: vip@example.com}
  off: {type: smtp, host: relay.example.com, sender: vip@example.com, enabled: false}
intakes: {desk: {type: socket, departments: [sales]}, other: {type: socket, departments: [root]}}
mailboxes:
  shop: {type: imap, host: h.example.com, username: u, password: p, default_queue: q, departments: [sales],
    default_for: [sales], charset: japanese, address: [shop@example.com, plain@example.com, SAID]}
  root: {type: imap, host: h.example.com, username: v, password: p, default_queue: q}
"""
SAID = "{address: VIP@example.com, outgoing: vip, charset: {default: koi8-r}}, {address: fr@x.example, outgoing: vip}"


def senders(tmp_path: Path, said: str = SAID) -> Senders:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(TEXT.replace("SAID", said))
    return senders_of(load(file))


@pytest.mark.parametrize(
    ("address", "identity", "charset"),
    [
        ("", "shop", "iso-2022-jp"),
        ("plain@example.com", "shop", "iso-2022-jp"),
        ("vip@example.com", "vip", "koi8-r"),
        ("VIP@EXAMPLE.COM", "vip", "koi8-r"),
        ("fr@x.example", "vip", "iso-2022-jp"),
        ("stranger@x.example", "shop", "iso-2022-jp"),
    ],
)
def test_each_address_is_answered_from_in_its_own_way(
    tmp_path: Path, address: str, identity: str, charset: str
) -> None:
    found = senders(tmp_path)
    one = found.chosen(found.intakes["desk"], identity="", department="", mailbox="shop", delivered_to=address)
    assert one.name == identity
    chosen = found.charset(identity, "shop", address)
    assert chosen is not None and chosen.default == charset


def test_an_addresss_outgoing_is_held_by_the_departments_of_its_mailbox_alone(tmp_path: Path) -> None:
    found = senders(tmp_path)
    assert found.chosen(found.intakes["desk"], identity="vip", department="", mailbox="").name == "vip"
    assert found.defaults["sales"] == "shop"
    with pytest.raises(EntryRefused):
        found.chosen(found.intakes["other"], identity="vip", department="", mailbox="")
    chosen = found.charset("vip", "")
    assert chosen is not None and chosen.default == "koi8-r"


@pytest.mark.parametrize("outgoing", ["nobody", "off"])
def test_an_outgoing_of_an_address_that_cannot_send_is_an_error(tmp_path: Path, outgoing: str) -> None:
    with pytest.raises(ConfigErrors, match=outgoing):
        senders(tmp_path, f"{{address: vip@example.com, outgoing: {outgoing}}}")


def test_an_address_with_keys_is_one_of_the_mailboxs_own(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(TEXT.replace("SAID", SAID))
    own = load(file).mailboxes["shop"].own_addresses()
    assert list(own) == ["shop@example.com", "plain@example.com", "VIP@example.com", "fr@x.example"]


# --- a reply ---------------------------------------------------------------------------------------------------------
def with_alias(**more: Any) -> Senders:
    vip = replace(SENDERS.identities["support"], name="sales")
    help_ = Answering("support", ("root",), None, by_address={"vip@x.example": Alias("sales", PRESETS["japanese"])})
    mailboxes = {**SENDERS.mailboxes, "help": replace(help_, **more)}
    mailboxes["once"] = mailboxes["help"]
    return replace(SENDERS, identities={**SENDERS.identities, "sales": vip}, mailboxes=mailboxes)


async def settled(site: Site, delivered_to: str, mailbox: str = "help") -> str:
    claim = await claimed(site, mailbox)
    outcome = Outcome(
        claim, "delivered", LEAVE, {"q": "1"}, sender="ada@c.example", message_id="<1@c.example>",
        delivered_to=delivered_to,
    )  # fmt: skip
    await site.ledger.settle([outcome])
    return claim.mid


async def claimed(site: Site, mailbox: str = "help") -> Claim:
    ref = MessageRef(Folder(mailbox, "INBOX", "1"), "17", 1000)
    await site.ledger.open_folder(ref.folder, Account("imap", "imap.example.com", "u"))
    (claim,) = await site.ledger.claim([ref])
    assert isinstance(claim, Claim)
    return claim


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize(("delivered_to", "identity"), [("VIP@x.example", "sales"), ("", "support")])
@pytest.mark.parametrize("more", [{}, {"mailbox": "once"}])
async def test_a_reply_leaves_by_that_of_the_address_that_the_mail_came_to(
    site: Site, delivered_to: str, identity: str, more: dict[str, str]
) -> None:
    site.use(with_alias())
    mid = await settled(site, delivered_to)
    answer = await site.hand_in({**ENTRY, "reply_to": mid, "text": "\u6ce8", **more})
    mail = await site.mail(answer["id"])
    assert mail.identity == identity
    assert (b"charset=iso-2022-jp" in site.files.read(mail.digest)) is (identity == "sales")


async def test_until_the_address_is_known_nobody_answers_in_another_ones_name(site: Site) -> None:
    site.use(with_alias())
    claim = await claimed(site)
    # One queue has it, another one is down: who sent it is known.
    await site.ledger.defer(
        [claim],
        until=site.clock.now(),
        reason="down",
        queue="q",
        receipts={"r": "1"},
        traits=[Traits(sender="ada@c.example")],
    )
    with pytest.raises(EntryPutOff, match="not settled"):
        await site.hand_in({**ENTRY, "reply_to": claim.mid})
    site.use(SENDERS)
    await site.hand_in({**ENTRY, "reply_to": claim.mid})


async def test_who_answers_for_another_mailbox_does_not_get_the_address_of_the_first(site: Site) -> None:
    senders = with_alias()
    plain_one = Answering("support", ("root",), by_address={"vip@x.example": Alias("sales")})
    site.use(replace(senders, mailboxes={**senders.mailboxes, "second": plain_one}))
    mid = await settled(site, "vip@x.example")
    answer = await site.hand_in({**ENTRY, "reply_to": mid, "mailbox": "second"})
    assert (await site.mail(answer["id"])).identity == "support"


async def test_an_addresss_outgoing_is_its_mailboxs_own_for_attachments_too(site: Site) -> None:
    site.use(with_alias(enclosures=Enclosures()))
    mid = await settled(site, "vip@x.example")
    await site.hand_in({**ENTRY, "reply_to": mid, "attachments": [{"base64": "QQ=="}]})


# --- the engine ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "noted"),
    [
        (["help@x.example", {"address": "vip@x.example", "outgoing": "vip"}], "vip@x.example"),
        (["help@x.example", "vip@x.example"], ""),
    ],
)
async def test_the_ledger_is_told_the_address_only_where_an_answer_depends_on_it(address: Any, noted: str) -> None:
    arrived = Arrival(["help@x.example", "vip@x.example"])
    rig = Rig(address=address, arrival=arrived)
    rig.mailbox.deliver(plain(to="vip@x.example"))
    await rig.carry()
    (story,) = await rig.ledger.trace("1", limit=5)
    assert (story.outcome, story.delivered_to) == ("delivered", noted)
