"""The recipes of the documents: each is checked as it stands there, and delivers mail by the command itself.

What is put in is where the servers are and how to log in. A consumer that is not here is played after its published
interface.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml

from scenarios.harness import Site
from servers import programs
from servers import redis as redis_server
from servers.command import mailpoller
from servers.dovecot import Dovecot
from servers.gmail import INSERT, Gmail
from servers.web import Asked, Reply, Web

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^## (.*?)$.*?^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
MAIL = (
    b"From: Ann <ann@customer.example>\r\nTo: support@example.com\r\nSubject: Printer\r\n"
    b"Message-ID: <1@customer.example>\r\nDate: Tue, 1 Dec 2026 03:00:00 +0000\r\n\r\nIt does not print.\r\n"
)
SECRET = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with Dovecot(pop3=True, lmtp=True) as started:
        yield started


def recipe(beginning: str) -> Any:
    (block,) = (block for title, block in RECIPES.items() if title.startswith(beginning))
    return yaml.safe_load(block)


def cook(tmp_path: Path, server: Dovecot, beginning: str, user: str, **queues: dict[str, Any]) -> Site:
    """A site with the recipe's mailboxes, at a server of ours, where a message lies in each, and its queues but for
    what is said here."""
    site, found = Site(tmp_path), recipe(beginning)
    site.settings.update(found)
    for number, block in enumerate(found["mailboxes"].values()):
        name = f"{user}.{number}"
        port = server.pop3_port if block["type"] == "pop3" else server.imap_port
        block.update(host="127.0.0.1", port=port, tls="none", username=name, password="secret", start="all")
        server.deliver(name, MAIL)
    for name, keys in queues.items():
        found["queues"][name].update(keys)
    said = mailpoller("check", "--config", str(site.config))
    assert said.code == 0, said
    return site


async def deliver(site: Site) -> None:
    with site.run("--once") as daemon:
        assert await asyncio.to_thread(daemon.wait) == 0, daemon.said


def basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


async def take(answer: Callable[[Asked], int], work: Callable[[Web], Any]) -> list[Asked]:
    """What a service is asked that answers so."""
    async with Web(lambda asked: Reply(answer(asked))) as web:
        await work(web)
        return web.asked


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_is_a_configuration_without_errors(tmp_path: Path, title: str) -> None:
    for name in re.findall(r"credential:([\w-]+)", RECIPES[title]):
        (tmp_path / name).write_text(SECRET)
    path = tmp_path / "mailpoller.yaml"
    own = {"service": {"state_directory": str(tmp_path)}, "ledger": {"type": "sqlite", "path": str(tmp_path / "l.db")}}
    path.write_text(yaml.safe_dump(own) + RECIPES[title])
    said = mailpoller("check", "--config", str(path), "--json", CREDENTIALS_DIRECTORY=str(tmp_path))
    assert said.code == 0, said
    words = [one["message"] for one in said.json["warnings"]]
    assert [one for one in words if "nobody is told of what cannot be processed" not in one] == []


def test_every_block_of_the_page_is_a_recipe_that_a_test_delivers_by() -> None:
    delivered = Path(__file__).read_text("utf-8")
    assert len(RECIPES) == PAGE.count("```yaml\n") >= 9
    assert [one for one in RECIPES if f'"{" ".join(one.split()[:2]).rstrip(":,")}"' not in delivered] == []


async def test_mail_of_a_pop3_server_lies_in_the_inbox_at_gmail_unread(
    tmp_path: Path, server: Dovecot, user: str
) -> None:
    with Gmail() as gmail:
        gmail.scope = f"{INSERT} https://www.googleapis.com/auth/gmail.readonly"
        place = {"user": gmail.user, "url": gmail.url, "auth": gmail.auth}
        site = cook(tmp_path, server, "Replace Gmail's", user, inbox=place)
        await deliver(site)
        await deliver(site)
        (mail,) = gmail.mails.values()
        assert gmail.violations == []
    assert mail.octets.partition(b"\r\n")[2] == MAIL
    assert mail.labels == {"INBOX", "UNREAD"}
    assert server.octets(f"{user}.0") == {}, "deleted there"


async def test_mail_is_copied_to_another_server(tmp_path: Path, server: Dovecot, user: str) -> None:
    place = {
        "host": "127.0.0.1",
        "port": server.imap_port,
        "tls": "none",
        "username": f"{user}.new",
        "password": "secret",
    }
    site = cook(tmp_path, server, "Copy mail", user, **{"new-server": place})
    await deliver(site)
    (copy,) = server.octets(f"{user}.new").values()
    assert copy.partition(b"\r\n")[2] == MAIL
    assert list(server.octets(f"{user}.0").values()) == [MAIL]


async def test_gitlab_is_fed_as_by_mail_room(tmp_path: Path, server: Dovecot, user: str) -> None:
    def answer(asked: Asked) -> int:
        try:
            token = asked.headers["gitlab-mailroom-api-request"]
            jwt.decode(token, base64.b64decode(SECRET), ["HS256"], issuer="gitlab-mailroom")
        except (KeyError, jwt.InvalidTokenError):
            return 401
        return 200

    async def work(web: Web) -> None:
        blocks = recipe("Feed GitLab")["queues"]
        queues = {
            name: {"url": block["url"].replace("https://gitlab.example.com", web.url), "token": SECRET}
            for name, block in blocks.items()
        }
        await deliver(cook(tmp_path, server, "Feed GitLab", user, **queues))

    asked = await take(answer, work)
    assert {(one.path, one.body) for one in asked} == {
        ("/api/v4/internal/mail_room/incoming_email", MAIL),
        ("/api/v4/internal/mail_room/service_desk_email", MAIL),
    }


async def test_redmine_is_fed_as_by_its_mail_handler(tmp_path: Path, server: Dovecot, user: str) -> None:
    async def work(web: Web) -> None:
        url = recipe("Feed Redmine")["queues"]["redmine"]["url"].replace("https://redmine.example.com", web.url)
        await deliver(cook(tmp_path, server, "Feed Redmine", user, redmine={"url": url, "token": "s3cret"}))

    (asked,) = await take(lambda asked: 201 if asked.form["key"] == "s3cret" else 403, work)
    assert asked.form["email"].encode() == MAIL
    assert asked.query == {"issue[project]": "support", "unknown_user": "accept", "no_permission_check": "1"}


@pytest.mark.skipif(bool(redis_server.missing), reason=redis_server.missing)
async def test_sidekiq_finds_a_job(tmp_path: Path, server: Dovecot, user: str) -> None:
    redis = pytest.importorskip("redis", reason="the extra redis is not installed")
    with redis_server.RedisServer("user mailpoller on >s3cret ~* +@all") as started:
        place = {"host": "127.0.0.1", "port": started.port, "tls": "none", "password": "s3cret"}
        await deliver(cook(tmp_path, server, "Feed Sidekiq", user, jobs=place))
        with redis.Redis(port=started.port) as client:
            job = json.loads(client.rpop("queue:mail"))
    assert (job["class"], job["args"][0]["data"]["subject"]) == ("MailJob", "Printer")


async def test_n8n_gets_the_event_at_its_webhook(tmp_path: Path, server: Dovecot, user: str) -> None:
    def answer(asked: Asked) -> int:
        if asked.path != "/webhook/support-mail":
            return 404
        return 200 if asked.headers.get("authorization") == basic("mailpoller", "s3cret") else 403

    async def work(web: Web) -> None:
        url = recipe("Feed n8n")["queues"]["n8n"]["url"].replace("https://n8n.example.com", web.url)
        await deliver(cook(tmp_path, server, "Feed n8n", user, n8n={"url": url, "password": "s3cret"}))

    (asked,) = await take(answer, work)
    event = json.loads(asked.body)
    assert event["data"]["subject"] == "Printer"
    assert event["data"]["from"]
    assert asked.headers["webhook-id"] == event["deliveryid"]


@pytest.mark.skipif(programs.found("rt-mailgate") is None, reason="there is no rt-mailgate: rt5-clients")
@pytest.mark.parametrize("works", [True, False])
async def test_request_tracker_is_fed_by_its_own_program(
    tmp_path: Path, server: Dovecot, user: str, works: bool
) -> None:
    async def answered(asked: Asked) -> Reply:
        return Reply(200, b"ok\nTicket: 1\n") if works else Reply(500, b"no database")

    async with Web(answered) as web:
        words = recipe("Feed Request")["queues"]["tracker"]["command"]
        words = [programs.find("rt-mailgate"), *words[1:-1], words[-1].replace("https://rt.example.com", web.url)]
        site = cook(tmp_path, server, "Feed Request", user, tracker={"command": words})
        with site.run("--once") as daemon:
            code = await asyncio.to_thread(daemon.wait)
    asked = web.asked[0]
    assert asked.path == "/REST/1.0/NoAuth/mail-gateway"
    assert b'name="queue"\r\n\r\nSupport\r\n' in asked.body
    assert b'name="action"\r\n\r\ncorrespond\r\n' in asked.body
    assert MAIL in asked.body
    assert (code == 0) is works
    assert bool(server.octets(f"{user}.0")) is not works, "deleted once RT has it, and not before"


async def test_zammad_is_fed_by_its_runner(tmp_path: Path, server: Dovecot, user: str) -> None:
    program = tmp_path / "zammad"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\ncat > {tmp_path}/got\n')
    program.chmod(0o755)
    words = recipe("Feed Zammad")["queues"]["zammad"]["command"]
    await deliver(cook(tmp_path, server, "Feed Zammad", user, zammad={"command": [str(program), *words[1:]]}))
    assert (tmp_path / "got").read_bytes() == MAIL
    assert (tmp_path / "words").read_text().splitlines() == ["run", "rails", "r", "Channel::Driver::MailStdin.new"]


async def test_mailman_is_fed_at_its_lmtp_port(tmp_path: Path, server: Dovecot, user: str) -> None:
    block = recipe("Feed Mailman")["queues"]["list"]
    assert (block["host"], block["port"]) == ("localhost", 8024)
    place = {"socket": str(server.directory / "lmtp"), "to": f"{user}.list@lists.example", "host": None}
    await deliver(cook(tmp_path, server, "Feed Mailman", user, list=place))
    (mail,) = server.octets(f"{user}.list@lists.example").values()
    assert mail.endswith(MAIL)
