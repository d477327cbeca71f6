"""The recipes of the page about rules do what their tests say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailpoller.cli.trials import Bench
from mailpoller.config import load
from mailpoller.config.tests_found import find_tests

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")
SECTION = re.split(r"^## ", PAGE.partition("\n## Recipes\n")[2], flags=re.MULTILINE)[0]
RECIPES = re.findall(r"^\*\*(.*?)\*\*.*?^```yaml\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
MAIN = """
service: {{state_directory: {place}}}
queues:
{queues}
outgoing:
  relay: {{type: smtp, host: relay.example, sender: support@example.com}}
mailboxes:
  support:
    type: maildir
    path: {place}/mail
    default_queue: support
    rules: [{rules}]
"""


def test_there_are_recipes() -> None:
    assert len(RECIPES) == len(re.findall(r"^```yaml$", SECTION, re.MULTILINE)) >= 6


@pytest.mark.parametrize(("title", "recipe"), RECIPES)
def test_recipe_does_what_it_says(title: str, recipe: str, tmp_path: Path) -> None:
    (tmp_path / "partners").write_text("partner.example\n", "utf-8")
    recipe = recipe.replace("/etc/mailpoller/partners", str(tmp_path / "partners"))
    names = re.findall(r"^  - name: (\S+)$", recipe.partition("\ntests:")[0], re.MULTILINE)
    queues = "".join(
        f"  {queue}: {{type: jsonl, path: {tmp_path}/{queue}}}\n"
        for queue in ("support", *sorted(set(re.findall(r"queue: (\w+)", recipe))))
    )
    path = tmp_path / "mailpoller.yaml"
    path.write_text(MAIN.format(place=tmp_path, queues=queues, rules=", ".join(names)) + recipe, "utf-8")
    config = load(path)
    bench = Bench(config)
    trials = [trial for found in find_tests(config) for trial in bench.carry_out(found)]

    assert trials
    assert config.warnings == ()
    assert [
        (trial.found.test.name, trial.error, trial.differences) for trial in trials if trial.result != "passed"
    ] == []
