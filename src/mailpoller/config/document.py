"""One YAML file as a tree that knows the line and column of every key. Nothing here knows what the keys mean.

YAML is read by PyYAML's safe loader, by its events rather than by its nodes: so nesting, aliases and size are bounded
before they cost anything, keys given twice are seen, and no error ever quotes a line of the file (it may hold a
secret).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.reader import Reader

from mailpoller.config.node import Node, Scalar, join
from mailpoller.config.problems import Problem
from mailpoller.core.regular import read_regular

MAX_OCTETS = 16 << 20
"""A larger file is not read."""
MAX_DEPTH = 32
"""Blocks within blocks, aliases followed."""
MAX_NODES = 2_000_000
"""Keys and values of one file once every alias is replaced by what it stands for."""

MAX_SCALAR = 64
"""Characters of what is read as anything but text: base 60 and base 16 make numbers of any length, at any cost."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_ODD_INDENTATION = re.compile("^ *[\u00a0\u2000-\u200b\u202f\u3000]", re.MULTILINE)
"""What web pages and word processors put where a space was; YAML would take it for the beginning of a key."""
_CORE_TAG = "tag:yaml.org,2002:"
_IMPLICIT: dict[str | None, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers


class Unreadable(Exception):
    """The file is of no use: the one problem that says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read(file: Path, problems: list[Problem], octets: bytes | None = None) -> Node | None:
    """The file's tree; a file without content is an empty block. Problems found on the way are added. ``octets``: its
    content, if that is to be taken for what the file holds.

    None if there is no tree at all, which is then among the problems too.
    """
    try:
        return _Composer(file, _text(file, octets), problems).compose()
    except Unreadable as unreadable:
        problems.append(unreadable.problem)
        return None


def _text(file: Path, octets: bytes | None) -> str:
    if octets is not None and len(octets) > MAX_OCTETS:
        raise _unreadable(file, f"larger than {MAX_OCTETS >> 20} MiB: this is not a configuration file")
    try:
        octets = read_regular(file, MAX_OCTETS) if octets is None else octets
    except FileNotFoundError:
        raise _unreadable(file, "there is no such file") from None
    except IsADirectoryError:
        raise _unreadable(file, "this is a directory, not a file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            raise _unreadable(file, f"{error.strerror}: this is not a configuration file") from None
        raise _unreadable(file, f"cannot be read: {getattr(error, 'strerror', None) or 'not a usable name'}") from None
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = octets[: error.start].decode("utf-8-sig")
        raise _unreadable(file, "not UTF-8 text: save the file as UTF-8", *_position(before)) from None
    if found := _ODD_INDENTATION.search(text):
        message = "a space that is none to YAML (a no-break space, say): type it anew"
        raise _unreadable(file, message, *_position(text[: found.end() - 1]))
    if found := Reader.NON_PRINTABLE.search(text):
        raise _unreadable(file, "a control character, which YAML forbids", *_position(text[: found.start()]))
    return text


def _position(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _unreadable(file: Path, message: str, line: int = 1, column: int = 1, path: str = "") -> Unreadable:
    return Unreadable(Problem(file, line, column, path, message))


@dataclass(slots=True)
class _Frame:
    """A block or list that is still open."""

    node: Node
    key: str | None = None
    """The key whose value comes next, if this is a block and its key was read."""
    key_line: int = 0
    key_column: int = 0
    merged: list[Node] = field(default_factory=list)
    """What ``<<`` brought in."""
    weight: int = 1
    height: int = 1
    anchor: str | None = None


class _Composer:
    def __init__(self, file: Path, text: str, problems: list[Problem]) -> None:
        self._file = file
        self._text = text
        self._problems = problems
        self._constructor = SafeConstructor()
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        self._open: list[_Frame] = []
        self._root: Node | None = None
        self._reached = 0
        """The character after the last event."""

    def compose(self) -> Node:
        seen_document = False
        for event in self._events():
            if isinstance(event, yaml.NodeEvent):
                self._take(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close()
            elif isinstance(event, yaml.DocumentStartEvent):
                if seen_document:
                    raise self._stop(event, "a second document (---): one file holds one")
                seen_document = True
        if self._root is None or self._root.value is None:
            return Node({}, self._file, 1, 1, "")
        return self._root

    def _events(self) -> Iterator[yaml.Event]:
        loader = _Loader(self._text)
        try:
            while loader.check_event():
                event = loader.get_event()
                if event.end_mark is not None:
                    self._reached = event.end_mark.index
                yield event
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error) from None
        except yaml.YAMLError:
            raise _unreadable(self._file, "not valid YAML") from None
        finally:
            loader.dispose()

    # --- one event ---------------------------------------------------------------------------------------------
    def _take(self, event: yaml.NodeEvent) -> None:
        frame = self._open[-1] if self._open else None
        if frame is not None and frame.key is None and isinstance(frame.node.value, dict):
            self._take_key(frame, event)
            return
        node, weight, height = self._node(frame, event)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) >= MAX_DEPTH:
                raise self._stop(event, f"nested more than {MAX_DEPTH} deep")
            self._open.append(_Frame(node, anchor=event.anchor))
            return
        if event.anchor and not isinstance(event, yaml.AliasEvent):
            self._anchors[event.anchor] = (node, weight, height)
        self._attach(node, weight, height)

    def _take_key(self, frame: _Frame, event: yaml.NodeEvent) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._stop(event, "a key is plain text; quote a text that begins with [, {, * or &")
        frame.key = event.value
        frame.key_line, frame.key_column = _start(event)

    def _node(self, frame: _Frame | None, event: yaml.NodeEvent) -> tuple[Node, int, int]:
        (line, column), path = _start(event), ""
        if frame is not None:
            if frame.key is not None:
                line, column, path = frame.key_line, frame.key_column, join(frame.node.path, frame.key)
            elif isinstance(frame.node.value, list):
                path = f"{frame.node.path}[{len(frame.node.value)}]"
        node = Node(None, self._file, line, column, path)
        if isinstance(event, yaml.AliasEvent):
            if any(open_.anchor == event.anchor for open_ in self._open):
                raise self._stop(event, "an alias within what it stands for")
            if event.anchor not in self._anchors:
                raise self._stop(event, "an alias (*) without an anchor (&) above it; quote a text that begins with *")
            target, weight, height = self._anchors[event.anchor]
            if len(self._open) + height > MAX_DEPTH:
                raise self._stop(event, f"nested more than {MAX_DEPTH} deep")
            node.value = target.value
            return node, weight, height
        if isinstance(event, yaml.ScalarEvent):
            node.value = self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            node.value = {} if isinstance(event, yaml.MappingStartEvent) else []
            if event.tag not in (None, "!", _CORE_TAG + ("map" if isinstance(node.value, dict) else "seq")):
                raise self._stop(event, "tags (!) are not used here; quote a text that begins with !")
        return node, 1, 0

    def _attach(self, node: Node, weight: int, height: int) -> None:
        if not self._open:
            self._root = node
            return
        frame = self._open[-1]
        frame.weight += weight
        frame.height = max(frame.height, height + 1)
        if frame.weight > MAX_NODES:
            raise _unreadable(self._file, f"aliases stand for more than {MAX_NODES:,} values", node.line, node.column)
        if isinstance(frame.node.value, list):
            frame.node.value.append(node)
            return
        assert isinstance(frame.node.value, dict) and frame.key is not None
        if frame.key == "<<":
            frame.merged.extend(node.value if isinstance(node.value, list) else [node])
        elif frame.key in frame.node.value:
            first = frame.node.value[frame.key]
            self._problems.append(node.problem(f"this key is given twice; the first is on line {first.line}"))
        else:
            frame.node.value[frame.key] = node
        frame.key = None

    def _close(self) -> None:
        frame = self._open.pop()
        if isinstance(frame.node.value, dict):
            for merged in frame.merged:
                if not isinstance(merged.value, dict):
                    self._problems.append(merged.problem("<< takes a block, or a list of blocks"))
                for key, child in merged.entries.items():
                    frame.node.value.setdefault(key, child)
        if frame.anchor:
            self._anchors[frame.anchor] = (frame.node, frame.weight, frame.height)
        self._attach(frame.node, frame.weight, frame.height)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        tag = event.tag
        if tag is None or tag == "!":
            tag = _CORE_TAG + "str"
            if event.implicit[0]:
                for candidate, pattern in (*_IMPLICIT.get(event.value[:1], ()), *_IMPLICIT.get(None, ())):
                    if pattern.match(event.value):
                        tag = candidate
                        break
        if tag in (_CORE_TAG + "str", _CORE_TAG + "value", _CORE_TAG + "merge") or len(event.value) > MAX_SCALAR:
            return str(event.value)
        if tag.removeprefix(_CORE_TAG) not in ("int", "float", "bool", "null", "timestamp"):
            raise self._stop(event, "tags (!) are not used here; quote a text that begins with !")
        try:
            made: Scalar = self._constructor.construct_object(yaml.ScalarNode(tag, event.value))
        except (yaml.YAMLError, ValueError, KeyError, AttributeError, IndexError, OverflowError):
            return str(event.value)  # 2026-02-31, say: text, until somebody wants something else
        finally:
            self._constructor.constructed_objects.clear()
        return made

    # --- what is wrong -----------------------------------------------------------------------------------------
    def _stop(self, event: yaml.Event, message: str) -> Unreadable:
        return _unreadable(self._file, message, *_start(event), self._path())

    def _syntax(self, error: yaml.MarkedYAMLError) -> Unreadable:
        mark, context, problem = error.problem_mark or error.context_mark, error.context_mark, error.problem or ""
        if "end of stream" in problem and context is not None:
            mark = context  # a quote is missed where it was opened, not where the file ends
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        # YAML is scanned ahead of its events, and how deep a library goes there is its own affair.
        if mark and len(self._open) + _height(self._text[self._reached : mark.index]) > MAX_DEPTH:
            return _unreadable(self._file, f"nested more than {MAX_DEPTH} deep", line, column, self._path())
        since = f" that began on line {context.line + 1}" if context else ""
        message = _in_plain_words(problem, since, self._character(line, column))
        return _unreadable(self._file, message, line, column, self._path())

    def _path(self) -> str:
        """The innermost block or key that is still open."""
        if not self._open:
            return ""
        frame = self._open[-1]
        return frame.node.path if frame.key is None else join(frame.node.path, frame.key)

    def _character(self, line: int, column: int) -> str:
        lines = self._text.split("\n", line)
        return lines[line - 1][column - 1 : column] if line <= len(lines) else ""


def _start(event: yaml.Event) -> tuple[int, int]:
    """Line and column, counted from 1."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


def _height(text: str) -> int:
    """How many brackets are open at once."""
    open_ = highest = 0
    for character in text:
        open_ += (character in "[{") - (character in "]}")
        highest = max(highest, open_)
    return highest


def _in_plain_words(problem: str, since: str, character: str) -> str:
    """libyaml's complaint as a sysadmin would put it. Never quotes the file."""
    if "cannot start any token" in problem:
        if character == "\t":
            return "a tab cannot indent YAML: use spaces"
        return "a text that begins with @, ` or % must be in quotes"
    for part, words in (
        (
            "mapping values",
            "a second ': ' in one value: check the indentation, or put a text that holds ': ' in quotes",
        ),
        ("end of stream", "this quote is never closed"),
        ("tab character", "a tab cannot indent YAML: use spaces"),
        ("',' or ']'", f"the list{since} is not closed with ], or a comma is missing"),
        ("',' or '}'", f"the block{since} is not closed with }}, or a comma is missing"),
        ("escape", "an unknown escape in double quotes: use single quotes, or write \\\\ for \\"),
        ("'-' indicator", f"this line does not continue the list{since}: check the indentation"),
        ("expected ':'", "a ':' is missing after a key"),
        ("tag", "tags (!) are not used here; quote a text that begins with !"),
        ("node content", "a value is missing here, or must be in quotes"),
        ("expected key", f"this line does not fit the block{since}: check indentation and quotes"),
        ("block end", f"this line does not fit the block{since}: check indentation and quotes"),
        ("anchor", "a text that begins with & or * must be in quotes"),
        ("alias", "a text that begins with & or * must be in quotes"),
        ("directive", "a text that begins with % must be in quotes"),
        ("YAML document", "only YAML 1.1 and 1.2 are read"),
    ):
        if part in problem:
            return words
    return "not valid YAML"
