"""Which files a configuration is made of: the main one and the drop-ins that it includes."""

from __future__ import annotations

import glob
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path

from mailpoller.config.document import read
from mailpoller.config.node import Node
from mailpoller.config.problems import Problem
from mailpoller.core.record import record
from mailpoller.storage.disk import accessible

TESTS = ".test.yaml"
"""How the name of a file ends that holds nothing but tests of rules: no wildcard means it."""
MAX_FILES = 10_000
"""Drop-ins."""
MAX_PATTERNS = 100
"""Of ``include``, each of which costs a look through a directory."""
MAX_WILD = 2
"""Parts of a pattern with wildcards: a third would look through half a disk."""
MAX_OCTETS = 64 << 20
"""Of all drop-ins together."""


@record
class Files:
    """What was read. ``names``: the main file first, then the drop-ins in the order in which they count.
    ``complete``: all of them could be read."""

    main: Node
    drop_ins: tuple[Node, ...]
    names: tuple[Path, ...]
    complete: bool


@record
class Instead:
    """What is to be taken for the files as they will be. ``content``: of the main file. ``drop_in``: one more, in the
    place of the one that is called ``name``, if there is one."""

    content: bytes | None = None
    drop_in: Path | None = None
    name: str = ""


AS_THEY_ARE = Instead()


def read_files(path: Path, problems: list[Problem], instead: Instead = AS_THEY_ARE) -> Files | None:
    """Read ``path`` and its drop-ins; None if there is no tree of ``path`` itself. Adds what is wrong to
    ``problems``."""
    main = read(path, problems, instead.content)
    if main is None:
        return None
    if main.value == {}:
        problems.append(main.problem("the file is empty"))
    names = _included(main, problems)
    if instead.drop_in is not None:
        names = [*(one for one in names if one.name != instead.name and one != instead.drop_in), instead.drop_in]
    if sum(_size(name) for name in names) > MAX_OCTETS:
        problems.append(main.problem(f"drop-ins of more than {MAX_OCTETS >> 20} MiB together", key="include"))
        return Files(main, (), (path,), False)
    trees = [read(name, problems) for name in names]
    return Files(main, tuple(tree for tree in trees if tree is not None), (path, *names), None not in trees)


def _included(main: Node, problems: list[Problem]) -> list[Path]:
    include = main.entries.get("include")
    if include is None or include.value is None:
        return []
    found: dict[Path, None] = {}
    patterns = include.value if isinstance(include.value, list) else [include]
    if len(patterns) > MAX_PATTERNS:
        problems.append(include.problem(f"more than {MAX_PATTERNS} patterns: let one stand for many files"))
        return []
    for pattern in patterns:
        if isinstance(pattern.value, str) and pattern.value:
            found |= dict.fromkeys(_matching(pattern, pattern.value, problems))
        else:
            problems.append(pattern.problem("expected a file name pattern such as conf.d/*.yaml, or a list of them"))
        if len(found) > MAX_FILES:
            problems.append(pattern.problem(f"more than {MAX_FILES:,} drop-ins"))
            return []
    return list(found)


def _matching(node: Node, pattern: str, problems: list[Problem]) -> list[Path]:
    """The files that a pattern, relative to the directory of the file it stands in, means."""
    here = node.file.parent
    if not glob.has_magic(pattern):
        if (here / pattern) == node.file:
            problems.append(node.problem("a file cannot include itself"))
            return []
        if (here / pattern).exists():
            return [here / pattern]
        problems.append(node.problem("there is no such file"))
        return []
    if sum(map(glob.has_magic, Path(pattern).parts)) > MAX_WILD:
        problems.append(node.problem(f"wildcards in more than {MAX_WILD} parts of the path: name the directory"))
        return []
    directory = here / Path(pattern).parent
    if directory.is_dir() and not accessible(directory, os.R_OK | os.X_OK):
        problems.append(node.problem("the directory cannot be read"))  # glob would find nothing, and say nothing
        return []
    # Not Path.glob: that one takes hidden files, such as an editor's, and no absolute pattern.
    names = sorted(islice(glob.iglob(pattern, root_dir=here), MAX_FILES + 2))  # noqa: PTH207
    files = [here / name for name in names if here / name != node.file and not name.endswith(TESTS)]
    if not files:
        problems.append(node.problem("no file matches this pattern", "warning"))
    return files


def _size(file: Path) -> int:
    with suppress(OSError, ValueError):
        return file.stat().st_size
    return 0
