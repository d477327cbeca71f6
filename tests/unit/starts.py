"""Which outside programs a Python file starts, as far as its text tells."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PYTHON = "python"
"""This interpreter: ``sys.executable``."""
ASKED = "whatever the table says"
"""A name that is known only when it is asked for: :mod:`servers.programs` raises for one that the table lacks."""

_STARTS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "os": {"system", "popen", "execv", "execve", "execvp", "execvpe", "execl", "execlp", "posix_spawn", "posix_spawnp"},
    "pty": {"spawn"},
    "shutil": {"which"},
}
_OF_LINES = {"system", "popen", "create_subprocess_shell", "getoutput", "getstatusoutput"}
_SHELLS = {"sh", "bash"}
_TABLE = {"find", "found"}
"""Of :mod:`servers.programs`."""
_OWN_WORDS = frozenset(
    ": . [ break case cd command continue do done echo elif else esac eval exec exit export false fi for if"  # noqa: SIM905
    " in printf read return set shift test then trap true ulimit umask unset until wait while { }".split()
)
"""What a shell does itself."""


class Unclear(Exception):
    """A start whose program the text does not tell."""


_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Place = tuple[Path, tuple[_Function, ...]]
"""A file and the functions around a node, the innermost first."""


class Scan:
    """Several files that may import one another.

    ``programs`` and ``unclear`` are pairs of where and what. With ``lists``, a list that looks like a command is one.
    """

    def __init__(
        self, files: Sequence[Path], root: Path, *, lists: Callable[[Path], bool] = lambda path: False
    ) -> None:
        self._places: dict[int, _Place] = {}
        self._assigned: dict[tuple[Path, int, str], list[ast.expr]] = {}
        self._imported: set[tuple[Path, str]] = set()
        self._functions: dict[str, list[_Function]] = {}
        self._calls: dict[str, list[ast.Call]] = {}
        self._aliases: dict[tuple[Path, str], tuple[str, str]] = {}
        self._lists = lists
        self.programs: set[tuple[str, str]] = set()
        self.unclear: set[tuple[str, str]] = set()
        trees = [(path, ast.parse(path.read_text("utf-8"))) for path in files]
        for path, tree in trees:
            self._learn(tree, (path, ()))
        for path, tree in trees:
            file = path.relative_to(root)
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call | ast.List):  # nothing else starts or names a program
                    continue
                where = f"{file}:{node.lineno}"
                try:
                    self.programs.update((where, program) for program in self._started(path, node))
                except Unclear as unclear:
                    self.unclear.add((where, str(unclear)))

    def _learn(self, node: ast.AST, place: _Place) -> None:
        path, around = place
        self._places[id(node)] = place
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for name, value in _pairs(target, node.value):
                    self._assigned.setdefault((path, id(around[0]) if around else 0, name), []).append(value)
        elif isinstance(node, ast.ImportFrom):
            self._imported.update((path, one.asname or one.name) for one in node.names)
            if node.module in _STARTS:
                self._aliases.update({(path, one.asname or one.name): (node.module, one.name) for one in node.names})
        elif isinstance(node, ast.Import):
            self._aliases.update({(path, one.asname): (one.name, "") for one in node.names if one.asname})
        elif isinstance(node, _Function):
            self._functions.setdefault(node.name, []).append(node)
            place = (path, (node, *around))
        elif isinstance(node, ast.Call):
            self._calls.setdefault(_dotted(node.func).rpartition(".")[2], []).append(node)
        for child in ast.iter_child_nodes(node):
            self._learn(child, place)

    def _started(self, path: Path, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.List) and len(node.elts) > 1 and self._lists(path):
            first, second = _text(node.elts[0]), _text(node.elts[1])
            if first[:1] not in ("", "-") and " " not in first and re.match(r"--?[A-Za-z]", second):
                yield first.rpartition("/")[2]
            return
        if not isinstance(node, ast.Call):
            return
        module, name = self._called(path, node.func)
        arguments = list(node.args)
        if name == "to_thread" and arguments:
            module, name = self._called(path, arguments.pop(0))
        if name in _TABLE and module == "programs" and arguments:
            yield _text(arguments[0]) or ASKED
            return
        if name not in _STARTS.get(module, ()):
            return
        given = arguments[0] if arguments else next(one.value for one in node.keywords if one.arg in ("args", "cmd"))
        if name in _OF_LINES or any(one.arg == "shell" and ast.unparse(one.value) != "False" for one in node.keywords):
            if not _text(given):
                raise Unclear(ast.unparse(given))
            yield from _of_a_line(_text(given))
            return
        yield from (word.rpartition("/")[2] for word in self._words(given, frozenset()))
        words = given.elts if isinstance(given, ast.List | ast.Tuple) else arguments
        if len(words) > 2 and _text(words[0]).rpartition("/")[2] in _SHELLS and "c" in _text(words[1]):
            yield from _of_a_line(_text(words[2]))

    def _called(self, path: Path, function: ast.expr) -> tuple[str, str]:
        """Module and name, whatever they are called in the file."""
        module, _, name = _dotted(function).rpartition(".")
        if not module:
            return self._aliases.get((path, name), ("", name))
        return self._aliases.get((path, module), (module, ""))[0], name

    def _words(self, given: ast.expr, seen: frozenset[int]) -> Iterator[str]:
        """The first words that the expression can stand for."""
        if id(given) in seen:
            return
        seen |= {id(given)}
        if isinstance(given, ast.Starred):
            given = given.value
        if text := _text(given):
            yield text.split()[0]
        elif _dotted(given) == "sys.executable":
            yield PYTHON
        elif isinstance(given, ast.List | ast.Tuple) and given.elts:
            yield from self._words(given.elts[0], seen)
        elif isinstance(given, ast.IfExp):
            yield from self._words(given.body, seen)
            yield from self._words(given.orelse, seen)
        elif isinstance(given, ast.BinOp) and isinstance(given.op, ast.Add):
            yield from self._words(given.left, seen)
        elif isinstance(given, ast.BinOp) and isinstance(given.op, ast.Div):  # a path, by its last part
            yield from self._words(given.right, seen)
        elif isinstance(given, ast.ListComp):
            yield from self._words(given.generators[0].iter, seen)
        elif isinstance(given, ast.Name):
            yield from self._of_a_name(given, seen)
        elif isinstance(given, ast.Call):
            yield from self._of_a_call(given, seen)
        else:
            raise Unclear(ast.unparse(given))

    def _of_a_call(self, given: ast.Call, seen: frozenset[int]) -> Iterator[str]:
        name = _dotted(given.func).rpartition(".")[2]
        if name in _TABLE and given.args:
            yield _text(given.args[0]) or ASKED
            return
        if name in ("which", "str", "list") and given.args:
            yield from self._words(given.args[0], seen)
            return
        returned = [
            node.value
            for function in self._functions.get(name, [])
            if self._means(given, function)
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and node.value is not None and self._places[id(node)][1][0] is function
        ]
        if not returned:
            raise Unclear(ast.unparse(given))
        for value in returned:
            yield from self._words(value, seen)

    def _means(self, call: ast.Call, function: _Function) -> bool:
        """Whether the call may be one of that function: by its name alone, as far as that reaches."""
        here, there = self._places[id(call)][0], self._places[id(function)][0]
        if here == there or (here, function.name) in self._imported:
            return True
        if not isinstance(call.func, ast.Attribute) or function.name.startswith("_"):
            return False
        # Of a module that was imported, or of an object.
        of_a_module = isinstance(call.func.value, ast.Name) and (here, call.func.value.id) in self._imported
        return of_a_module is ([one.arg for one in function.args.args[:1]] != ["self"])

    def _of_a_name(self, given: ast.Name, seen: frozenset[int]) -> Iterator[str]:
        path, around = self._places[id(given)]
        for function in around:
            if values := self._assigned.get((path, id(function), given.id)):
                for value in values:
                    yield from self._words(value, seen)
                return
            places = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
            rest = function.args.vararg.arg if function.args.vararg else ""
            if given.id in (*places, rest):
                at = len(places) if given.id == rest else places.index(given.id)
                at -= places[:1] in (["self"], ["cls"])
                given_there = [
                    argument
                    for call in self._calls.get(function.name, [])
                    if self._means(call, function)
                    for argument in call.args[at : at + 1]
                ]
                if not given_there:
                    raise Unclear(given.id)
                for argument in given_there:
                    yield from self._words(argument, seen)
                return
        values = self._assigned.get((path, 0, given.id), [])
        if not values and (path, given.id) in self._imported:
            values = [
                value
                for (_, function, name), some in self._assigned.items()
                if not function and name == given.id
                for value in some
            ]
        if not values:
            raise Unclear(given.id)
        for value in values:
            yield from self._words(value, seen)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple | ast.List):
        several = value.elts if isinstance(value, ast.Tuple | ast.List) else [value] * len(target.elts)
        for one, of_it in zip(target.elts, several, strict=False):
            yield from _pairs(one, of_it)


def _dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def _text(node: ast.expr) -> str:
    """A text as it stands in the file; of one with ``{}`` in it what comes before; empty if it is none."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0] if node.values else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _of_a_line(text: str) -> Iterator[str]:
    """The programs that a line for the shell starts."""
    for part in re.split(r"[;&|\n]+", text):
        words = [word for word in part.split() if not re.match(r"\w+=", word)]
        while words and words[0] in ("exec", "if", "then", "while", "do", "!", "command"):
            words.pop(0)
        if words and words[0] not in _OWN_WORDS and re.fullmatch(r"[\w./-]+", words[0]):
            yield words[0].rpartition("/")[2]
