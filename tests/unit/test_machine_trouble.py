"""The machine's own trouble is told from a bug: it is said in words, and counts against nobody."""

from __future__ import annotations

import errno
import resource
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.parsers.expat import ExpatError

import pytest

from mailpoller.assembly.shares import FILES_PER_QUEUE, OWN_FILES, sessions_allowed
from mailpoller.cli import exits
from mailpoller.core.errors import MachineTrouble, TransientError, machine_trouble
from mailpoller.core.message import RawMessage
from mailpoller.engine import judge
from mailpoller.storage.sqlite.errors import classify
from mailpoller.wire.http.errors import IntakeTrouble, SpoolTrouble
from unit.engine_rig import Rig


def _of_ssl(number: int, reason: str) -> ssl.SSLError:
    error = ssl.SSLError(number, f"[SSL] {reason}")
    error.library, error.reason = "SSL", reason
    return error


def _of_expat(code: int, words: str) -> ExpatError:
    error = ExpatError(words)
    error.code, error.lineno = code, 1
    return error


def _of_sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no memory"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files (LimitNOFILE)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (RuntimeError("can't start new thread"), "no thread can be begun"),
        (RuntimeError("can't allocate lock"), "no thread can be begun"),
        (OSError(errno.ENOBUFS, "No buffer space available"), "No buffer space"),
        (OSError(errno.ENOLCK, "No locks available"), "No locks"),
        (OSError(errno.EFBIG, "File too large"), "File too large"),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"),
        (socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure"), "Memory allocation failure"),
        (ValueError("[digital envelope routines] malloc failure"), "no memory"),
        (_of_ssl(1, "MALLOC_FAILURE"), "no memory"),
        (ImportError("libstdc++.so.6: failed to map segment from shared object"), "no memory"),
        (ImportError("_x.so: cannot create shared object descriptor: Cannot allocate memory"), "no memory"),
        (ImportError("_x.so: cannot open shared object file: Too many open files"), "no file can be opened"),
        (_of_expat(1, "out of memory: line 1, column 0"), "no memory"),
        (_of_sqlite(sqlite3.SQLITE_NOMEM), "no memory"),
        (_of_sqlite(sqlite3.SQLITE_CANTOPEN), "no file can be opened"),
        (_of_sqlite(sqlite3.SQLITE_FULL), "disk is full"),
        (_of_sqlite(sqlite3.SQLITE_IOERR_READ), "disk cannot be read"),
        (MachineTrouble("the spool"), "the spool"),
        (SpoolTrouble("cannot spool"), "cannot spool"),
        (ExceptionGroup("", [MemoryError(), ExceptionGroup("", [MachineTrouble("x")])]), "no memory"),
    ],
)
def test_the_machines_own_trouble_is_known_by_what_it_is(error: Exception, words: str) -> None:
    assert words in (machine_trouble(error) or "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), RuntimeError("x"), OSError(errno.ECONNREFUSED, "x"), OSError("x"), IntakeTrouble("malformed"),
        ExceptionGroup("", [MemoryError(), ValueError()]),
        _of_ssl(ssl.SSL_ERROR_SYSCALL, ""), _of_expat(3, "no element found"), _of_sqlite(sqlite3.SQLITE_CONSTRAINT),
        ImportError("no such part"), socket.gaierror(socket.EAI_NONAME, "x"),
        TransientError("451 Cannot allocate memory, malloc failure"),
    ],
)  # fmt: skip
def test_nothing_else_is_taken_for_it(error: Exception) -> None:
    assert machine_trouble(error) is None


@pytest.mark.parametrize(
    "words", ["error return without exception set", "<function f at 0x1> returned NULL without setting an exception"]
)
def test_an_exception_that_python_lost_is_a_lack_of_memory_only_where_memory_is_bound(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (bound[kind], resource.RLIM_INFINITY))
    assert machine_trouble(SystemError(words)) is None, "a bug, and bounded as one"
    bound[resource.RLIMIT_AS] = 300 << 20
    assert "no memory" in (machine_trouble(SystemError(words)) or "")
    assert machine_trouble(SystemError("bad argument to internal function")) is None


@pytest.mark.parametrize(
    "work",
    [
        "import hashlib; hashlib.scrypt(b'x', salt=b'x', n=16384, r=8, p=1)",
        "import xml.etree.ElementTree as e; e.fromstring('<a>' + '<b c=\"d\">x</b>' * 20000 + '</a>')",
        "import sqlite3; sqlite3.connect(':memory:').execute('SELECT hex(zeroblob(4000000))').fetchall()",
        "import threading; threading.Thread(target=int).start()",
        "import _decimal, _ctypes, _lzma, _bz2",
        "import re2",
    ],
    ids=["hash", "xml", "sqlite", "thread", "libraries", "re2"],
)  # fmt: skip
def test_whatever_python_raises_for_want_of_memory_is_known(work: str) -> None:
    """Tried with a little more each time, in processes of their own, until it goes well."""
    tried = subprocess.run([sys.executable, "-c", STARVE, work], capture_output=True, text=True, timeout=60)
    assert tried.returncode == 0, tried.stderr
    assert "lacked" in tried.stdout.splitlines(), "it was tried with too little"
    assert [line for line in tried.stdout.splitlines() if line not in ("lacked", "died", "went well")] == []


STARVE = r"""
import os, resource, sys
import mailpoller.core.errors as errors, hashlib, xml.etree.ElementTree, sqlite3, threading

code = compile(sys.argv[1], "work", "exec")
for kilobytes in (*range(0, 1024, 64), *range(1024, 24 * 1024, 1024)):
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        reserved = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (reserved + kilobytes * 1024, resource.RLIM_INFINITY))
        said = b"went well"
        try:
            exec(code, {})
        except BaseException as error:
            found = errors.machine_trouble(error)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            said = b"lacked" if found else repr(error).encode()
        os.write(1, said + b"\n")
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        os.write(1, b"died\n")  # some libraries end the process; the system starts it again
"""


async def test_a_message_that_meets_it_is_put_off_as_often_as_it_takes_and_then_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    expected = rig.fill(1)
    read, left = judge._read, [MemoryError()] * 10

    def reads(raw: RawMessage, body: bool) -> object:
        if left:
            raise left.pop()
        return read(raw, body)

    monkeypatch.setattr(judge, "_read", reads)
    for _ in range(11):
        await rig.carry()
        rig.clock.ahead += judge.MACHINE_AGAIN
    assert rig.subjects() == expected and not rig.sinks["quarantine"].held


@pytest.fixture
def no_file_left() -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, former)


def test_sqlite_that_cannot_open_a_file_is_told_why(tmp_path: Path, no_file_left: None) -> None:
    path = tmp_path / "x.db"
    with pytest.raises(sqlite3.OperationalError) as refused:
        sqlite3.connect(path)
    found = classify(refused.value, path)
    assert found is not None and "Too many open files (LimitNOFILE)" in str(found) and "right" not in str(found)


def test_sessions_leave_files_for_the_ledger_and_the_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    own = OWN_FILES + 2 * FILES_PER_QUEUE
    for limit, wanted, allowed in ((own + 10, 0, 10), (own + 10, 5, 5), (own + 10, 50, 10), (8, 0, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        assert sessions_allowed(wanted, 2) == allowed
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sessions_allowed(0, 2) == 0


def test_a_process_that_ends_of_it_ends_with_words_and_74(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(**_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(exits, "prepare_streams", lambda: None)
    assert exits.exit_code(program) == exits.IOERR
    assert "no thread can be begun" in capsys.readouterr().err
