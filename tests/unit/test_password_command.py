"""A password that a program tells: bounded, never shown, kept until it is refused."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from mailpoller.config import ConfigErrors, effective, load
from mailpoller.core.errors import ConfigError, CredentialsRefused
from mailpoller.wire.password import LARGEST, Password, PasswordCommand
from servers.mailboxes import imap_source
from servers.pop3_mailboxes import pop3_source
from servers.scripted import Conversation, ScriptedImap

SECRET = "password-that-nobody-may-see"


def shell(script: str, **settings: Any) -> PasswordCommand:
    return PasswordCommand.model_validate({"command": ["/bin/sh", "-c", script], **settings})


def counting(directory: Path, *passwords: str) -> dict[str, Any]:
    """A program that notes each run, and tells these passwords one after the other, the last one for ever."""
    told = directory / "told"
    told.write_text("\n".join(passwords) + "\n")
    script = f"echo run >> {directory}/runs; head -1 {told}; [ $(wc -l < {told}) -gt 1 ] && sed -i 1d {told}; exit 0"
    return {"command": ["/bin/sh", "-c", script]}


def runs(directory: Path) -> int:
    return (directory / "runs").read_text().count("run")


def test_the_first_line_is_the_password() -> None:
    assert shell("printf 'se cret\\r\\nuser: joe\\n'").run() == "se cret"
    assert shell("printf %s ünï").run() == "ünï"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {SECRET}; echo {SECRET} >&2; exit 3", "exits with 3"),
        (f"echo {SECRET}; kill -9 $$", "was ended by signal 9"),
        ("exit 0", "writes no password"),
        (f"echo; echo {SECRET}", "writes no password"),
        ("printf '\\377\\376'", "no UTF-8"),
        (f"while :; do echo {SECRET}; done | tr -d '\\n'", f"more than {LARGEST >> 10} KiB"),
        (f"echo {SECRET}; sleep 60", "did not end within 0.3 s"),
    ],
)
def test_a_program_that_tells_none_is_an_error_that_quotes_nothing(script: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        shell(script, timeout="300ms" if "sleep" in script else "10s").run()
    assert SECRET not in repr(caught.value).replace(script, "")


def test_a_program_that_is_not_there_says_so() -> None:
    with pytest.raises(ConfigError, match="/no/such/sh cannot be started: No such file"):
        PasswordCommand(command=["/no/such/sh"]).run()


def test_what_the_program_leaves_behind_is_killed_and_nobody_waits_for_it(tmp_path: Path) -> None:
    began = time.monotonic()
    assert shell(f"(sleep 0.7; touch {tmp_path}/late) & echo secret").run() == "secret"
    assert time.monotonic() - began < 0.6
    time.sleep(0.8)
    assert not (tmp_path / "late").exists()


def test_the_program_sees_no_secret_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PASSWORD", SECRET)
    monkeypatch.setenv("GNUPGHOME", "/keys")
    assert shell("env | grep -c RELAY_PASSWORD; echo $GNUPGHOME; exit 0").run() == "0"
    assert shell("echo $GNUPGHOME").run() == "/keys"


@pytest.mark.parametrize("written", [{"command": []}, {"command": [""]}, {"command": ["x"], "timeout": "2m"}, {}])
def test_what_cannot_be_run_is_an_error_of_the_configuration(written: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PasswordCommand.model_validate(written)


async def test_it_is_kept_and_asked_again_once_when_it_is_refused_after_it_was_taken(tmp_path: Path) -> None:
    password = Password(PasswordCommand.model_validate(counting(tmp_path, "one", "two", "three")))
    assert [await password.text(), await password.text()] == ["one", "one"]
    assert not await password.refused(), "it is fresh: another run would tell the same"
    assert await password.text() == "two"
    password.accepted()
    assert await password.refused()
    assert await password.text() == "three"
    assert not await password.refused(), "once"
    assert runs(tmp_path) == 3


async def test_several_who_need_it_at_once_run_it_once(tmp_path: Path) -> None:
    password = Password(PasswordCommand.model_validate(counting(tmp_path, "one")))
    assert await asyncio.gather(*(password.text() for _ in range(5))) == ["one"] * 5
    assert runs(tmp_path) == 1


@pytest.mark.parametrize("capabilities", ["IMAP4rev1 SASL-IR AUTH=PLAIN", "IMAP4rev1"])
async def test_a_password_that_was_changed_is_fetched_anew_within_the_login_that_is_refused(
    tmp_path: Path, capabilities: str
) -> None:
    right, logins = "one", 0

    async def judge(conversation: Conversation, tag: str, arguments: str) -> bytes:
        nonlocal logins
        logins += 1
        from base64 import b64decode

        said = b64decode(arguments.split()[1]).decode() if "PLAIN" in arguments else arguments
        return b"%T OK in\r\n" if right in said else b"%T NO [AUTHENTICATIONFAILED] no\r\n"

    program = counting(tmp_path, "one", "two", "three")
    async with ScriptedImap({"AUTHENTICATE": judge, "LOGIN": judge}, capabilities=capabilities) as server:
        source = imap_source(tmp_path, server.port, "joe", password=program)
        for _ in range(2):
            await (await source.connect()).close()
        assert (runs(tmp_path), logins) == (1, 2)
        right = "two"
        await (await source.connect()).close()
        assert (runs(tmp_path), logins) == (2, 4)
        right = "nothing that it tells"
        with capture_logs() as logs, pytest.raises(CredentialsRefused) as caught:
            await source.connect()
        assert (runs(tmp_path), logins) == (3, 6), "one more try, and no more"
        assert "three" not in f"{caught.value!r}{logs}"


async def test_no_server_is_troubled_by_a_program_that_fails(tmp_path: Path) -> None:
    for make in (imap_source, pop3_source):
        connections = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConfigError, match="exits with 1"):
            await make(tmp_path, port, "joe", password={"command": ["/bin/sh", "-c", "exit 1"]}).connect()
        assert connections == 0
        server.close()


CONFIG = """
queues: {support: {type: jsonl, path: /q/s}}
mailboxes:
  support: {type: imap, host: mail.test, username: u, password: PASSWORD}
"""


def test_nothing_but_a_login_runs_it(tmp_path: Path) -> None:
    program = counting(tmp_path, "one")
    path = tmp_path / "m.yaml"
    path.write_text(CONFIG.replace("PASSWORD", str(program)))
    config = load(path)
    assert not config.missing_secrets()
    config.hold_secrets()
    assert effective(config)["mailboxes"]["support"]["password"]["command"] == program["command"]
    assert load(path).mailboxes == config.mailboxes
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("password", ["{command: sh -c x}", "{command: []}", "{commando: [x]}"])
def test_a_wrong_block_is_told_with_its_place(tmp_path: Path, password: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(CONFIG.replace("PASSWORD", password))
    with pytest.raises(ConfigErrors) as caught:
        load(path)
    assert "mailboxes.support.password" in str(caught.value)


async def test_a_login_that_hangs_in_its_program_ends(tmp_path: Path) -> None:
    source = imap_source(tmp_path, 9, "joe", password={"command": ["/bin/sh", "-c", "sleep 60"], "timeout": "200ms"})
    with pytest.raises(ConfigError, match="did not end"):
        await source.connect()
