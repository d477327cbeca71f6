"""The bill of materials of what an installation can hold, CycloneDX in JSON, made of the requirement files.

It lists the service and all of its extras, without the tests, and who brings what. The same files give the same octets.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_PIN = re.compile(r"^([a-z0-9.-]+)(?:\[[a-z0-9,-]+\])?==(\S+)(?: ; (.*?))? \\$")


class Pin(NamedTuple):
    """One line of a requirement file."""

    version: str
    marker: str
    hashes: tuple[str, ...]
    wanted_by: frozenset[str]
    """Names of packages; the project's own is among them if it asks itself."""


def pins(file: Path) -> dict[str, Pin]:
    """What a file locks, by name. Raises ValueError for a line that is none of ours."""
    found: dict[str, Pin] = {}
    name = ""
    for line in file.read_text("utf-8").splitlines():
        if pin := _PIN.match(line):
            name = pin[1]
            found[name] = Pin(pin[2], pin[3] or "", (), frozenset())
        elif hashed := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})(?: \\)?", line):
            found[name] = found[name]._replace(hashes=(*found[name].hashes, hashed[1]))
        elif via := re.fullmatch(r"    #(?: via)?(?:\s+(\S+)(?: \(.*\))?)?", line):
            if via[1] and not via[1].startswith("-"):
                found[name] = found[name]._replace(wanted_by=found[name].wanted_by | {via[1].partition("[")[0]})
        elif "# via -c" not in line and "#   -c" not in line:
            raise ValueError(f"{file.name}: {line}")
    return found


def bill() -> dict[str, Any]:
    """The document."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    source = (ROOT / "src" / "mailpoller" / "__init__.py").read_text("utf-8")
    version = re.findall(r'^__version__ = "(.*)"$', source, re.MULTILINE)[0]
    runtime = pins(ROOT / "requirements" / "runtime.txt")
    every = dict(runtime)
    for extra in project["optional-dependencies"]:
        if extra != "test":
            for name, pin in pins(ROOT / "requirements" / f"{extra}.txt").items():
                known = every.setdefault(name, pin)
                every[name] = known._replace(wanted_by=known.wanted_by | pin.wanted_by)

    def purl(name: str) -> str:
        return f"pkg:pypi/{name}@{every[name].version if name in every else version}"

    components = [
        {
            "type": "library",
            "bom-ref": purl(name),
            "name": name,
            "version": pin.version,
            "scope": "required" if name in runtime else "optional",
            "purl": purl(name),
            # Of every file of the release: which of them is installed depends on the machine.
            "properties": [
                *([{"name": "mailpoller:marker", "value": pin.marker}] if pin.marker else []),
                *({"name": "mailpoller:sha256", "value": one} for one in pin.hashes),
            ],
        }
        for name, pin in sorted(every.items())
    ]
    itself = project["name"]
    dependencies = [
        {"ref": purl(one), "dependsOn": sorted(purl(name) for name, pin in every.items() if one in pin.wanted_by)}
        for one in (itself, *sorted(every))
    ]
    content: dict[str, Any] = {
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl(itself),
                "name": itself,
                "version": version,
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": purl(itself),
            }
        },
        "components": components,
        "dependencies": dependencies,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **content,
    }


def text() -> str:
    """The file."""
    return json.dumps(bill(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
