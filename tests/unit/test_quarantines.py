"""Which mailboxes share a queue for notices of what is quarantined."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from mailpoller.app import assemble
from mailpoller.config import Config, load
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.literals import Secret
from mailpoller.engine.notices import Unknown
from mailpoller.testing.fake_sink import FakeSink

BUILT: list[tuple[str, str]] = []


class Vault(SinkConfig):
    """A third party's sink that is logged in to."""

    type: Literal["vault"] = "vault"
    token: Secret
    labels: list[str] = Field(default_factory=list)

    def build(self, name: str, runtime: Runtime) -> FakeSink:
        BUILT.append((name, self.token.reveal()))
        return FakeSink()


def config(directory: Path, *mailboxes: str) -> Config:
    blocks = "\n".join(
        f"  {name}: {{type: maildir, path: {directory / name}, default_queue: support}}" for name in mailboxes
    )
    file = directory / "mailpoller.yaml"
    file.write_text(
        f"service: {{environment: production, state_directory: {directory}, control_socket: {directory / 'control'}}}\n"
        f"ledger: {{type: sqlite, path: {directory / 'ledger.db'}}}\n"
        f"queues: {{support: {{type: jsonl, path: {directory / 'support.jsonl'}}}}}\n"
        f"mailboxes:\n{blocks}\n"
    )
    return load(file)


async def built(found: Config, **overrides: Vault) -> list[tuple[str, str]]:
    """(name, token) of every vault that the service builds."""
    BUILT.clear()
    async with assemble(dataclasses.replace(found, overrides=overrides)):
        return list(BUILT)


async def test_quarantines_that_differ_in_a_secret_alone_are_two_queues(tmp_path: Path) -> None:
    found = config(tmp_path, "a", "b")
    both = await built(found, a=Vault(token=Secret("first")), b=Vault(token=Secret("second")))
    assert both == [("notices", "first"), ("notices of b", "second")]


async def test_mailboxes_whose_quarantines_are_equal_share_one_queue(tmp_path: Path) -> None:
    found = config(tmp_path, "a", "b")
    alike = {name: Vault(token=Secret("same"), labels=["one"]) for name in ("a", "b")}
    assert await built(found, **alike) == [("notices", "same")]


async def test_a_notice_of_a_mailbox_that_is_not_here_goes_to_nobody_but_those_that_it_names(tmp_path: Path) -> None:
    found = config(tmp_path, "polled", "idle")
    own = {"polled": Vault(token=Secret("one")), "idle": Vault(token=Secret("two"))}
    config_ = dataclasses.replace(found, overrides=own, wrong={"wrong": ()})
    async with assemble(config_, only="polled") as app:
        assert app.fleet.told_of("polled") is not None
        for name in ("idle", "wrong"):
            with pytest.raises(Unknown):
                app.fleet.told_of(name)
        assert app.fleet.told_of("removed long ago") is None
