"""The queue that is a program: what it is given, what its end means, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from sink_runtime import make_runtime

from mailpoller.config import load
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.sinks.command import CommandQueueConfig, config, process
from mailpoller.sinks.command.process import Ended, last_line
from mailpoller.sinks.command.sink import CommandQueue
from mailpoller.sinks.command.verdict import in_words, verdict
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled


def queue(tmp_path: Path, script: str, **more: object) -> CommandQueue:
    """A queue whose program is a script of the shell; it is started in ``tmp_path``."""
    block = {"type": "command", "command": ["sh", "-c", script], "directory": tmp_path, "timeout": "20s", **more}
    built = CommandQueueConfig.model_validate(block).build("support", make_runtime(tmp_path))
    assert isinstance(built, CommandQueue)
    return built


async def said(tmp_path: Path, script: str, delivery: Delivery | None = None, **more: object) -> Receipt | Refusal:
    sink = queue(tmp_path, script, **more)
    try:
        (answer,) = await sink.deliver([delivery or make_delivery()])
        return answer
    finally:
        await sink.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def dead(path: Path) -> None:
    """Wait until the process whose number the file holds is no more."""
    pid = int(path.read_text())
    async with asyncio.timeout(5):
        while alive(pid):
            await asyncio.sleep(0.01)


# --- what its end means ----------------------------------------------------------------------------------------------


async def test_only_exit_0_is_a_receipt(tmp_path: Path) -> None:
    assert isinstance(await said(tmp_path, "exit 0"), Receipt)


@pytest.mark.parametrize("code", [65, 67, 68])
async def test_a_program_may_refuse_a_message_for_good(tmp_path: Path, code: int) -> None:
    answer = await said(tmp_path, f"echo first >&2; echo 'no such ticket' >&2; exit {code}")
    assert isinstance(answer, Refusal)
    assert (answer.permanent, answer.blame) == (True, "message")
    assert answer.reason.startswith(f"the program exited with {code} (EX_")
    assert answer.reason.endswith(": no such ticket")


@pytest.mark.parametrize("code", [64, 66, 69, 72, 77, 78, 126, 127])
async def test_what_is_wrong_with_the_program_is_no_messages_fault(tmp_path: Path, code: int) -> None:
    with pytest.raises(TransientError, match=rf"exited with {code} \(.*: wrong key"):
        await said(tmp_path, f"echo wrong key >&2; exit {code}")


@pytest.mark.parametrize("script", ["exit 1", "exit 70", "exit 75", "exit 200", "kill -SEGV $$", "kill -KILL $$"])
async def test_what_nobody_can_tell_is_tried_again_and_no_messages_fault_at_first(tmp_path: Path, script: str) -> None:
    answer = await said(tmp_path, script)
    assert isinstance(answer, Refusal)
    assert (answer.permanent, answer.blame) == (False, "queue")


def test_every_code_has_a_verdict_and_no_code_but_0_is_a_receipt() -> None:
    ends = {code: verdict(Ended("exited", code, "", 0.0)) for code in range(256)}
    assert [code for code, word in ends.items() if word == "taken"] == [0]
    assert [code for code, word in ends.items() if word == "message"] == [65, 67, 68]
    assert [code for code, word in ends.items() if word == "queue"] == [64, 66, 69, 72, 77, 78, 126, 127]
    for how in ("signalled", "timed-out", "stopped"):
        assert verdict(Ended(how, 0, "", 0.0)) == "again"  # type: ignore[arg-type]


def test_the_table_in_the_documents_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs/sinks.md").read_text("utf-8")
    rows = [row for row in text.splitlines() if row.startswith(("| 6", "| 126"))]
    for code in (64, 65, 66, 67, 68, 69, 72, 77, 78, 126, 127):
        (row,) = (row for row in rows if str(code) in row.split("|")[1])
        assert ("for good" in row) == (verdict(Ended("exited", code, "", 0.0)) == "message")


async def test_a_message_that_fails_while_others_are_taken_is_to_blame(tmp_path: Path) -> None:
    sink = queue(tmp_path, '[ "$(cat)" != poison ]')
    poison, good = make_delivery(1, b"poison"), [make_delivery(uid, b"fine") for uid in range(2, 6)]
    first = await sink.deliver([poison, good[0]])
    second = await sink.deliver([poison, good[1]])
    assert [isinstance(one, Receipt) for one in (*first, *second)] == [False, True, False, True]
    assert [one.blame for one in (first[0], second[0]) if isinstance(one, Refusal)] == ["queue", "message"]


async def test_a_program_that_fails_at_everything_is_a_queue_that_is_down(tmp_path: Path) -> None:
    sink = queue(tmp_path, "echo >> ran; echo database is locked >&2; exit 75")
    with pytest.raises(TransientError, match="database is locked"):
        await sink.deliver([make_delivery(uid) for uid in range(400)])
    assert len((tmp_path / "ran").read_text()) == 10, "nobody tries 400 times what failed ten times in a row"


async def test_bad_messages_side_by_side_do_not_hide_the_good_ones_behind_them(tmp_path: Path) -> None:
    sink = queue(tmp_path, '[ "$(cat)" != poison ]')
    batch = [make_delivery(uid, b"poison" if uid < 15 else b"fine") for uid in range(100)]
    answers = await sink.deliver(batch)
    assert [isinstance(one, Receipt) for one in answers] == [False] * 15 + [True] * 85
    assert all(one.blame == "queue" for one in answers if isinstance(one, Refusal))


async def test_what_was_taken_before_the_trouble_is_told(tmp_path: Path) -> None:
    sink = queue(tmp_path, "echo >> ran; [ $(wc -l < ran) -lt 3 ] || exit 77")
    answers = await sink.deliver([make_delivery(uid) for uid in range(6)])
    assert [isinstance(one, Receipt) for one in answers] == [True, True, False, False, False, False]
    assert all(one.blame == "queue" and "EX_NOPERM" in one.reason for one in answers if isinstance(one, Refusal))
    assert len((tmp_path / "ran").read_text()) == 3


@pytest.mark.parametrize("what", ["nothing", "a file", "a directory", "not on PATH"])
async def test_a_program_that_cannot_be_started_is_found_by_check_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    place = tmp_path / "git"
    if what == "a file":
        place.write_text("exit 0\n")
    elif what == "a directory":
        place.mkdir()
    elif what == "not on PATH":
        monkeypatch.setenv("PATH", str(tmp_path))
    sink = queue(tmp_path, "", command=["git" if what == "not on PATH" else str(place)])
    for call in (sink.check(), sink.deliver([make_delivery()])):
        with pytest.raises(TransientError, match="git"):
            await call
    await sink.close()


async def test_a_directory_that_is_not_there_is_found_by_check_and_told(tmp_path: Path) -> None:
    sink = queue(tmp_path, "exit 0", directory=tmp_path / "gone")
    for call in (sink.check(), sink.deliver([make_delivery()])):
        with pytest.raises(TransientError, match="gone"):
            await call


async def test_no_process_to_be_had_is_the_machines_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process.subprocess, "Popen", full)
    with pytest.raises(MachineTrouble, match="this machine: Resource temporarily unavailable"):
        await said(tmp_path, "exit 0")


# --- its end, enforced -----------------------------------------------------------------------------------------------


async def test_at_the_time_out_a_grandchild_dies_too(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 60 & echo $! > grandchild; echo working >&2; wait"
    answer = await said(tmp_path, script, timeout="300ms")
    assert isinstance(answer, Refusal)
    assert (answer.permanent, answer.blame) == (False, "queue")
    assert "no end within" in answer.reason and "working" in answer.reason
    await dead(tmp_path / "grandchild")


@pytest.mark.parametrize("end", ["exit 75", "kill -SEGV $$"])
async def test_what_a_failed_program_left_running_dies_before_the_message_comes_again(tmp_path: Path, end: str) -> None:
    await said(tmp_path, f"sleep 60 & echo $! > grandchild; {end}")
    await dead(tmp_path / "grandchild")


async def test_a_program_that_forks_into_the_background_and_exits_0_is_not_waited_for_nor_killed(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    answer = await said(tmp_path, "(sleep 0.4; echo done > done) & exit 0")
    assert isinstance(answer, Receipt)
    assert time.monotonic() - began < 0.35, "it holds stderr open, and nobody waits for that"
    async with asyncio.timeout(5):
        while not (tmp_path / "done").exists():
            await asyncio.sleep(0.02)


async def test_a_cancelled_delivery_leaves_no_program_behind(tmp_path: Path) -> None:
    sink = queue(tmp_path, "echo $$ > child; sleep 60")
    task = asyncio.ensure_future(sink.deliver([make_delivery()]))
    async with asyncio.timeout(5):
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            await asyncio.sleep(0.01)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1
    await dead(tmp_path / "child")


async def test_the_time_out_holds_without_the_kernels_word_on_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(pid: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", unknown)
    assert isinstance(await said(tmp_path, "sleep 0.1"), Receipt)
    assert isinstance(await said(tmp_path, "sleep 60", timeout="200ms"), Refusal)


async def test_no_more_run_at_once_than_are_wanted(tmp_path: Path) -> None:
    sink = queue(tmp_path, "mkdir busy || exit 65; sleep 0.05; rmdir busy")
    batches = [[make_delivery(n * 3 + i) for i in range(3)] for n in range(3)]
    answers = await asyncio.gather(*(sink.deliver(batch) for batch in batches))
    assert all(isinstance(one, Receipt) for several in answers for one in several)


async def test_a_slow_program_does_not_bring_the_queue_down_for_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.sinks.command.sink._BUDGET_S", 0.2)
    sink = queue(tmp_path, "sleep 0.5")
    first, second = await asyncio.gather(
        sink.deliver([make_delivery(1), make_delivery(2)]), sink.deliver([make_delivery(3)])
    )
    assert [isinstance(one, Receipt) for one in (*first, *second)] == [True, False, False]
    assert all(one.blame == "queue" and "too slow" in one.reason for one in (first[1], second[0]))  # type: ignore[union-attr]


# --- what it says, and what it does not read -------------------------------------------------------------------------


async def test_a_flood_on_stderr_and_stdout_costs_no_memory_and_the_last_line_is_kept(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flood = (
        "head -c 400000000 /dev/zero >&2; head -c 400000000 /dev/zero; printf 'x\\nthe last word\\n\\n' >&2; exit 65"
    )
    answer = await said(tmp_path, flood)
    assert isinstance(answer, Refusal)
    assert answer.reason.endswith(": the last word")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


async def test_a_flood_without_end_does_not_outlast_the_time_out(tmp_path: Path) -> None:
    began = time.monotonic()
    answer = await said(tmp_path, "cat /dev/zero >&2", timeout="300ms")
    assert isinstance(answer, Refusal)
    assert time.monotonic() - began < 2


def test_a_reason_is_one_bounded_line_without_control_characters() -> None:
    words = last_line(b"first\n\x1b[31m\xff" + b"ab " * 5000 + b"\r\n \n\n")
    assert len(words) <= 300
    assert words.isprintable()
    assert "first" not in words
    assert last_line(b"") == last_line(b"\n \n\0") == ""
    assert in_words(Ended("signalled", 11, "", 1.0)) == "the program was killed by SIGSEGV"


@pytest.mark.parametrize("script", ["exec <&-; exit 0", "exit 0", "head -c 1 > /dev/null"])
async def test_a_program_that_does_not_read_may_exit_with_0(tmp_path: Path, script: str) -> None:
    for octets in (b"x" * 900_000, spooled(b"x" * 3_000_000, tmp_path)):
        assert isinstance(await said(tmp_path, script, make_delivery(1, octets)), Receipt)


# --- what it is given ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [0, 1, 3000])
async def test_hostile_octets_come_bit_for_bit(tmp_path: Path, times: int) -> None:
    for octets in (HOSTILE * times, spooled(HOSTILE * times, tmp_path)):
        assert isinstance(await said(tmp_path, "cat > got", make_delivery(1, octets)), Receipt)
        assert (tmp_path / "got").read_bytes() == HOSTILE * times


async def test_an_event_comes_as_one_json_object(tmp_path: Path) -> None:
    delivery = make_delivery(place="inside")
    assert queue(tmp_path, "exit 0", stdin="event").octets_place == "inside"
    await said(tmp_path, "cat > got", delivery, stdin="event")
    assert (tmp_path / "got").read_bytes() == delivery.event.structured()


async def test_stdin_is_whole_before_the_program_begins(tmp_path: Path) -> None:
    """Of a pipe half a message would be left to read if this process died, and look like a whole one."""
    script = "wc -c < /dev/stdin > size; [ ! -p /dev/stdin ]"
    for octets in (b"x" * 500_000, spooled(b"x" * 500_000, tmp_path)):
        assert isinstance(await said(tmp_path, script, make_delivery(1, octets)), Receipt)
        assert int((tmp_path / "size").read_text()) == 500_000


async def test_the_environment_is_small_and_ours_and_holds_no_control_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    monkeypatch.setenv("MAILPOLLER_CONFIG", "/etc/x")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    hostile = "a\nB=c\0\x1b[2J\ud800\u202e" + "é" * 5000
    delivery = make_delivery(
        7, b"Subject: $(reboot)\r\n\r\n", topic=hostile, tags=("one", hostile), priority="high", reason=hostile
    )
    answer = await said(tmp_path, "tr '\\0' '\\n' < /proc/self/environ > got", delivery)
    assert isinstance(answer, Receipt)
    lines = (tmp_path / "got").read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    got = dict(line.split("=", 1) for line in lines)
    assert set(got) - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "PATH", "LANG", "MAILPOLLER_MID", "MAILPOLLER_DELIVERY_ID", "MAILPOLLER_QUEUE", "MAILPOLLER_MAILBOX",
        "MAILPOLLER_TOPIC", "MAILPOLLER_PRIORITY", "MAILPOLLER_TAGS", "MAILPOLLER_REASON", "MAILPOLLER_TRUNCATED",
    }  # fmt: skip
    assert (got["MAILPOLLER_MID"], got["MAILPOLLER_DELIVERY_ID"]) == (delivery.mid, delivery.delivery_id)
    assert (got["MAILPOLLER_QUEUE"], got["MAILPOLLER_MAILBOX"]) == ("support", "support")
    assert (got["MAILPOLLER_PRIORITY"], got["MAILPOLLER_TRUNCATED"]) == ("high", "")
    for value in got.values():
        assert value.isprintable()
    for name in ("TOPIC", "TAGS", "REASON"):
        assert 0 < len(got[f"MAILPOLLER_{name}"]) <= 200


async def test_there_is_no_shell_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    words = ["sh", "-c", 'printf "%s" "$1" > word; ls /proc/$$/fd > fds', "sh", "$(touch hacked); *"]
    assert isinstance(await said(tmp_path, "", command=words), Receipt)
    assert (tmp_path / "word").read_text() == words[-1]
    assert not (tmp_path / "hacked").exists()
    assert {int(one) for one in (tmp_path / "fds").read_text().split()} <= {0, 1, 2, 3, 10, 255}


# --- its block -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [{"command": []}, {"command": [""]}, {"command": ["a\0b"]}, {"timeout": "6m"}, {"timeout": "0"},
              {"concurrency": 0}, {"command": "sh -c x"},
        {"command": ["./x"]}]
)  # fmt: skip
def test_a_block_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CommandQueueConfig.model_validate({"type": "command", "command": ["sh"], **wrong})


def test_check_warns_of_what_the_unit_forbids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warned(*words: str) -> list[str]:
        config._may_compile.cache_clear()
        block = f"queues:\n  q:\n    type: command\n    command: [{', '.join(words)}]\n"
        (tmp_path / "c.yaml").write_text(block + "mailboxes: {}\n", "utf-8")
        return [one.message for one in load(tmp_path / "c.yaml").warnings if one.path == "queues.q.command"]

    monkeypatch.delenv("INVOCATION_ID", raising=False)
    assert warned("/opt/app/run") == warned("python3") == []
    assert "MemoryDenyWriteExecute" in warned("/usr/bin/node18")[0]
    assert warned("node", "--jitless") == []
    assert "NoNewPrivileges" in warned("sudo")[0]
    monkeypatch.setenv("INVOCATION_ID", "1")
    assert warned("node") == [], "here it was tried, and is allowed"
