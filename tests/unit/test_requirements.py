"""What is imported is locked, what is locked has hashes and lies in the ranges, and the bill of materials lists it."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements"
READ = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = READ["project"]["optional-dependencies"]
GROUPS = READ["dependency-groups"]
RUNTIME = READ["project"]["dependencies"]
FILES = {
    "runtime": RUNTIME,
    **{name: [*RUNTIME, *wanted] for name, wanted in EXTRAS.items()},
    **GROUPS,
    "all": [*RUNTIME, *(one for wanted in (*EXTRAS.values(), *GROUPS.values()) for one in wanted)],
}


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sbom = _script("sbom")
ranges = _script("ranges")
PINS = {name: sbom.pins(REQUIREMENTS / f"{name}.txt") for name in FILES}


def imported(files: Iterable[Path]) -> dict[str, str]:
    """Modules of others, each with a file that imports it."""
    # Ours are the package, what lies at the top of tests and bench, and what lies beside the file itself.
    ours = {"mailpoller", "mailpoller_examples"} | {
        one.stem for part in ("tests", "bench") for one in (ROOT / part).iterdir()
    }
    found: dict[str, str] = {}
    for file in files:
        near = ours | {one.stem for one in file.parent.glob("*.py") if not (file.parent / "__init__.py").exists()}
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in near and top not in sys.stdlib_module_names:
                    found.setdefault(top, file.name)
    return found


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    """Who brings each module that is installed. To ask reads the record of every package."""
    return packages_distributions()


def unlocked(modules: dict[str, str], *files: str) -> dict[str, str]:
    """Those that no such requirement file brings."""
    locked = {name for file in files for name in PINS[file]}
    known = distributions()
    return {
        module: file
        for module, file in modules.items()
        if not {canonicalize_name(one) for one in known.get(module, [module])} & locked
    }


def test_every_requirement_file_is_one_of_a_range_and_the_other_way_round() -> None:
    assert {file.stem for file in REQUIREMENTS.iterdir()} == set(FILES)


def test_tests_import_nothing_that_their_requirement_file_lacks() -> None:
    found = imported((ROOT / "tests").rglob("*.py"))
    found.pop("atheris")  # scripts/fuzz puts it into an environment of its own, where there is one for this Python
    assert unlocked(found, "test", "build") == {}


def test_benchmarks_import_nothing_that_no_requirement_file_has() -> None:
    assert unlocked(imported((ROOT / "bench").rglob("*.py")), "test", "bench") == {}


def test_service_and_demonstration_import_nothing_that_no_requirement_file_has() -> None:
    assert unlocked(imported((ROOT / "src").rglob("*.py")), "runtime", *EXTRAS) == {}
    assert unlocked(imported((ROOT / "src/mailpoller/demo").rglob("*.py")), "demo") == {}


def test_import_of_a_package_that_no_requirement_file_has_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import os\nimport yaml\ndef late():\n    from httpx.sessions import Session\n    import pip\n")
    assert set(unlocked(imported([planted]), "test")) == {"httpx", "pip"}


@pytest.mark.parametrize("name", FILES)
def test_file_locks_every_range_that_it_is_made_of(name: str) -> None:
    for one in map(Requirement, FILES[name]):
        pin = PINS[name].get(canonicalize_name(one.name))
        assert pin is not None, f"{one.name}: scripts/lock"
        assert one.specifier.contains(pin.version, prereleases=True), f"{one}: scripts/lock"


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_hashes_and_no_index_has_left_its_address(name: str) -> None:
    assert all(pin.hashes for pin in PINS[name].values())
    text = (REQUIREMENTS / f"{name}.txt").read_text("utf-8")
    assert re.findall(r"^\s*-(?!-hash=).*$|^.*(?://| @ ).*$", text, re.MULTILINE) == []


def test_no_two_files_disagree_about_a_version() -> None:
    for name, pins in PINS.items():
        differing = {one for one, pin in pins.items() if PINS["all"][one][:3:2] != pin[:3:2]}
        assert differing == set(), name


def test_markers_are_ones_that_pip_understands() -> None:
    for pins in PINS.values():
        for pin in pins.values():
            assert not pin.marker or isinstance(Marker(pin.marker).evaluate(), bool)


def test_what_builds_the_package_is_locked_too() -> None:
    assert set(READ["build-system"]["requires"]) <= set(GROUPS["build"])


def test_every_range_has_a_lower_bound_that_can_be_tested() -> None:
    for wanted in FILES.values():
        for one in wanted:
            assert ranges.lowest(one).partition("==")[2]
    assert ranges.lowest("httpcore[asyncio]>=1.0.5,<2") == "httpcore[asyncio]==1.0.5"
    assert ranges.lowest("a>=1; sys_platform == 'linux'") == "a==1; sys_platform == 'linux'"
    with pytest.raises(ValueError, match="a range is written"):
        ranges.lowest("types-PyYAML")


def test_bill_of_materials_is_that_of_the_lock() -> None:
    held = (ROOT / "sbom.cdx.json").read_text("utf-8")
    assert held == sbom.text(), "scripts/lock writes it anew"


def test_bill_of_materials_lists_every_package_that_an_installation_can_hold_and_who_brings_it() -> None:
    bill = json.loads((ROOT / "sbom.cdx.json").read_text("utf-8"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    shipped = {name: pin.version for file in ("runtime", *EXTRAS) if file != "test" for name, pin in PINS[file].items()}
    assert {one["name"]: one["version"] for one in bill["components"]} == shipped
    assert {one["name"] for one in bill["components"] if one["scope"] == "required"} == set(PINS["runtime"])
    brought = {ref for one in bill["dependencies"] for ref in one["dependsOn"]}
    assert brought == {one["bom-ref"] for one in bill["components"]}


def test_scripts_and_page_install_with_hashes() -> None:
    for file in ("scripts/environment", "docs/install.md"):
        text = (ROOT / file).read_text("utf-8")
        lines = [line for line in text.splitlines() if re.search(r"(pip|pip_install)\b.* -r ", line)]
        assert lines
        for line in lines:
            assert "--require-hashes" in line or "ranges.txt" in line, line
