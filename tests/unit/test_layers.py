"""The guards of the architecture hold: dependencies run one way, and nobody tells the server too early."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

from mailpoller.core.delivery import LEAVE, Receipt, Settlement

ROOT = Path(__file__).parents[2]
CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
}


class Plant(NamedTuple):
    """A line that must not be, in a file of a copy of the sources, and how the linter is to name it."""

    file: str
    line: str
    named: str


# One for each contract. The files are new ones: no list can know them.
PLANTS = {
    "dependencies run one way": Plant(
        "mail/planted.py", "import mailpoller.engine.clock", "mailpoller.mail.planted -> mailpoller.engine.clock"
    ),
    "no plug-in imports another": Plant(
        "sources/jmap.py",
        "from mailpoller.sources.imap import ImapConfig",
        "mailpoller.sources.jmap -> mailpoller.sour",
    ),
    "who works with plug-ins knows none": Plant(
        "config/planted.py", "import mailpoller.wire.server", "mailpoller.config.planted -> mailpoller.wire.server"
    ),
    "the vocabulary needs nothing but pydantic": Plant(
        "core/planted.py", "import httpcore", "mailpoller.core.planted -> httpcore"
    ),
    "only a sink makes a receipt": Plant(
        "engine/planted.py",
        "from mailpoller.core.seals.sink import SealedReceipt",
        "mailpoller.engine.planted -> mailpoller.core.seals.sink",
    ),
    "only a ledger makes a settlement": Plant(
        "sinks/planted.py",
        "from mailpoller.core.seals import ledger",
        "mailpoller.sinks.planted -> mailpoller.core.seals.ledger",
    ),
    "what is for tests serves nothing else": Plant(
        "outgoings/planted.py",
        "from mailpoller.testing.builders import plain",
        "mailpoller.outgoings.planted -> mailpoller.testing.builders",
    ),
    "one file retries": Plant("wire/again.py", "import tenacity", "mailpoller.wire.again -> tenacity"),
}
# And one for each of the layers that plug-ins share: none knows the one above it.
ROOMS = [
    Plant(
        "wire/planted.py", "import mailpoller.remote.throttle", "mailpoller.wire.planted -> mailpoller.remote.throttle"
    ),
    Plant("storage/planted.py", "import mailpoller.wire.dial", "mailpoller.storage.planted -> mailpoller.wire.dial"),
    Plant(
        "storage/another.py", "import mailpoller.remote.gaps", "mailpoller.storage.another -> mailpoller.remote.gaps"
    ),
]


def _lint(sources: Path) -> tuple[int, str]:
    program = (
        "import sys; from importlinter.cli import lint_imports;"
        " sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "pyproject.toml")],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": str(sources), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    return done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("planted")
    shutil.copytree(ROOT / "src", where / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return where / "src"


@pytest.fixture(scope="module")
def report(copy: Path) -> str:
    for plant in [*PLANTS.values(), *ROOMS]:
        file = copy / "mailpoller" / plant.file
        assert not file.exists()
        file.write_text(plant.line + "\n", "utf-8")
    code, report = _lint(copy)
    assert code == 1, report
    return report


def test_no_import_runs_against_the_layers() -> None:
    code, report = _lint(ROOT / "src")
    assert code == 0, report


def test_each_contract_has_an_import_planted_against_it() -> None:
    assert PLANTS.keys() == CONTRACTS.keys()


@pytest.mark.parametrize("contract", CONTRACTS)
def test_what_is_planted_against_a_contract_is_refused(contract: str, report: str) -> None:
    assert f"{contract} BROKEN" in report, report
    assert PLANTS[contract].named in _said(report, contract), report


@pytest.mark.parametrize("plant", ROOMS, ids=lambda plant: plant.file)
def test_no_shared_layer_knows_the_one_above_it(plant: Plant, report: str) -> None:
    assert plant.named in _said(report, "dependencies run one way"), report


def _said(report: str, contract: str) -> str:
    """What the report says of a contract that is broken: from its heading to the next one."""
    return re.split(r"\n\S.*\n-+\n", report.split(f"\n{contract}\n-")[1])[0]


def test_package_without_a_layer_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/mailpoller/brokers").mkdir()
    (tmp_path / "src/mailpoller/brokers/__init__.py").touch()
    code, report = _lint(tmp_path / "src")
    assert code == 1
    assert "dependencies run one way BROKEN" in report
    assert "mailpoller.brokers" in report


def test_contracts_name_every_kind_of_plug_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    kinds = {group.replace("mailpoller.", "") for group in project["entry-points"]}
    kinds.remove("rules")  # its files are one plug-in
    kinds.remove("destinations")  # they are sinks
    assert set(CONTRACTS["no plug-in imports another"]["modules"]) == {f"mailpoller.{kind}.*" for kind in kinds}


# The names of plug-ins, and of those whose servers some of them talk to. What a left out section means is a name too,
# and so are keys of other programs, for which there is a hint.
SERVICES = {"microsoft", "exchange", "outlook", "office365", "google", "gmail"}
SPOKEN = {"config/sections.py": {"sqlite"}, "config/wording.py": {"imap", "command"}}


def _named(text: str) -> set[str]:
    kinds = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    wishes = ("mailpoller.rules", "mailpoller.destinations")  # what rules want is called by its name by whoever does it
    plug_ins = {name for group, found in kinds.items() if group not in wishes for name in found}
    told = text.casefold()
    for said in ("command line", "over http", "speaks http"):  # of a shell, and of a protocol, not of a plug-in
        told = told.replace(said, "")
    return (plug_ins | SERVICES) & set(re.findall(r"[a-z]+[0-9]*", told))


@pytest.mark.parametrize("room", ["assembly", "config", "engine"])
def test_no_plug_in_is_known_by_name_to_who_works_with_all_of_them(room: str) -> None:
    found = {}
    for file in sorted((ROOT / "src/mailpoller" / room).rglob("*.py")):
        place = file.relative_to(ROOT / "src/mailpoller").as_posix()
        if words := _named(file.read_text("utf-8")) - SPOKEN.get(place, set()):
            found[place] = words
    assert found == {}
    assert _named('if mailbox.type == "pop3" and host.endswith("OUTLOOK.com"):') == {"pop3", "outlook"}


def test_verbs_work_on_every_plug_in_by_its_port_and_on_the_embedded_ones_by_name() -> None:
    """What is looked into without a daemon is a file of ours: the ledger, and a queue in a file."""
    graph = grimp.build_graph("mailpoller", cache_dir=None)
    rooms = tuple(f"mailpoller.{kind}." for kind in ("sources", "sinks", "rules", "ledgers", "outgoings"))
    known = {
        told
        for verb in graph.find_descendants("mailpoller.cli")
        for told in graph.find_modules_directly_imported_by(verb)
        if told.startswith(rooms)
    }
    assert {".".join(name.split(".")[1:3]) for name in known} <= {"ledgers.sqlite", "sinks.sqlite"}


# --- circles
# ------------------------------------------------------------------------------------------------------------
def _circle(graph: grimp.ImportGraph) -> list[str]:
    """Modules that import one another in a circle, also by an import inside a function; none if there is no circle."""
    try:
        TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_modules_import_one_another_in_no_circle() -> None:
    graph = grimp.build_graph("mailpoller", cache_dir=None)
    assert _circle(graph) == []
    # What a source that is built by its own settings would be:
    graph.add_import(importer="mailpoller.sources.imap.config", imported="mailpoller.sources.imap.source")
    assert {"mailpoller.sources.imap.config", "mailpoller.sources.imap.source"} <= set(_circle(graph))


def test_sources_are_built_by_the_face_of_their_package_and_their_settings_know_no_source() -> None:
    for entry in entry_points(group="mailpoller.sources"):
        if entry.value.startswith("mailpoller."):
            found = entry.load()
            assert "build" in vars(found), entry.value
            assert (found.__module__, found.__base__.__module__) == (entry.module, f"{entry.module}.config")


# --- proofs
# ------------------------------------------------------------------------------------------------------------- What
# somebody might write who has neither seal. The type checker has to refuse each line.
FORGED = """\
Settlement(known.ref, known.mid, known.kind, Disposition(delete=True))
Settlement(ref=known.ref, mid=known.mid, kind=known.kind, disposition=LEAVE)
Settlement()
type(known)(known.ref, known.mid, known.kind, LEAVE)
replace(known, disposition=Disposition(delete=True))
known.disposition = Disposition(delete=True)
class Forged(Settlement): pass
Receipt("delivery", "somewhere")
Receipt(delivery_id="delivery")
Receipt()
replace(held, delivery_id="another")
held.delivery_id = "another"
class Held(Receipt): pass
""".splitlines()


def test_type_checker_refuses_to_forge_a_proof(tmp_path: Path) -> None:
    head = (
        "from dataclasses import replace\n"
        "from mailpoller.core.delivery import LEAVE, Disposition, Receipt, Settlement\n"
        "def forge(known: Settlement, held: Receipt) -> None:\n"
    )
    file = tmp_path / "forged.py"
    file.write_text(head + "".join(f"    {line}\n" for line in FORGED), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    refused = {int(number) for number in re.findall(r"forged\.py:(\d+): error", done.stdout)}
    first = head.count("\n") + 1
    accepted = [line for number, line in enumerate(FORGED, first) if number not in refused]
    assert not accepted, done.stdout
    assert min(refused) >= first, done.stdout


def test_who_has_no_seal_makes_no_proof_at_run_time_either() -> None:
    with pytest.raises(TypeError, match="only a sink makes a receipt"):
        Receipt("delivery", "somewhere")
    with pytest.raises(TypeError, match="only a ledger makes a settlement"):
        Settlement(None, "mid", "delivered", LEAVE)


def test_nothing_passes_on_by_name_what_the_type_checker_should_see() -> None:
    """A decorator with ``__getattr__`` hides that a port has grown."""
    hidden = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "src").rglob("*.py"))
        if re.search(r"def __getattr(?:ibute)?__\(", file.read_text("utf-8"))
    ]
    assert not hidden
