"""The documents are true: their links lead somewhere, their words are the code's words, their examples load."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
import yaml

from mailpoller.cli import exits
from mailpoller.config import load
from mailpoller.core import delivery, errors
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.engine.alarm_kinds import Kind
from mailpoller.quarantine import Store
from mailpoller.sinks.sqlite.sink import SqliteQueue

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
}


def _ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids(DOCUMENTS))
def test_links_lead_somewhere(document: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    dead = [link for link in links if "://" not in link and not (document.parent / link.split("#")[0]).exists()]
    assert dead == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids(DOCUMENTS))
def test_yaml_blocks_are_yaml(document: Path) -> None:
    for block in re.findall(r"^```ya?ml\n(.*?)^```$", document.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        assert yaml.safe_load(block) is not None


def test_first_mailbox_of_the_readme_is_a_configuration(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "mailpoller.yaml").write_text(block, "utf-8")
    config = load(tmp_path / "mailpoller.yaml")
    assert set(config.mailboxes) == {"support"}
    assert config.warnings == ()
    blocks = (config.ledger, *config.queues.values())
    paths = {config.service.state_directory, config.service.control_socket, *(one.path for one in blocks)}
    assert not any(path.is_absolute() for path in paths), "a newcomer has no rights but in a directory of their own"


def test_glossary_names_every_outcome_and_the_stages_of_a_message() -> None:
    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    for outcome in get_args(delivery.OutcomeKind):
        assert f"`{outcome}`" in text
    words = {row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| ")}
    assert {
        "claim",
        "delivery",
        "receipt",
        "refusal",
        "outcome",
        "settlement",
        "disposition",
        "verdict",
        "epoch",
    } <= words


def test_architecture_names_every_error_that_is_a_decision() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    decisions = [
        name for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.MailpollerError) and thing is not errors.MailpollerError
    ]  # fmt: skip
    assert len(decisions) >= 7
    assert [name for name in decisions if f"`{name}`" not in text] == []


def test_operations_explain_every_exit_code_and_every_alarm() -> None:
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \| EX_", text, re.MULTILINE)} == codes
    assert set(re.findall(r"^\| `([a-z]+(?:-[a-z]+)*)` \|", text, re.MULTILINE)) == {
        *(kind.value for kind in Kind),
        *(kind.name for sink in (SqliteQueue, Store) for kind in sink.doubts),
        NOT_DURABLE.name,
    }


def test_every_decision_is_in_the_list_of_decisions() -> None:
    directory = ROOT / "docs/decisions"
    index = (directory / "README.md").read_text("utf-8")
    assert [path.name for path in sorted(directory.glob("0*.md")) if f"({path.name})" not in index] == []


def _commands() -> list[tuple[str, list[str]]]:
    """Every ``mailpoller …`` line of a shell block and every `mailpoller …` in prose: where, and the words."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        lines = [
            line for block in blocks for line in block.replace("\\\n", " ").splitlines() if not line.startswith("ln ")
        ]
        lines += re.findall(r"`(mailpoller [^`]+)`", text)
        commands = [
            match[1] for line in lines if (match := re.search(r"(?:^|&& |/bin/|\| )(mailpoller (?!\d).*)", line))
        ]
        found += [(str(document.relative_to(ROOT)), shlex.split(command, comments=True)[1:]) for command in commands]
    return found


def test_commands_of_the_documents_exist_with_their_options() -> None:
    from typer.main import get_command

    from mailpoller.cli.program import program

    command_line = get_command(program)
    unknown = []
    commands = _commands()
    assert len(commands) > 20
    for document, words in commands:
        command = command_line
        rest = list(words)
        while rest and hasattr(command, "commands") and rest[0] in command.commands:
            command = command.commands[rest.pop(0)]
        if hasattr(command, "commands") and not any(word.startswith("--") for word in rest[:1]):
            unknown.append(f"{document}: {words}")
            continue
        options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        unknown += [
            f"{document}: {words}: {word}"
            for word in rest
            if word.startswith("--") and word.split("=")[0] not in options
        ]
    assert unknown == []


@dataclass
class _Event:
    levels: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)


def _logged() -> dict[str, _Event]:
    """The events that the source logs: ``log.warning("noun.past_participle", key=…)``.

    Also seen: a name from a table of constants, ``log.info(_SETTLED[kind], …)``, and a level that was chosen before,
    ``say = log.info if … else log.error``, as may be a name. Whatever else stands where the name should be is a
    failure.
    """
    events: dict[str, _Event] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        assigned = {
            target.id: node.value
            for node in nodes
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            said = assigned.get(call.func.id) if isinstance(call.func, ast.Name) else call.func
            if said is None or (isinstance(call.func, ast.Name) and not isinstance(said, ast.IfExp)):
                continue
            choices = (said.body, said.orelse) if isinstance(said, ast.IfExp) else (said,)
            levels = {LEVELS[choice.attr] for choice in choices if _is_logging(choice)}
            if not levels:
                continue
            names = _constants(call.args[0], assigned) if call.args else set()
            assert names, f"{path.name}:{call.lineno}: a log event is a constant, so that it can be searched for"
            for name in names:
                event = events.setdefault(name, _Event())
                event.levels |= levels
                event.keys |= {word.arg for word in call.keywords if word.arg and word.arg != "exc_info"}
    return events


def _is_logging(said: ast.expr) -> bool:
    """``log.info`` and its kind, or ``structlog.get_logger(…).info``."""
    if not (isinstance(said, ast.Attribute) and said.attr in LEVELS):
        return False
    return "log" in ast.unparse(said.value).split("(")[0].split(".")[-1]


def _constants(name: ast.expr, assigned: dict[str, ast.expr]) -> set[str]:
    if isinstance(name, ast.Constant):
        return {name.value} if isinstance(name.value, str) else set()
    if isinstance(name, ast.Name) and name.id in assigned:
        return _constants(assigned[name.id], {})
    if isinstance(name, ast.IfExp):
        return _constants(name.body, assigned) | _constants(name.orelse, assigned)
    if isinstance(name, ast.Subscript) and isinstance(name.value, ast.Name):
        table = assigned.get(name.value.id)
        return (
            {value.value for value in table.values if isinstance(value, ast.Constant)}
            if isinstance(table, ast.Dict)
            else set()
        )
    return set()


def _catalogued() -> dict[str, _Event]:
    rows = re.findall(
        r"^\| `([^`]+)` \| ([a-z, ]+) \| ([^|]*) \|", (ROOT / "docs/log-events.md").read_text("utf-8"), re.MULTILINE
    )
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)), "an event stands twice in the catalogue"
    return {name: _Event(set(levels.split(", ")), set(re.findall(r"`([^`]+)`", keys))) for name, levels, keys in rows}


def test_catalogue_of_log_events_is_the_source_s() -> None:
    logged, catalogued = _logged(), _catalogued()
    assert {name: logged[name] for name in logged.keys() - catalogued.keys()} == {}, "not in docs/log-events.md"
    assert catalogued.keys() - logged.keys() == set(), "in docs/log-events.md, and logged nowhere"
    assert {name: (logged[name], catalogued[name]) for name in logged if logged[name] != catalogued[name]} == {}


def test_log_events_are_named_after_a_noun_and_what_befell_it() -> None:
    assert [name for name in _logged() if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name)] == []


def test_the_glossary_has_a_row_for_each_public_class_of_the_engine() -> None:
    """Stale? ``python scripts/glossary.py``."""
    spec = importlib.util.spec_from_file_location("glossary", ROOT / "scripts" / "glossary.py")
    assert spec is not None and spec.loader is not None
    glossary = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(glossary)
    assert glossary.PAGE.read_text("utf-8").endswith(glossary.parts())
    assert "|  |" not in glossary.parts(), "a class without a docstring"
