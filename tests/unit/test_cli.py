"""The command line without a server: exit codes, help, what a terminal and a pipe are shown."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mailpoller.cli import exits
from mailpoller.cli.exits import complain
from mailpoller.cli.output import one_line, print_json
from mailpoller.cli.program import program, program_for
from mailpoller.cli.reference import reference
from mailpoller.cli.terminal import GATHERED, Lines, Terminal, Unfailing
from mailpoller.config import load
from mailpoller.core.errors import ConfigError, LedgerUnavailable, MailpollerError, MessageGone, TransientError
from servers.command import PROGRAM, afresh, environment, mailpoller, on_a_terminal

PASSWORD = "hunter2-never-shown"
VERBS = [
    "run", "check", "reload", "explain", "test", "config", "schema", "channels", "health",
    "changes", "pause", "resume", "status", "errors", "messages", "trace", "reconcile", "backfill", "poll",
    "redeliver", "accept", "forget", "erase", "demo", "quarantine", "quarantine list", "quarantine show",
    "quarantine export", "quarantine release", "quarantine retry", "quarantine discard",
    "queue", "queue list", "queue show", "queue take", "queue ack",
    "queue peek", "queue return", "queue adopt", "queue create", "oauth", "oauth login", "conversation",
    "conversation mint",
    "send", "outbox", "outbox list", "outbox show", "outbox retry", "outbox accept", "outbox cancel",
    "outbox intake",
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two mailboxes, one of which is disabled, two queues and a rule; nothing of it exists."""
    settings = {
        "service": {"state_directory": str(tmp_path / "state"), "control_socket": str(tmp_path / "control.sock")},
        "ledger": {"type": "sqlite", "path": str(tmp_path / "ledger.db")},
        "queues": {
            "support": {"type": "sqlite", "path": str(tmp_path / "support.db")},
            "lines": {"type": "jsonl", "path": str(tmp_path / "lines.jsonl")},
        },
        "rules": [{"name": "invoices", "when": {"subject": {"contains": ["invoice"]}}, "then": {"topic": "billing"}}],
        "mailboxes": {
            "support": {
                "type": "imap", "host": "imap.example.com", "username": "support", "password": PASSWORD,
                "default_queue": "support", "rules": ["invoices"],
            },
            "idle": {
                "type": "imap", "host": "imap.example.com", "username": "idle", "password": PASSWORD,
                "default_queue": "support", "enabled": False,
            },
        },
    }  # fmt: skip
    path = tmp_path / "mailpoller.yaml"
    path.write_text(yaml.safe_dump(settings))
    path.chmod(0o600)
    return path


Here = Callable[[list[str]], tuple[int, str]]


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Run a verb in this process, up to its help or its refusal: exit code and what it said on both streams."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(words: list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mailpoller", *words])
        code = exits.exit_code(program_for(words))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


# --- exit codes ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["run", "--nonsense"],
        ["queue"],
        ["trace"],
        ["queue", "take", "support", "--count", "0"],
        ["queue", "take", "support", "--for", "5"],
        ["accept", "support"],
        ["accept", "support", "--baseline", "--replay"],
        ["accept", "support", "--absence", "--replay"],
        ["run", "--json"],
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_wrong_command_line_ends_with_64_and_no_traceback(words: list[str], here: Here) -> None:
    code, said = here(words)
    assert code == 64
    assert said
    assert "Traceback" not in said


def test_help_is_what_nothing_prints(here: Here) -> None:
    _, said = here([])
    assert said.startswith("Usage: mailpoller")
    assert "redeliver" in said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no"), 78),
        (MessageGone("no"), 66),
        (TransientError("no"), 75),
        (LedgerUnavailable("no"), 75),
        (MailpollerError("no"), 65),
        (ExceptionGroup("tasks", [ExceptionGroup("more", [ConfigError("no")])]), 78),
        (typer.Exit(69), 69),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (RuntimeError(PASSWORD), 70),
        (ExceptionGroup("tasks", [ConfigError("no"), RuntimeError(PASSWORD)]), 70),
    ],
    ids=repr,
)
def test_every_error_has_its_exit_code_and_one_line(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> object:
        try:
            with exits.explained():
                raise error
        except typer.Exit as ended:  # as typer does it
            return ended.exit_code

    assert exits.exit_code(fail) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (0 if isinstance(error, (typer.Exit, typer.Abort, KeyboardInterrupt)) else 1)
    assert not any(PASSWORD in line for line in lines)


def test_bug_names_its_place_and_shows_its_traceback_only_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> object:
        raise ZeroDivisionError

    assert exits.exit_code(fail) == 70
    assert "ZeroDivisionError at test_cli.py:" in capsys.readouterr().err
    monkeypatch.setenv("MAILPOLLER_DEBUG", "1")
    assert exits.exit_code(fail) == 70
    assert "Traceback" in capsys.readouterr().err


def test_reader_of_a_pipe_that_has_seen_enough_is_no_error() -> None:
    process = subprocess.Popen([*PROGRAM, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(120) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


# --- help ------------------------------------------------------------------------------------------------------------
def test_help_of_every_verb_says_what_it_does_within_the_terminal_s_width(here: Here) -> None:
    from typer.main import get_command

    command = get_command(program)
    known = []
    for name, verb in command.commands.items():  # type: ignore[attr-defined]
        known.append(name)
        known += [f"{name} {inner}" for inner in getattr(verb, "commands", {})]
    assert sorted(known) == sorted(VERBS)
    _, overview = here(["--help"])
    assert "..." not in overview.split("Commands:")[1], "a verb's first sentence is cut short in the overview"


def shape(command: Any) -> tuple[Any, ...]:
    """What a verb takes, with all that it holds."""
    taken = [(one.name, one.opts, one.required, one.default) for one in command.params]
    return command.name, command.help, taken, [shape(one) for one in getattr(command, "commands", {}).values()]


@pytest.mark.parametrize("verb", VERBS)
def test_verb_is_the_same_alone_as_among_all_of_them(verb: str) -> None:
    from typer.main import get_command

    name, *rest = verb.split()
    alone: Any = get_command(program_for([name, *rest]))
    among: Any = get_command(program)
    assert list(alone.commands) == [name], "the others were made too"
    assert shape(alone.commands[name]) == shape(among.commands[name])
    assert shape(alone)[:3] == shape(among)[:3]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["runn"], ["--version", "run"]])
def test_what_begins_with_no_verb_is_told_of_all_of_them(arguments: list[str]) -> None:
    assert program_for(arguments) is program


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_usage_and_no_markup(verb: str, here: Here) -> None:
    code, said = here([*verb.split(), "--help"])
    assert code == 0
    assert said.startswith(f"Usage: mailpoller {verb}")
    assert not any(mark in said for mark in ("``", ":class:", "\x1b", "\b"))


def test_examples_in_the_help_are_commands_that_exist() -> None:
    from typer.main import get_command

    examples = re.findall(r"^\s+(?:.*\| (?:xargs -r )?)?mailpoller (\S.*)$", _all_help(), re.MULTILINE)
    assert len(examples) > 20
    whole = get_command(program)
    for example in examples:
        words = shlex.split(re.split(r"\s{2,}| \| | > |\$\(", example)[0])
        command: Any = whole
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), example
        options = {name for option in command.params for name in option.opts}
        assert {word for word in words if word.startswith("--")} <= options, example


def _all_help() -> str:
    from typer.main import get_command

    commands: Any = get_command(program).commands  # type: ignore[attr-defined]
    return "\n".join(verb.help for one in commands.values() for verb in (one, *getattr(one, "commands", {}).values()))


def test_page_of_the_command_line_is_what_the_program_says() -> None:
    """Stale? ``python -m mailpoller.cli.reference > docs/cli.md``."""
    page = Path(__file__).parents[2] / "docs" / "cli.md"
    assert page.read_text("utf-8") == reference()


def test_every_option_of_every_verb_is_explained() -> None:
    assert not re.findall(r"^\| `[^|]*` \| (?:None)? *\|$", reference(), re.MULTILINE)


def test_help_is_there_at_once_and_loads_nothing_heavy() -> None:
    probe = (
        "import atexit, sys; from mailpoller.cli import main\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "main()"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", probe, "--help"], capture_output=True, text=True, check=True)
    after = os.times()
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    assert worked < 2.0  # half a second on an idle machine
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert loaded & {"aioimaplib", "aiosmtplib", "pydantic", "yaml", "structlog", "rich", "orjson", "sqlite3"} == set()


# --- names that are not there
# ------------------------------------------------------------------------------------------
def test_mailbox_that_is_not_there_is_answered_with_the_closest_one(config: Path) -> None:
    for words in (["run"], ["run", "--once"], ["run", "--dry-run"], ["check", "--live"], ["explain", os.devnull]):
        said = mailpoller(*words, "--config", str(config), "--mailbox", "suport")
        assert (said.code, said.err) == (64, 'mailpoller: there is no mailbox suport; did you mean "support"?\n')


def test_mailbox_that_is_not_polled_is_not_run(config: Path) -> None:
    said = mailpoller("run", "--config", str(config), "--mailbox", "idle")
    assert said.code == 64
    assert "it is disabled" in said.err


def test_queue_that_is_not_there_is_answered_with_the_closest_one(config: Path) -> None:
    said = mailpoller("queue", "list", "suport", "--config", str(config))
    assert (said.code, said.err) == (64, 'mailpoller: there is no queue suport; did you mean "support"?\n')
    said = mailpoller("queue", "list", "lines", "--config", str(config))
    assert said.code == 64
    assert "of type jsonl" in said.err
    said = mailpoller("queue", "list", "support", "--config", str(config))
    assert said.code == 66
    assert "its first message makes it" in said.err


def test_verbs_without_daemon_and_ledger_say_so_in_one_line_and_make_neither(config: Path) -> None:
    for words in (
        ["errors"], ["errors", "--clear"], ["trace", "x"], ["redeliver", "x"], ["accept", "support", "--baseline"],
        ["forget", "former", "--yes"], ["poll", "support"],
    ):  # fmt: skip
        said = mailpoller(*words, "--config", str(config))
        assert said.code == 75, words
        assert said.err.count("\n") == 1
        assert "there is no ledger, yet or any more" in said.err or "no daemon answers" in said.err
    said = mailpoller("status", "--config", str(config), "--json")
    assert said.code == 75
    assert said.json["mailboxes"] == []
    assert (said.json["ok"], said.json["level"]) == (False, "critical")
    said = mailpoller("health", "--config", str(config))
    assert (said.code, said.err) == (2, "")
    assert re.fullmatch(r"CRITICAL: service: no daemon answers on [^\n]+\n", said.out)
    said = mailpoller("health", "--config", str(config), "--json")
    assert (said.code, said.json["ok"], said.json["level"]) == (2, False, "critical")
    assert [path.name for path in config.parent.iterdir()] == ["mailpoller.yaml"]


def test_health_is_unknown_and_in_one_line_where_the_configuration_cannot_be_used(config: Path) -> None:
    config.write_text("mailboxes: [\n", "utf-8")
    for path in (config, config.parent / "missing.yaml"):
        said = mailpoller("health", "--config", str(path))
        assert (said.code, said.out.count("\n"), said.err) == (3, 1, "")
        assert said.out.startswith("UNKNOWN: ")
        said = mailpoller("health", "--json", "--config", str(path))
        assert (said.code, said.json["ok"], said.json["level"]) == (3, False, "unknown")


def test_a_daemon_that_does_not_answer_or_talks_nonsense_is_not_healthy(config: Path) -> None:
    where = Path(yaml.safe_load(config.read_text("utf-8"))["service"]["control_socket"])

    class Nonsense(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b'{"ok": true, "pid": 1, "mailboxes": [{}]}\n')

    with socketserver.UnixStreamServer(str(where), Nonsense) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        said = mailpoller("health", "--config", str(config))
    assert (said.code, said.out[:8]) == (3, "UNKNOWN:")


def test_forget_asks_nobody_when_nobody_is_there(config: Path) -> None:
    said = mailpoller("forget", "former", "--config", str(config))
    assert said.code == 64
    assert "say --yes" in said.err
    said = mailpoller("forget", "support", "--yes", "--config", str(config))
    assert said.code == 64
    assert "still configured" in said.err


# --- configuration
# -----------------------------------------------------------------------------------------------------
def test_no_verb_shows_a_secret(config: Path) -> None:
    for words in (["config"], ["config", "--json"], ["check"], ["check", "--json"], ["status"]):
        said = mailpoller(*words, "--config", str(config), MAILPOLLER_DEBUG="1")
        assert PASSWORD not in said.out + said.err
    assert mailpoller("config", "--config", str(config), "--json").json["mailboxes"]["support"]["password"]


def test_effective_configuration_is_one_that_loads_and_means_the_same(config: Path, tmp_path: Path) -> None:
    shown = mailpoller("config", "--config", str(config)).out
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    again.chmod(0o600)
    assert mailpoller("config", "--config", str(again)).out == shown


def test_schema_is_a_json_schema() -> None:
    schema = mailpoller("schema").json
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "mailboxes" in schema["properties"]


def test_wrong_configuration_is_78_with_file_and_line_for_every_verb_that_reads_it(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("queues:\n  support:\n    type: sqlite\n    pth: /x\nmailboxes: {}\n")
    for words in (["run"], ["run", "--dry-run"], ["check"], ["status"], ["config"], ["trace", "x"], ["poll", "x"]):
        said = mailpoller(*words, "--config", str(wrong))
        assert said.code == 78
        assert f"{wrong}:4:5: queues.support.pth: " in said.err
    said = mailpoller("check", str(wrong), "--json")
    assert said.code == 78
    assert [problem["line"] for problem in said.json["problems"] if problem["path"] == "queues.support.pth"] == [4]


def test_config_comes_from_the_environment_if_no_option_says_it(config: Path) -> None:
    assert mailpoller("check", MAILPOLLER_CONFIG=str(config)).code == 0
    assert mailpoller("check").code == 78  # there is none in the system's place


def test_secret_that_cannot_be_read_is_a_warning_with_its_line_and_keeps_nobody_else_down(config: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["mailboxes"]["support"]["password"] = "env:MAILPOLLER_TEST_NO_SUCH_VARIABLE"
    settings["mailboxes"]["idle"]["password"] = "credential:idle"
    config.write_text(yaml.safe_dump(settings))
    said = mailpoller("check", "--config", str(config))
    assert said.code == 0
    assert "warning: " in said.err
    assert f"{config}:" in said.err and "mailboxes.support.password" in said.err
    for words in (["run", "--once"], ["run", "--dry-run"]):
        said = mailpoller(*words, "--log-format", "json", "--config", str(config))
        assert said.code == 75
        lines = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
        told = [line for line in lines if "MAILPOLLER_TEST_NO_SUCH_VARIABLE" in line.get("reason", "")]
        assert [line["mailbox"] for line in told if line["event"] == "mailbox.failed"] == ["support"]


def test_missing_extra_is_named_with_the_line_and_what_pip_installs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("httpcore", "python_socks", "jwt"):
        monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "mailpoller.yaml"
    oauth = {"type": "oauth2", "provider": "microsoft", "tenant": "x", "client_id": "y", "grant": "client_credentials"}
    path.write_text(
        yaml.safe_dump(
            {
                "queues": {"q": {"type": "jsonl", "path": str(tmp_path / "q.jsonl")}},
                "mailboxes": {
                    "cloud": {"type": "graph", "user": "a@example.com", "auth": {**oauth, "client_secret": "z"}},
                    "mine": {
                        "type": "imap",
                        "host": "mail.example.com",
                        "username": "me",
                        "auth": {**oauth, "certificate": "/c.pem"},
                        "proxy": {"type": "socks5", "host": "proxy.example.com", "port": 1080},
                    },
                },
            }
        )
    )
    found = {problem.path: problem.message for problem in load(path).missing_extras()}
    assert found == {
        "mailboxes.cloud.type": "needs httpcore: pip install 'mailpoller[graph]'",
        "mailboxes.mine.auth.type": "needs httpcore: pip install 'mailpoller[oauth]'",
        "mailboxes.mine.auth.certificate": "needs jwt: pip install 'mailpoller[oauth]'",
        "mailboxes.mine.proxy.type": "needs python_socks: pip install 'mailpoller[proxy]'",
    }
    assert all(problem.line > 1 for problem in load(path).missing_extras())


def test_module_that_is_not_installed_is_never_called_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def program(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'jwt'", name="jwt")

    assert exits.exit_code(program) == 69
    err = capsys.readouterr().err
    assert "bug" not in err and "needs jwt" in err


# --- explain
# -----------------------------------------------------------------------------------------------------------
def test_explain_answers_many_files_with_an_object_a_line(config: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.eml", tmp_path / "2.eml"
    first.write_bytes(b"From: a@b.example\nSubject: an invoice\n\nx\n")
    second.write_bytes(b"From: a@b.example\nAuto-Submitted: auto-replied\nSubject: away\n\nx\n")
    base = ("explain", "--config", str(config), "--mailbox", "support", "--json")
    said = mailpoller(*base, str(first), "-", str(tmp_path / "none.eml"), str(second), stdin=b"Subject: hi\n\nx\n")
    assert said.code == 66
    assert "none.eml: No such file" in said.err
    stories = said.objects
    assert [Path(story["mail"]).name for story in stories] == ["1.eml", "-", "2.eml"]
    assert [story["verdict"] for story in stories] == ["deliver", "deliver", "quarantine"]
    assert stories[0]["topic"] == "billing"
    assert stories[0]["rules"] == [{"rule": "invoices", "matched": True, "why": stories[0]["rules"][0]["why"]}]
    assert stories[2]["reason"] == "auto-reply"
    people = mailpoller(*base[:-1], str(first))
    assert people.code == 0
    assert "+ invoices" in people.out


def test_explain_asks_rules_about_time_as_the_server_had_the_mail_and_prints_the_event(config: Path, tmp_path: Path):
    settings = yaml.safe_load(config.read_text())
    settings["rules"].append({"name": "night", "when": {"received": {"hours": "22:00-06:00"}}, "then": {"tags": ["n"]}})
    settings["mailboxes"]["support"] |= {"rules": ["night"], "attachments": "digest"}
    config.write_text(yaml.safe_dump(settings))
    mail = tmp_path / "1.eml"
    mail.write_text(
        "Received: from a by b; Mon, 30 Nov 2026 22:20:00 +0000\nSubject: a\u009b\u202eb\n"
        "Content-Type: text/x; name=a.exe\nContent-Disposition: attachment\n\nx\n"
    )
    base = ("explain", "--config", str(config), "--mailbox", "support", str(mail))
    said = mailpoller(*base, "--event")
    event = json.loads(said.out[said.out.index("{\n") :])
    assert "+ night" in said.out and "of 1 attachments 1 are here alone" in said.out
    assert event["data"]["received"] == "2026-11-30T22:20:00Z"
    assert "\u009b" not in said.out and "\u202e" not in said.out
    assert "- night" in mailpoller(*base, "--received", "2026-11-30T12:00+00:00").out
    assert mailpoller(*base[:-1], "--since", "2h", "--event").code == 64


def test_explain_asks_for_the_mailbox_where_there_are_several(config: Path) -> None:
    said = mailpoller("explain", "--config", str(config), os.devnull)
    assert said.code == 64
    assert "idle, support" in said.err


def test_who_asks_for_a_template_is_told_what_it_lacks(config: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["mailboxes"]["idle"] = {"type": "imap", "host": "imap.example.com", "enabled": False}
    config.write_text(yaml.safe_dump(settings))
    assert mailpoller("check", str(config)).code == 0
    for words in (["check", "--live", "--mailbox", "idle"], ["oauth", "login", "idle"]):
        said = mailpoller(*words, "--config", str(config))
        assert said.code == 78, said
        assert "mailboxes.idle.password: this key is required" in said.out + said.err
        assert "mailboxes.idle.username: this key is required" in said.out + said.err


# --- terminals and pipes
# -------------------------------------------------------------------------------------------------
def test_colour_only_where_a_terminal_wants_it(config: Path) -> None:
    words = ("check", "--live", "--mailbox", "support", "--config", str(config))
    settings = yaml.safe_load(config.read_text())
    settings["mailboxes"]["support"]["host"] = "nowhere.invalid"
    config.write_text(yaml.safe_dump(settings))
    assert "\x1b[" in on_a_terminal(*words).out
    assert "\x1b[3" not in on_a_terminal(*words, NO_COLOR="1").out
    assert "\x1b" not in mailpoller(*words).out


def test_locale_that_cannot_write_a_name_ends_no_command(config: Path, tmp_path: Path) -> None:
    mail = tmp_path / "\u2192.eml"
    mail.write_bytes(b"Subject: x\n\nx\n")
    said = afresh("explain", "--config", str(config), "-m", "support", str(mail), PYTHONIOENCODING="latin-1")
    assert said.code == 0
    assert "\\u2192.eml" in said.out


def test_control_characters_of_a_stranger_are_not_sent_to_the_terminal() -> None:
    assert "\x1b" not in one_line("\x1b[2Jhello\nthere")
    assert one_line({"support": "\x07"}) == "support: \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_stranger_says_neither_steers_a_terminal_nor_turns_a_line_of_the_log_around(form: str) -> None:
    program = f"""
import logging, structlog
from mailpoller.cli import logs
evil = "a\\x1b[2Jb\\x9b2Jc\\u202ed\\u2028e\\rf\\u2067g\\u00fc"
logs.configure("info", {form!r})
log = structlog.get_logger()
log.warning("mailbox.failed", reason=evil, names=[evil])
for one in evil:
    log.warning("mailbox.failed", reason="2J" + one)  # each by itself: a log quotes a text for some of them
logging.getLogger("library").warning("words: %s", evil)
try:
    raise ValueError(evil)
except ValueError:
    log.exception("service.failed")
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True).stderr.decode()
    assert said.count("2J") >= 4 and "ü" in said
    assert all(one.isprintable() or one == "\n" for one in said)


def test_a_line_at_info_says_what_one_at_warning_says() -> None:
    program = """
import structlog
from mailpoller.cli import logs
logs.configure("info", "json")
log = structlog.get_logger()
for one in (log, log.bind(mailbox="support")):
    for say in (one.info, one.warning):
        say("message.delivered", mid="m", queues=["q"], reason="x\\x1b", size_bytes=None)
        try:
            raise ValueError("x")
        except ValueError:
            say("service.failed", exc_info=True)
log.debug("never")
logs.configure("warning", "json")
structlog.get_logger().info("never")
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=True).stderr.decode()
    lines = [[*json.loads(line).items()] for line in said.splitlines()]
    without = [[(key, value) for key, value in line if key not in ("at", "level")] for line in lines]
    assert len(lines) == 8 and without[0:2] == without[2:4] and without[4:6] == without[6:8]
    assert [line[1][1] for line in lines] == ["info", "info", "warning", "warning"] * 2
    assert [line[2][0] for line in lines] == ["at"] * 8


def test_what_a_stranger_says_does_not_steer_a_terminal_in_json_or_in_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "a\x9b2Jc\u202ed\u2028eü"
    print_json({"reason": evil})
    complain(evil)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"reason": evil} and "ü" in out
    assert all(one.isprintable() or one == "\n" for one in out + err)


def test_progress_line_never_stands_in_the_log() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.write("first\n")
    terminal.show("3 of 5")
    terminal.write("second\n")
    terminal.show("")
    terminal.write("third\n")
    seen = stream.getvalue()
    assert _as_a_terminal_shows(seen) == ["first", "second", "third", ""]


def _as_a_terminal_shows(drawn: str) -> list[str]:
    lines = [""]
    for piece in drawn.replace("\r\x1b[K", "\0").replace("\n", "\1").partition("\2")[0]:
        if piece == "\0":
            lines[-1] = ""
        elif piece == "\1":
            lines.append("")
        else:
            lines[-1] += piece
    return lines


class _Writes(io.BytesIO):
    """A stream that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, octets: Any) -> int:
        self.writes.append(bytes(octets))
        return len(octets)


def _say(lines: Lines, *words: bytes) -> None:
    for word in words:
        lines.write(word)
        lines.flush()


async def test_log_lines_of_one_step_of_the_event_loop_are_one_write() -> None:
    stream = _Writes()
    lines = Lines(stream)
    _say(lines, b"1\n", b"2\n")
    await asyncio.sleep(0)
    _say(lines, b"3\n")
    await asyncio.sleep(0)
    assert stream.writes == [b"1\n2\n", b"3\n"]


async def test_log_lines_of_a_long_step_do_not_wait_for_its_end() -> None:
    stream = _Writes()
    _say(Lines(stream), *[b"x\n"] * (GATHERED + 1))
    assert stream.writes == [b"x\n" * GATHERED]


async def test_log_line_of_a_thread_is_written_in_its_turn_though_the_loop_stands_still() -> None:
    stream = _Writes()
    lines = Lines(stream)
    thread = threading.Thread(target=_say, args=(lines, b"1\n"))
    thread.start()
    thread.join()
    assert stream.writes == [b"1\n"]


def test_log_lines_of_a_loop_that_was_closed_are_written_with_the_next_one() -> None:
    stream = _Writes()
    lines = Lines(stream)
    loop = asyncio.new_event_loop()
    loop.call_soon(lambda: (_say(lines, b"1\n"), loop.stop()))
    loop.run_forever()
    loop.close()
    _say(lines, b"2\n")
    assert b"".join(stream.writes) == b"1\n2\n"


def test_log_that_cannot_be_written_raises_nothing() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    stream = Unfailing(Broken())
    assert stream.write("text") == 4
    stream.flush()
    Unfailing(io.StringIO()).write("x")


def test_daemon_survives_the_death_of_whoever_read_its_log(config: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["mailboxes"]["support"] |= {"host": "127.0.0.1", "port": 1, "tls": "none", "reconnect_interval": "100ms"}
    config.write_text(yaml.safe_dump(settings))
    process = subprocess.Popen([*PROGRAM, "run", "--config", str(config)], stderr=subprocess.PIPE, env=environment({}))
    try:
        assert process.stderr is not None
        while json.loads(process.stderr.readline())["event"] != "service.started":
            pass
        process.stderr.close()
        time.sleep(1.0)  # it fails to connect several times meanwhile, and logs that
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
