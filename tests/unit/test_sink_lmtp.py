"""The queue that is a delivery agent, against one that answers as a script says: each recipient has an answer."""

# ruff: noqa: SIM117 - a server, and in it what speaks to it
from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiosmtplib.errors import SMTPResponseException
from pydantic import ValidationError
from sink_runtime import make_runtime

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Unserving
from mailpoller.mail.delivered import FIELD
from mailpoller.sinks.smtp.lmtp import LmtpQueue, LmtpQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled
from mailpoller.wire.smtp.answers import Collected
from servers.smtp import CLOSE, STALL, Scripted

A, B, C = "a@example.com", "b@example.com", "c@example.com"


@contextlib.asynccontextmanager
async def queue(server: Scripted, tmp_path: Path, *to: str, **more: object) -> AsyncIterator[LmtpQueue]:
    block = {"type": "lmtp", "host": "127.0.0.1", "port": server.port, "to": list(to or (A, B, C)), **more}
    sink = LmtpQueueConfig.model_validate(block).build("support", make_runtime(tmp_path))
    assert isinstance(sink, LmtpQueue)
    try:
        yield sink
    finally:
        await sink.close()


def asked(server: Scripted) -> list[str]:
    """The recipients of RCPT since the last call."""
    found = [line.decode().split("<")[1].rstrip(">") for line in server.lines if line.upper().startswith(b"RCPT")]
    server.lines.clear()
    return found


def answers(*codes: str) -> bytes:
    return b"".join(f"{code} as said\r\n".encode() for code in codes)


async def test_all_are_served_and_that_is_a_receipt(tmp_path: Path) -> None:
    async with Scripted({"END": answers("250 2.0.0", "250 2.0.0", "250 2.0.0")}) as server:
        async with queue(server, tmp_path) as sink:
            delivery = make_delivery()
            for repeated in (False, True):
                (answer,) = await sink.deliver([delivery])
                assert isinstance(answer, Receipt) and answer.repeated is repeated
    assert server.verbs.count("DATA") == 1
    assert server.lines[0].startswith(b"LHLO ")
    assert b"MAIL FROM:<>" in server.lines[1]
    assert not (tmp_path / "recipients").exists()


async def test_only_who_was_not_served_is_tried_again_also_after_a_restart(tmp_path: Path) -> None:
    said = answers("250-2.0.0 more\r\n250 2.0.0", "452 4.2.2", "550 5.1.1")
    async with Scripted({"END": said}) as server:
        delivery = make_delivery()
        async with queue(server, tmp_path) as sink:
            (first,) = await sink.deliver([delivery])
            assert isinstance(first, Refusal) and (first.permanent, first.blame) == (False, "queue")
            assert asked(server) == [A, B, C]
            assert isinstance(sink, Unserving) and "1 of 3" in (sink.unserved() or "")
        server.script["END"] = answers("250 2.0.0")
        async with queue(server, tmp_path) as sink:
            (second,) = await sink.deliver([delivery])
            assert isinstance(second, Receipt) and "1 of 3 recipients refused" in second.reference
            assert asked(server) == [B]
    assert list((tmp_path / "recipients").glob("*")) == []


async def test_a_cut_between_the_answers_keeps_those_that_came(tmp_path: Path) -> None:
    async with Scripted({"END": answers("250 2.0.0", "250 2.0.0")}, cut_after_end=True) as server:
        async with queue(server, tmp_path) as sink:
            delivery = make_delivery()
            (first,) = await sink.deliver([delivery])
            assert isinstance(first, Refusal) and (first.permanent, first.blame) == (False, "queue")
            assert asked(server) == [A, B, C]
            server.script["END"], server.cut_after_end = answers("250 2.0.0"), False
            (second,) = await sink.deliver([delivery])
            assert isinstance(second, Receipt)
            assert asked(server) == [C]


async def test_a_cut_in_the_midst_of_an_answer_is_no_answer(tmp_path: Path) -> None:
    async with Scripted({"END": answers("250 2.0.0") + b"250 2.0"}, cut_after_end=True) as server:
        async with queue(server, tmp_path, A, B) as sink:
            assert isinstance((await sink.deliver([make_delivery()]))[0], Refusal)
            asked(server)
            server.script["END"], server.cut_after_end = answers("250 2.0.0"), False
            assert isinstance((await sink.deliver([make_delivery()]))[0], Receipt)
            assert asked(server) == [B]


async def test_a_server_that_goes_silent_between_answers_is_waited_for_and_no_longer(tmp_path: Path) -> None:
    async with Scripted({"END": answers("250 2.0.0")}) as server:
        async with queue(server, tmp_path, A, B, timeout="100ms") as sink:
            began = time.monotonic()
            (answer,) = await sink.deliver([make_delivery()])
            assert isinstance(answer, Refusal) and answer.blame == "queue"
            assert time.monotonic() - began < 4
            asked(server)
            await sink.deliver([make_delivery()])
            assert asked(server) == [B]


@pytest.mark.parametrize("end", [CLOSE, STALL, b"nonsense\r\n", b"250-" + b"x" * 20_000 + b"\r\n"])
async def test_no_answer_at_all_is_a_server_that_is_down(tmp_path: Path, end: bytes | None) -> None:
    async with Scripted({"END": end}) as server:
        async with queue(server, tmp_path, A, B, timeout="100ms") as sink:
            with pytest.raises(TransientError):
                await sink.deliver([make_delivery()])


async def test_a_message_that_is_refused_for_all_is_refused_for_good(tmp_path: Path) -> None:
    async with Scripted({"END": answers("550 5.7.1", "554 5.6.0")}) as server:
        async with queue(server, tmp_path, A, B) as sink:
            (answer,) = await sink.deliver([make_delivery()])
    assert isinstance(answer, Refusal)
    assert answer.permanent
    assert "550" in answer.reason or "554" in answer.reason


async def test_a_message_that_the_last_one_refuses_is_held_by_the_others(tmp_path: Path) -> None:
    async with Scripted({"END": answers("250 2.0.0", "451 4.3.0")}) as server:
        async with queue(server, tmp_path, A, B) as sink:
            assert isinstance((await sink.deliver([make_delivery()]))[0], Refusal)
            server.script["END"] = answers("554 5.6.0")
            (answer,) = await sink.deliver([make_delivery()])
            assert isinstance(answer, Receipt), "who has it must not hear of it from the quarantine, too"


@pytest.mark.parametrize("code", ["552 5.2.2", "552 mailbox is full:", "452 4.2.2", "550 5.2.1"])
async def test_a_full_mailbox_refuses_no_message_for_good(tmp_path: Path, code: str) -> None:
    async with Scripted({"END": answers(code, code)}) as server:
        async with queue(server, tmp_path, A, B) as sink:
            (answer,) = await sink.deliver([make_delivery()])
            assert isinstance(answer, Refusal) and (answer.permanent, answer.blame) == (False, "queue")
            server.script["END"] = answers("250 2.0.0", code)
            (answer,) = await sink.deliver([make_delivery()])
            assert isinstance(answer, Refusal) and (answer.permanent, answer.blame) == (False, "queue")


@pytest.mark.parametrize("stage, answer", [("RCPT", b"550 5.1.1 unknown\r\n"), ("MAIL", b"550 5.7.1 no\r\n"),
                                           ("RCPT", b"451 4.3.0 later\r\n"), ("LHLO", b"500 what\r\n")])  # fmt: skip
async def test_who_refuses_our_addresses_is_a_queue_that_is_down(tmp_path: Path, stage: str, answer: bytes) -> None:
    async with Scripted({stage: answer}) as server:
        async with queue(server, tmp_path) as sink:
            for call in (sink.deliver([make_delivery()]), sink.check()):
                with pytest.raises(TransientError) as error:
                    await call
                assert "null_sender" not in str(error.value) + error.value.advice


async def test_the_envelope_sender_may_be_given(tmp_path: Path) -> None:
    async with Scripted({"END": answers("250 2.0.0")}) as server:
        async with queue(server, tmp_path, A, sender="bounces@example.com") as sink:
            await sink.deliver([make_delivery()])
    assert b"MAIL FROM:<bounces@example.com>" in server.lines[1]


@pytest.mark.parametrize("lone_lf", [False, True])
async def test_the_message_is_below_one_field_of_ours_bit_for_bit(tmp_path: Path, lone_lf: bool) -> None:
    octets = b"Subject: x\r\n\r\n.\r\n..\r\n\0\xff" + bytes(range(128, 256)) + b"\r\nFrom \r\n" * 20_000
    given = octets.replace(b"\r\n", b"\n") if lone_lf else octets
    async with Scripted({"END": answers("250 2.0.0")}, extensions=("8BITMIME", "SIZE 9000000")) as server:
        async with queue(server, tmp_path, A) as sink:
            for delivery in (make_delivery(1, given), make_delivery(2, spooled(given, tmp_path))):
                assert isinstance((await sink.deliver([delivery]))[0], Receipt)
                got = server.mails[-1].replace(b"\r\n..", b"\r\n.").removesuffix(b".\r\n")
                assert got == f"{FIELD}: {delivery.delivery_id}\r\n".encode() + octets
    assert any(b"BODY=8BITMIME" in line and b"SIZE=" in line for line in server.lines)


async def test_nothing_in_a_message_ends_it(tmp_path: Path) -> None:
    octets = HOSTILE + b"\n.\r\nMAIL FROM:<x@x>\r\n\n.\nRSET\n"
    async with Scripted({"END": answers("250 2.0.0")}) as server:
        async with queue(server, tmp_path, A) as sink:
            assert isinstance((await sink.deliver([make_delivery(1, octets)]))[0], Receipt)
    assert server.verbs.count("MAIL") == 1
    assert b"\n.\r\n" not in server.mails[0][:-5] and b"\n.\n" not in server.mails[0]


@pytest.mark.parametrize("extensions, words", [(("SIZE 20",), "20"), (("SIZE",), "8-bit")])
async def test_what_the_server_cannot_carry_is_refused_before_it_is_sent(
    tmp_path: Path, extensions: tuple[str, ...], words: str
) -> None:
    async with Scripted(extensions=extensions) as server:
        async with queue(server, tmp_path, A) as sink:
            (answer,) = await sink.deliver([make_delivery(1, "Subject: é\r\n\r\n".encode(), reason="poison")])
    assert isinstance(answer, Refusal)
    assert answer.permanent and words in answer.reason
    assert "DATA" not in server.verbs


async def test_a_unix_socket_is_a_server(tmp_path: Path) -> None:
    server = Scripted({"END": answers("250 2.0.0")})
    place = tmp_path / "lmtp"
    block = {"type": "lmtp", "socket": place, "to": A, "timeout": "2s"}
    sink = LmtpQueueConfig.model_validate(block).build("support", make_runtime(tmp_path))
    with pytest.raises(TransientError, match="lmtp"):
        await sink.check()
    async with await asyncio.start_unix_server(server.converse, place, limit=1 << 20):
        await sink.check()
        assert isinstance((await sink.deliver([make_delivery()]))[0], Receipt)
        await sink.close()
    assert any(line in (b"LHLO localhost",) or line.startswith(b"LHLO ") for line in server.lines)


@pytest.mark.parametrize("wrong", [
    {}, {"host": "x", "socket": "/x"}, {"socket": "x"}, {"socket": "/x", "tls": "tls"}, {"host": "x", "to": []},
])  # fmt: skip
def test_a_block_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LmtpQueueConfig.model_validate({"type": "lmtp", "to": A, **wrong})


def test_to_another_machine_mail_goes_encrypted_unless_it_is_said() -> None:
    def made(**more: object) -> LmtpQueueConfig:
        return LmtpQueueConfig.model_validate({"type": "lmtp", "to": A, **more})

    assert made(host="mail.example.com").server().tls == "starttls-required"
    assert [made(host=one).server().tls for one in ("localhost", "127.0.0.1", "::1")] == ["none"] * 3
    assert made(socket="/run/lmtp").server().tls == "none"
    assert [one.key for one in made(host="mail.example.com", tls="none").findings()] == ["tls"]
    assert list(made(host="localhost").findings()) == []


async def test_answers_are_told_apart_however_the_network_cuts_them() -> None:
    loop = asyncio.get_running_loop()
    said = b"250-2.1.5 one\r\n250 two\r\n452 4.2.2 full\n550\r\n250 nobody's\r\n"
    for step in (1, 2, 3, 7, len(said)):
        collected = Collected(3, loop.create_future())
        for start in range(0, len(said), step):
            collected.received(said[start : start + step])
        assert (await collected.all_of_them()).code == 550
        assert [(one.code, one.message) for one in collected.answers] == [
            (250, "2.1.5 one\ntwo"), (452, "4.2.2 full"), (550, ""),
        ]  # fmt: skip


@pytest.mark.parametrize("said", [b"250-" + b"x" * 9000, b"250-more\r\n" * 5000, b"nonsense\r\n"])
async def test_an_answer_without_end_or_sense_is_believed_no_longer(said: bytes) -> None:
    collected = Collected(2, asyncio.get_running_loop().create_future())
    collected.received(b"250 2.0.0 one\r\n" + said)
    with pytest.raises(SMTPResponseException):
        await asyncio.wait_for(collected.all_of_them(), 1)
    assert len(collected.answers) == 1


async def test_a_message_that_is_too_large_is_not_sent_twice(tmp_path: Path) -> None:
    """What quarantine mail does, which goes as a note with the header where all of it does not pass."""
    async with Scripted({"END": answers("552 5.3.4")}) as server:
        async with queue(server, tmp_path, A) as sink:
            (answer,) = await sink.deliver([make_delivery(reason="poison")])
    assert isinstance(answer, Refusal) and answer.permanent
    assert server.verbs.count("DATA") == 1


async def test_several_messages_share_a_connection(tmp_path: Path) -> None:
    async with Scripted({"END": answers("250 2.0.0", "250 2.0.0")}) as server:
        async with queue(server, tmp_path, A, B, connections=1) as sink:
            batch: list[Delivery] = [make_delivery(uid) for uid in range(20)]
            assert all(isinstance(one, Receipt) for one in await sink.deliver(batch))
    assert server.connections == 1
