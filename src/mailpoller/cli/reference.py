"""``python -m mailpoller.cli.reference > docs/cli.md``: every verb's help as one page."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from mailpoller.cli.program import program

_PREFACE = """\
# The command line

What `--help` says of each verb, written by `python -m mailpoller.cli.reference > docs/cli.md`; a test
compares it with the program.

- `--config` is found in `MAILPOLLER_CONFIG` if it is not given, then in `/etc/mailpoller/mailpoller.yaml`.
- Results go to standard output, logs, warnings and progress to standard error. In a pipe a table is
  tab-separated with a header line; `--json` gives [JSON](json.md), one document, or one object a line where messages
  come one after the other (`run --dry-run`, `explain`, `queue take`). `NO_COLOR` and `COLUMNS` are respected.
- Every way to end is an [exit code](operations.md#exit-codes). An error that was foreseen is one line a problem.
  A bug is one line too, and `MAILPOLLER_DEBUG=1` shows its traceback; `run` writes it to the log in any case.
- `status`, `errors` and `trace` need to read the ledger, and `poll`, `redeliver`, `accept` and `forget` to use the
  control socket: both are the service's group's. Where no daemon runs, all but `poll` work on the ledger itself.
- Root reads configuration and secrets and then works as the owner of the state directory (`service.state_directory`),
  to the end: what a verb makes is the service's, and no link in its directories is followed by root. Certificates and
  keys are read as that user, as the service reads them. Where a queue is named by its file, it is that file's owner.
"""


def reference() -> str:
    """The page, as Markdown. Not typer's own layout, which changes with its versions."""
    command = get_command(program)
    return "\n".join([_PREFACE, *_verbs(command, "mailpoller")])


def _verbs(command: Any, path: str) -> Iterator[str]:
    for name, verb in command.commands.items():
        where = f"{path} {name}"
        arguments = [param for param in verb.params if param.param_type_name == "argument"]
        usage = "".join(f" {_argument(argument)}" for argument in arguments)
        heading = where if hasattr(verb, "commands") else f"`{where}{usage}`"
        yield f"## {heading}\n\n{_prose(verb.help)}\n"
        if verb.params:
            yield "| | |\n|---|---|\n" + "\n".join(_row(param) for param in verb.params) + "\n"
        if hasattr(verb, "commands"):
            yield from _verbs(verb, where)


def _argument(argument: Any) -> str:
    word = (argument.metavar or argument.name.upper()) + ("…" if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _row(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"| `{_argument(param)}` | {param.help or ''} |"
    names = ", ".join(f"`{name}`" for name in param.opts)
    return f"| {names} | {param.help} |"


def _prose(text: str) -> str:
    """A help text as Markdown: its examples become a block."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        head, _, examples = paragraph.partition("\b\n")
        if examples:
            title, *lines = examples.splitlines()
            head = f"{title}\n\n```text\n" + "\n".join(line.removeprefix("  ") for line in lines) + "\n```"
        paragraphs.append(head)
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    sys.stdout.write(reference())
