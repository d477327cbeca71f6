"""POP3 on a real Dovecot: what the suite does not ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, TransientError
from mailpoller.core.message import RawMessage
from mailpoller.testing.builders import plain
from servers.dovecot import Dovecot
from servers.mailboxes import claims_of, fetched, listed, session_of, settled
from servers.pop3_mailboxes import pop3_source
from servers.web import Reply, Web

MECHANISMS = "plain login apop cram-md5 scram-sha-1 scram-sha-256"
EXTRA = """
protocol pop3 {
  pop3_lock_session = yes
}
"""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot(pop3=True, oauth=True, mechanisms=MECHANISMS, extra=EXTRA) as server:
        yield server


@pytest.fixture
def user() -> str:
    return f"pop{next(_numbers)}"


@pytest.mark.parametrize(
    "mechanism", ["auto", "user", "apop", "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"]
)
async def test_every_way_to_log_in_works_and_a_wrong_password_is_refused_in_the_servers_words(
    dovecot: Dovecot, user: str, tmp_path: Path, mechanism: str
) -> None:
    secured = {"tls": "starttls-required", "ca_file": str(dovecot.ca_file), "auth": {"mechanism": mechanism}}
    for settings in ({"auth": {"mechanism": mechanism}}, secured):
        async with session_of(pop3_source(tmp_path, dovecot.pop3_port, user, **settings)) as session:
            assert await listed(session, await session.open("INBOX")) is not None
    with pytest.raises(CredentialsRefused, match=r"the server refuses the login: .*[Aa]uthentication failed"):
        await pop3_source(tmp_path, dovecot.pop3_port, user, password="wrong", **secured).connect()


def by_token(web: Web, **more: Any) -> dict[str, Any]:
    auth = {
        "type": "oauth2", "grant": "client_credentials", "token_url": web.url + "/token", "client_id": "app",
        "client_secret": "client-secret-that-nobody-may-see", **more,
    }  # fmt: skip
    return {"auth": auth, "password": None}


def given(token: str) -> Reply:
    return Reply(body={"access_token": token, "token_type": "Bearer", "expires_in": 3600})


@pytest.mark.parametrize("mechanism", ["auto", "oauthbearer", "xoauth2"])
async def test_one_token_opens_the_maildrop_again_and_again(
    dovecot: Dovecot, user: str, tmp_path: Path, mechanism: str
) -> None:
    dovecot.deliver(user, plain(subject="by token"))
    async with Web(lambda asked: given(dovecot.token(user))) as web:
        source = pop3_source(tmp_path, dovecot.pop3_port, user, **by_token(web, mechanism=mechanism))
        async with session_of(source) as session:
            for _ in range(3):
                assert len((await listed(session, await session.open("INBOX")))[0]) == 1
        assert len(web.asked) == 1


@pytest.mark.parametrize("mechanism", ["oauthbearer", "xoauth2"])
async def test_token_that_the_server_refuses_is_a_matter_of_credentials_and_is_never_shown(
    dovecot: Dovecot, user: str, tmp_path: Path, mechanism: str
) -> None:
    stale = dovecot.token(user, lifetime=-10)
    async with Web(lambda asked: given(stale)) as web:
        source = pop3_source(tmp_path, dovecot.pop3_port, user, **by_token(web, mechanism=mechanism))
        with capture_logs() as logs, pytest.raises(CredentialsRefused) as caught:
            await source.connect()
        *_, stage = [stage async for stage in source.probe([])]
    assert (stage.name, stage.ok) == ("login", False)
    assert stage.advice
    assert stale not in f"{caught.value!r} {stage} {logs}"


async def test_shadow_reads_every_message_and_none_is_seen_in_another_view(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    mails = [plain(subject=f"mail {number}", text="line\r\n" * number * 100) for number in range(5)]
    dovecot.deliver_all(user, mails)
    async with session_of(pop3_source(tmp_path, dovecot.pop3_port, user, mode="shadow")) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        answers = await fetched(session, claims_of(refs))
        assert [bytes(one.octets.view()) for one in answers if isinstance(one, RawMessage)] == mails
        await session.settle(settled(refs, Disposition(delete=True)))
    assert all("\\Seen" not in flags for flags in dovecot.flags(user).values())
    assert len(dovecot.flags(user)) == 5


async def test_large_message_goes_to_a_spool_file_octet_by_octet(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    line = b"." + b"0123456789abcde\n.." * 4 + b"\r\n"
    octets = b"Subject: large\r\n\r\n" + line * (25_000_000 // len(line))
    octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    dovecot.deliver(user, octets)
    source = pop3_source(tmp_path, dovecot.pop3s_port, user, tls="tls", ca_file=str(dovecot.ca_file))
    async with session_of(source) as session:
        refs, _ = await listed(session, await session.open("INBOX"))
        (answer,) = await fetched(session, claims_of(refs))
        assert isinstance(answer, RawMessage)
        assert answer.octets.path is not None
        assert (answer.octets.size, answer.octets.digest) == (len(octets), sha256(octets).digest())
        answer.octets.close()
    assert not list((tmp_path / "spool").iterdir())


async def test_lock_of_another_session_is_passing_and_ours_is_gone_while_we_wait(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    dovecot.deliver(user, plain(subject="locked"))
    make = lambda: pop3_source(tmp_path, dovecot.pop3_port, user)  # noqa: E731
    async with session_of(make()) as session:
        await listed(session, await session.open("INBOX"))
        with pytest.raises(TransientError, match="no answer to AUTH"):  # Dovecot waits for the lock, for minutes
            await pop3_source(tmp_path, dovecot.pop3_port, user, command_timeout="300ms").connect()
        await session.wait(timedelta(milliseconds=10))
        await (await make().connect()).close()
        assert len((await listed(session, await session.open("INBOX")))[0]) == 1


async def test_two_thousand_messages_are_listed_and_fetched_and_cost_nothing_when_they_are_left(
    dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    mails = [plain(subject=f"mail {number}") for number in range(2_000)]
    dovecot.deliver_all(user, mails)
    source = pop3_source(tmp_path, dovecot.pop3_port, user)
    async with session_of(source) as session:
        refs, position = await listed(session, await session.open("INBOX"))
        answers = await fetched(session, claims_of(refs))
        assert [bytes(one.octets.view()) for one in answers if isinstance(one, RawMessage)] == mails
    async with session_of(source) as session:
        assert await listed(session, await session.open("INBOX"), position) == ([], position)


async def test_probe_tells_every_stage_and_what_the_server_lacks(dovecot: Dovecot, user: str, tmp_path: Path) -> None:
    dovecot.deliver(user, plain(subject="probe"))
    source = pop3_source(tmp_path, dovecot.pop3_port, user, tls="starttls-required", ca_file=str(dovecot.ca_file))
    stages = [stage async for stage in source.probe([Disposition(delete=True)])]
    assert [stage.name for stage in stages] == [
        "dns",
        "tcp",
        "greeting",
        "tls",
        "login",
        "folder",
        "message",
        "disposition",
    ]
    assert all(stage.ok for stage in stages)
    details = {stage.name: stage.detail for stage in stages}
    assert details["folder"] == "1 messages"
    assert "TLS" in details["tls"]
    (*_, last) = [stage async for stage in source.probe([Disposition(seen=True)])]
    assert (last.name, last.ok) == ("disposition", False)
    assert "leave" in last.advice
