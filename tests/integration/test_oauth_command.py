"""The whole command with tokens: mail arrives, two mailboxes share one token, and no secret is written anywhere but
where it belongs."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from servers.dovecot import Dovecot
from servers.web import Asked, Reply, Web

SECRET = "client-secret-that-nobody-may-see"
REFRESH = "refresh-token-that-nobody-may-see"
MAIL = b"From: a@example.com\r\nSubject: hello\r\n\r\nbody\r\n"


async def command(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mailpoller", *words,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "MAILPOLLER_DEBUG": "1", "NO_COLOR": "1"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return process.returncode or 0, said.decode()


def configured(directory: Path, dovecot: Dovecot, web: Web, users: list[str], **more: Any) -> Path:
    auth = {
        "type": "oauth2", "grant": "client_credentials", "token_url": web.url, "client_id": "app",
        "client_secret": SECRET,
        **more,
    }  # fmt: skip
    mailbox = {"type": "imap", "host": "127.0.0.1", "port": dovecot.imap_port, "tls": "none", "default_queue": "q"}
    config = {
        "service": {"state_directory": str(directory / "state"), "control_socket": str(directory / "control")},
        "queues": {"q": {"type": "jsonl", "path": str(directory / "q.jsonl")}},
        "mailboxes": {
            f"box{number}": {**mailbox, "username": user, "start": "all", "auth": dict(auth)}
            for number, user in enumerate(users)
        },
    }  # fmt: skip
    path = directory / "mailpoller.yaml"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded() -> Any:
    with Dovecot(oauth=True) as server:
        yield server


async def test_mail_arrives_by_a_token_that_is_shared_and_rotates_and_is_never_shown(
    guarded: Dovecot, user: str, tmp_path: Path
) -> None:
    users = [user, f"{user}-too"]
    for one in users:
        guarded.deliver(one, MAIL)
    given: list[str] = []

    def answer(asked: Asked) -> Reply:
        # A token for one user opens one mailbox at Dovecot, so each mailbox has an owner, and each owner a refresh
        # token.
        owner = users[int(asked.form["refresh_token"][-1])]
        given.append(guarded.token(owner))
        rotated = f"{REFRESH}-{len(given)}-{asked.form['refresh_token'][-1]}"
        return Reply(
            body={"access_token": given[-1], "token_type": "bearer", "expires_in": "3600", "refresh_token": rotated}
        )

    async with Web(answer) as web:
        more = {"grant": "refresh_token", "client_secret": None}
        path = configured(tmp_path, guarded, web, users, **more)
        config = yaml.safe_load(path.read_text())
        for number in range(2):
            config["mailboxes"][f"box{number}"]["auth"]["refresh_token"] = f"{REFRESH}-{number}"
        path.write_text(yaml.safe_dump(config))
        before = path.read_bytes(), path.stat().st_mtime_ns
        code, said = await command("run", "--once", "--config", str(path), "--log-level", "debug")
        assert code == 0, said
        assert (tmp_path / "q.jsonl").read_text().count("\n") == 2
        assert len(given) == 2
        code, again = await command("run", "--once", "--config", str(path), "--log-level", "debug")
        assert code == 0, again
        assert {asked.form["refresh_token"] for asked in web.asked[2:]} == {f"{REFRESH}-{n}-{box}" for n,
        box in enumerate(
            (asked.form["refresh_token"][-1] for asked in web.asked[:2]), 1
        )}  # fmt: skip
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before, "a token is state, and no configuration"
        shown = said + again + (await command("config", "--config", str(path)))[1]
        shown += (await command("check", "--live", "--config", str(path)))[1]
    for hidden in (REFRESH, *given):
        assert hidden not in shown
    written = [one for one in (tmp_path / "state").rglob("*") if one.is_file() and REFRESH.encode() in one.read_bytes()]
    assert {one.parent.name for one in written} == {"tokens"}
    assert {oct(one.stat().st_mode & 0o777) for one in written} == {"0o600"}


async def test_a_refused_application_waits_with_advice_and_costs_the_others_nothing(
    guarded: Dovecot, user: str, tmp_path: Path
) -> None:
    guarded.deliver(user, MAIL)

    def answer(asked: Asked) -> Reply:
        words = f"AADSTS7000222: The provided client secret keys for app 'app' are expired. {asked.body.decode()}"
        return Reply(401, {"error": "invalid_client", "error_description": words})

    async with Web(answer) as web:
        path = configured(tmp_path, guarded, web, [f"{user}-refused"])
        config = yaml.safe_load(path.read_text())
        plain = {**config["mailboxes"]["box0"], "username": user, "password": guarded.password}
        plain.pop("auth")
        config["mailboxes"]["plain"] = plain
        path.write_text(yaml.safe_dump(config))
        code, said = await command("run", "--once", "--config", str(path))
    assert code == 75, said
    assert (tmp_path / "q.jsonl").read_text().count("\n") == 1
    assert "AADSTS7000222" in said and "create a new one" in said
    assert SECRET not in said
