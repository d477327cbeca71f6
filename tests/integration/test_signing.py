"""What leaves signed is what verifiers take: with the mail as the relay got it, whatever became of it on the way."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dkim
import pytest
from structlog.testing import capture_logs

from mailpoller.core.component import Runtime
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Mail, Posting, Said
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig, SmtpOutgoing
from mailpoller.outgoings.smtp.signing import author_domain
from servers.smtp import Relay

HEAD = b"From: Support <support@x.example>\r\nTo: ada@c.example\r\nSubject: order\r\nMessage-ID: <m@x.example>\r\n"
PLAIN = HEAD + b"\r\ntext  with\ttabs \r\n\r\n.\r\n..\r\n\r\n\r\n"
EIGHT = HEAD + (
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + "Grüße\r\n".encode()
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    directory = tmp_path_factory.mktemp("keys")
    ways = {
        "rsa": ["genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"],
        "old": ["genrsa", "-traditional", "2048"],
        "ed25519": ["genpkey", "-algorithm", "ed25519"],
        "small": ["genrsa", "512"],
        "curve": ["genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    }
    for name, words in ways.items():
        done = subprocess.run(["openssl", *words], capture_output=True, check=True)
        (directory / name).write_bytes(done.stdout)
    (directory / "none").write_text("no key\n")
    return {one.name: one for one in directory.iterdir()}


def key(path: Path, domain: str = "x.example") -> dict[str, str]:
    return {"domain": domain, "selector": path.name, "key": f"file:{path}"}


def config(port: int, *keys: dict[str, str]) -> SmtpConfig:
    return SmtpConfig.model_validate(
        {
            "type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "support@x.example",
            "dkim": list(keys),
        }
    )  # fmt: skip


@asynccontextmanager
async def outgoing(port: int, *keys: dict[str, str]) -> AsyncIterator[SmtpOutgoing]:
    made = config(port, *keys).build("relay", Runtime(SystemClock(), Spool(Path("unused")), Path("unused")))
    assert isinstance(made, SmtpOutgoing)
    try:
        yield made
    finally:
        await made.close()


async def sent(octets: bytes, *keys: dict[str, str], **relay: Any) -> tuple[Mapping[str, Said], list[bytes], list[str]]:
    async with Relay(**relay) as server, outgoing(server.port, *keys) as one:
        assert isinstance(one, Posting)
        said = await one.post(Mail("support@x.example", ("ada@c.example",), octets))
        stages = [stage async for stage in one.probe()]
    return said, [got.octets for got in server.received], stages[0].detail.split(" | ")


def verified(octets: bytes, records: list[str], index: int = 0) -> bool:
    found = {name + ".": text for name, _, text in (record.partition(" TXT ") for record in records)}
    checked = dkim.DKIM(octets, timeout=1)
    return bool(checked.verify(index, dnsfunc=lambda name, timeout=5: found[name.decode()].encode()))


@pytest.mark.parametrize("name", ["rsa", "old", "ed25519"])
@pytest.mark.parametrize("octets", [PLAIN, EIGHT])
async def test_what_leaves_signed_is_verified(keys: Mapping[str, Path], name: str, octets: bytes) -> None:
    _, (got,), records = await sent(octets, key(keys[name]))
    assert got.endswith(octets)
    assert verified(got, records)
    assert not verified(got.replace(b"order", b"other"), records)
    assert not verified(b"From: boss@x.example\r\n" + got, records), "a second author"


async def test_each_key_signs(keys: Mapping[str, Path]) -> None:
    _, (got,), records = await sent(PLAIN, key(keys["rsa"]), key(keys["ed25519"]))
    assert verified(got, records, 0) and verified(got, records, 1)


async def test_what_must_be_recoded_for_the_relay_is_signed_as_it_leaves(keys: Mapping[str, Path]) -> None:
    said, (got,), records = await sent(EIGHT, key(keys["rsa"]), eight_bit=False)
    assert said["ada@c.example"].state == "accepted"
    assert got.isascii() and got.count(b"DKIM-Signature:") == 1
    assert verified(got, records)


@pytest.mark.parametrize(
    ("author", "signs"),
    [
        (b"support@x.example", True),
        (b"support@mail.X.example", True),
        (b"support@other.example", False),
        (b"support@notx.example", False),
        (b"a@x.example, b@other.example", False),
    ],
)
async def test_a_key_signs_for_its_domain_alone(keys: Mapping[str, Path], author: bytes, signs: bool) -> None:
    octets = PLAIN.replace(b"Support <support@x.example>", author)
    _, (got,), _ = await sent(octets, key(keys["ed25519"]))
    assert got.startswith(b"DKIM-Signature:") is signs


@pytest.mark.parametrize("name", ["none", "small", "curve", "absent"])
async def test_a_key_that_cannot_sign_stops_the_outgoing_and_refuses_no_mail(
    keys: Mapping[str, Path], name: str
) -> None:
    path = keys["none"].parent / name
    with capture_logs() as logs, pytest.raises(TransientError, match="cannot be signed") as caught:
        await sent(PLAIN, key(path))
    assert "no key" not in str(caught.value) + str(logs)
    async with Relay() as relay, outgoing(relay.port, key(path)) as one:
        stages = [stage async for stage in one.probe()]
    assert (stages[0].name, stages[0].ok) == ("dkim", False) and "openssl" in stages[0].advice
    assert relay.received == []


async def test_a_key_that_was_replaced_signs_from_the_next_mail_on(keys: Mapping[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "mail"
    path.write_bytes(keys["rsa"].read_bytes())
    async with Relay() as relay, outgoing(relay.port, key(path)) as one:
        mail = Mail("support@x.example", ("ada@c.example",), PLAIN)
        for name in ("rsa", "ed25519"):
            path.write_bytes(keys[name].read_bytes())
            await one.post(mail)
            records = [stage.detail async for stage in one.probe()][:1]
            assert verified(relay.received[-1].octets, records), name


def test_check_says_whose_mail_is_not_signed(keys: Mapping[str, Path]) -> None:
    assert [one.key for one in config(25, key(keys["rsa"])).findings() if "signed" in one.text] == []
    found = [one.key for one in config(25, key(keys["rsa"], "other.example")).findings() if "signed" in one.text]
    assert found == ["sender"]


def test_a_header_without_one_author_has_no_domain() -> None:
    assert [author_domain(one) for one in (b"", b"\r\n\r\n", b"From: nobody\r\n\r\n", b"From: a@X.y")] == [
        "", "", "", "x.y"
    ]  # fmt: skip
