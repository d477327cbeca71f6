"""What a configuration says that cannot be used: as much as is needed to reach the daemon that runs without it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mailpoller.config import sections
from mailpoller.config.checked import Config
from mailpoller.config.document import read
from mailpoller.config.model import ServiceConfig
from mailpoller.config.node import Node
from mailpoller.core.regular import read_regular

_LINE = re.compile(rb"(?:^[ \t]+|[{,][ \t]*+)control_socket:[ \t]*[\"']?([^\s\"'#,}]+)", re.MULTILINE)
_MOST = 16 << 20


def control_socket(path: Path) -> Path:
    """``service.control_socket`` as the file has it, also if it is not even YAML; else the default."""
    tree = read(path, [])
    service = tree.entries.get("service") if tree is not None else None
    written = service.entries.get("control_socket") if isinstance(service, Node) else None
    if written is not None and isinstance(written.value, str) and written.value:
        return Path(written.value)
    if tree is None:
        try:
            found = _LINE.search(read_regular(path, _MOST))
        except (OSError, ValueError):
            found = None
        if found is not None:
            return Path(found[1].decode("utf-8", "surrogateescape"))
    default = ServiceConfig.model_fields["control_socket"].default
    assert isinstance(default, Path)
    return default


def empty(path: Path) -> Config:
    """A configuration in which there is nothing, in the place of one that cannot be used."""
    rows = [one for one in sections.TABLE if one.many or one.shape == "block"]
    made: dict[str, Any] = {one.key: {} if one.many else None for one in rows}
    return Config(made | {sections.SERVICE.key: ServiceConfig()}, files=(path,))
