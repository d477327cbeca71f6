"""The examples of CONTRIBUTING.md are complete: they are run, type-checked and put through their paces."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mailpoller.core.body import Body
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import LEAVE, Delivery, Disposition, Event, Receipt
from mailpoller.core.identity import mint_delivery_id, mint_mid
from mailpoller.core.message import Claim, Gone, Message, RawMessage
from mailpoller.core.ports import Start
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.core.spool import Octets, Spool

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugin"
NAMES = {"The rule type": "shouting", "The queue type": "files", "The source": "drop"}
FILES = [*(f"src/mailpoller_examples/{name}.py" for name in NAMES.values()), "tests/test_files.py"]


def _examples() -> dict[str, str]:
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return {name: block for block in blocks for words, name in NAMES.items() if block.startswith(f'"""{words} ')}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    def load(name: str) -> Any:
        module = ModuleType(f"mailpoller_examples_{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(_examples()[name], f"CONTRIBUTING.md ({name})", "exec"), module.__dict__)
        return module

    return load


class _Clock:
    def now(self) -> datetime:
        return datetime(2026, 1, 2, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return Runtime(clock=_Clock(), spool=spool, state_directory=tmp_path)


def _message(subject: str) -> Message:
    empty: dict[str, Any] = dict.fromkeys(
        ("from_", "sender", "to", "cc", "bcc", "reply_to", "in_reply_to", "references"), ()
    )
    return Message(
        raw=RawMessage(None, Octets.of(b"")),  # type: ignore[arg-type]
        headers=(), subject=subject, return_path=None, message_id="", date=None, auto=None, looped=False,
        header_defects=(), load=lambda: Body("", "", ()), **empty,
    )  # fmt: skip


def test_every_example_is_found() -> None:
    assert set(_examples()) == set(NAMES.values())


@pytest.mark.parametrize("file", FILES)
def test_page_shows_the_very_files_of_the_package(file: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert f"```python\n{(PLUGIN / file).read_text('utf-8')}```\n" in page


def test_page_shows_the_entry_points_of_the_package() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (shown,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert shown in (PLUGIN / "pyproject.toml").read_text("utf-8")


def test_examples_pass_the_strict_type_checker_and_the_linter(tmp_path: Path) -> None:
    # They are the files of the package, whose tests are held to the same.
    places = [str(PLUGIN / "src"), str(PLUGIN / "tests")]
    for tool in (
        ["mypy", "--cache-dir", str(tmp_path)],
        ["ruff", "check"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *tool, *places], cwd=ROOT, env={**os.environ, "MYPYPATH": places[0]},
            capture_output=True, text=True, timeout=110,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_rule_tags_a_shouting_subject_and_no_other(load: Callable[[str], Any], runtime: Runtime) -> None:
    config = load("shouting").ShoutingConfig(type="shouting", name="loud", tag="loud")
    rule = config.build("loud", runtime)
    assert rule.judge(_message("WHERE IS MY ORDER 4711")).effect.tags == ("loud",)
    assert rule.judge(_message("Where is my order")) is None
    assert rule.judge(_message("RE: 4")) is None


async def test_sink_holds_each_delivery_once(load: Callable[[str], Any], runtime: Runtime, tmp_path: Path) -> None:
    sink = load("files").FilesQueueConfig(type="files", path=tmp_path / "queue").build("files", runtime)
    mid = mint_mid("m", "f", "e", "1")
    event = Event(b'{"id":"1"}', (b"{}",))
    delivery = Delivery(mint_delivery_id(mid, "files"), mid, "files", event, RawMessage(None, Octets.of(b"")))  # type: ignore[arg-type]
    await sink.check()
    (first,) = await sink.deliver([delivery])
    (second,) = await sink.deliver([delivery])
    assert isinstance(first, Receipt) and not first.repeated
    assert isinstance(second, Receipt) and second.repeated
    assert [file.read_bytes() for file in (tmp_path / "queue").iterdir()] == [b'{"id":"1","data":{}}']


async def test_source_lists_fetches_and_deletes_what_was_settled(
    load: Callable[[str], Any], runtime: Runtime, tmp_path: Path
) -> None:
    path = tmp_path / "drop"
    path.mkdir()
    (path / "one.eml").write_bytes(b"Subject: one\r\n\r\n")
    (path / "two.eml").write_bytes(b"Subject: a longer one\r\n\r\n")
    source = load("drop").DropConfig(type="drop", path=path).build("box", runtime)
    assert [stage.ok async for stage in source.probe([])] == [True]
    session = await source.connect()
    folder = await session.open((await session.folders())[0])
    (page,) = [page async for page in session.pending(folder, None, Start("all"))]
    assert [(ref.uid, ref.size) for ref in page.refs] == [("one.eml", 16), ("two.eml", 25)]

    claims = [Claim(ref, mint_mid("box", folder.name, folder.epoch, ref.uid)) for ref in page.refs]
    raws = [raw async for raw in session.fetch(claims, 20)]
    assert [(raw.octets.head(100), raw.truncated) for raw in raws] == [
        (b"Subject: one\r\n\r\n", False),
        (b"Subject: a longer on", True),
    ]
    one, two = (SealedSettlement(claim.ref, claim.mid, "delivered", Disposition(delete=True)) for claim in claims)
    two = SealedSettlement(two.ref, two.mid, two.kind, LEAVE)
    assert [done.state for done in await session.settle([one, two, one])] == ["applied"] * 3
    assert [file.name for file in path.iterdir()] == ["two.eml"]
    assert [
        done.state
        for done in await session.settle([SealedSettlement(two.ref, two.mid, two.kind, Disposition(seen=True))])
    ] == ["failed"]
    assert [type(raw) async for raw in session.fetch(claims[:1], 20)] == [Gone]
    (page,) = [page async for page in session.pending(folder, None, Start("now"))]
    assert page.refs == []
    await session.close()
