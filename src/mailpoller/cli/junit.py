"""The results of tests as JUnit XML, which every continuous integration reads."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from mailpoller.cli.output import one_line
from mailpoller.cli.trials import Trial


def junit(trials: Sequence[Trial]) -> str:
    """One suite of a case a trial. Control characters, which XML cannot hold, are shown as U+FFFD."""
    failed = sum(trial.result == "failed" for trial in trials)
    errors = sum(trial.result == "error" for trial in trials)
    elapsed = sum(trial.elapsed for trial in trials)
    return "".join((
        '<?xml version="1.0" encoding="UTF-8"?>\n',
        f'<testsuites tests="{len(trials)}" failures="{failed}" errors="{errors}" time="{elapsed:.3f}">\n',
        f'<testsuite name="mailpoller rules" tests="{len(trials)}" failures="{failed}" errors="{errors}" ',
        f'time="{elapsed:.3f}">\n',
        *map(_case, trials),
        "</testsuite>\n</testsuites>\n",
    ))  # fmt: skip


def _case(trial: Trial) -> str:
    node = trial.found.node
    name = trial.found.test.name + (f" ({trial.mail})" if trial.mail else "")
    opening = (
        f"<testcase name={_attribute(name)} classname={_attribute(trial.found.mailbox)} "
        f'file={_attribute(str(node.file))} line="{node.line}" time="{trial.elapsed:.3f}"'
    )
    if trial.result == "passed":
        return f"{opening}/>\n"
    kind, words = ("error", trial.error) if trial.error else ("failure", "; ".join(trial.differences))
    return f"{opening}><{kind} message={_attribute(words)}/></testcase>\n"


def _attribute(text: str) -> str:
    # XML 1.0 forbids U+FFFE and U+FFFF too, and str.isprintable knows that.
    return quoteattr(one_line(text))
