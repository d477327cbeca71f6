"""``mailpoller test``: carries out the tests that stand beside the rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailpoller.cli.exits import IOERR, NOINPUT, complain, explained
from mailpoller.cli.options import ConfigOption, JsonOption
from mailpoller.cli.output import coloured, counted, one_line, print_json

if TYPE_CHECKING:
    from mailpoller.cli.trials import Trial
    from mailpoller.config.tests_found import FoundTest

FAILED = 1
"""The exit code where a test fails, as test runners have it."""


def test(
    config: ConfigOption,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...", help="Files of tests, instead of all that stand in and beside the configuration."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-k", metavar="TEXT", help="Only tests with this in their name.")
    ] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Pass over tests that passed before and of which nothing has changed.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the results there, as JUnit XML.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Carry out the tests that stand beside the rules.

    Their mails are judged as the service would, and what becomes of them is compared with what is expected. Nothing is
    fetched or delivered. The tests are those under tests in the configuration, and those in files called
    *.test.yaml beside it and beside its drop-ins. Rules that no test met are named at the end.

    \b
    Examples:
      mailpoller test
      mailpoller test --changed -k invoice
      mailpoller test --junit results.xml rules/billing.test.yaml

    Exits with 1 if a test fails or could not be carried out, with 66 if there is none, with 78 if the configuration or
    a file of tests is wrong.
    """
    from mailpoller.cli.passed import Passed
    from mailpoller.cli.service import loaded
    from mailpoller.cli.trials import Bench, unmatched
    from mailpoller.config.tests_found import find_tests

    with explained():
        found = loaded(config)
        wanted = [one for one in find_tests(found, files or None) if name is None or name in one.test.name]
        bench, passed = Bench(found), Passed(found)
        trials: list[Trial] = []
        unchanged = 0
        met: set[str] = set()
        for one in wanted:
            known = passed.rules_met(one) if changed else None
            if known is not None:
                unchanged += 1
                met.update(known)
                continue
            own = list(bench.carry_out(one))
            met.update(rule for trial in own for rule in trial.matched)
            if all(trial.result == "passed" for trial in own):
                passed.note(one, sorted({rule for trial in own for rule in trial.matched}))
            trials += own
            if not as_json:
                _show(own)
        passed.keep()
        left = unmatched(found, met)
        if report is not None:
            _write(report, trials)
        if as_json:
            print_json(_told(trials, unchanged, left))
        elif wanted:
            _sum_up(trials, unchanged, left if name is None and not files else [])
        if not wanted:
            complain("there is no test" + (f" with {name} in its name" if name else ""))
            raise typer.Exit(NOINPUT)
        if any(trial.result != "passed" for trial in trials):
            raise typer.Exit(FAILED)


def _show(trials: Sequence[Trial]) -> None:
    for trial in trials:
        title = trial.found.test.name + (f" ({trial.mail})" if trial.mail else "")
        if trial.result == "passed":
            typer.echo(f"{coloured('passed', 'green')}  {one_line(title)}")
            continue
        typer.echo(f"{coloured(trial.result, 'red')}  {one_line(title)}")
        typer.echo(f"        {one_line(_place(trial.found))}, judged as {trial.found.mailbox}")
        for line in [trial.error] if trial.error else trial.differences:
            typer.echo(f"        {one_line(line)}")
        for rule in trial.story.get("rules", ()):
            why = f": {rule['why']}" if rule["why"] else ""
            typer.echo(f"          {one_line(('+ ' if rule['matched'] else '- ') + rule['rule'] + why)}")


def _place(found: FoundTest) -> str:
    return found.node.place()


def _sum_up(trials: Sequence[Trial], unchanged: int, left: Sequence[str]) -> None:
    results = [trial.result for trial in trials]
    words = [f"{results.count('passed'):,} passed"]
    words += [f"{results.count('failed'):,} failed"] if "failed" in results else []
    words += [f"{results.count('error'):,} could not be carried out"] if "error" in results else []
    words += [f"{counted(unchanged, 'test')} unchanged"] if unchanged else []
    typer.echo(", ".join(words))
    if left:
        typer.echo(f"no test meets {counted(len(left), 'rule')}: {one_line(left)}")


def _told(trials: Sequence[Trial], unchanged: int, left: Sequence[str]) -> dict[str, Any]:
    results = [trial.result for trial in trials]
    return {
        "passed": results.count("passed"),
        "failed": results.count("failed"),
        "errors": results.count("error"),
        "unchanged": unchanged,
        "unmatched": left,
        "tests": [
            {
                "name": trial.found.test.name,
                "mailbox": trial.found.mailbox,
                "mail": trial.mail,
                "file": str(trial.found.node.file),
                "line": trial.found.node.line,
                "result": trial.result,
                "error": trial.error,
                "differences": trial.differences,
                "rules": trial.story.get("rules", []),
            }
            for trial in trials
        ],
    }


def _write(report: Path, trials: Sequence[Trial]) -> None:
    from mailpoller.cli.junit import junit

    try:
        report.write_text(junit(trials), "utf-8")
    except OSError as error:
        complain(f"{report}: {error.strerror}")
        raise typer.Exit(IOERR) from None
