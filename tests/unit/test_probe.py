"""A live probe goes step by step, to the first that fails, and leaves nothing open."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from mailpoller.core.errors import ConfigError, MailpollerError, TransientError
from mailpoller.wire.probe import Approach, stages


async def fine() -> str:
    return "it is"


class Walk:
    """Steps of which one may fail, with all that was said and done on the way."""

    def __init__(self, error: MailpollerError | None = None) -> None:
        self.error = error
        self.ended: list[str] = []

    def stages(self) -> Any:
        steps = [("one", fine), ("two", self._step), ("three", fine)]
        return stages(steps, lambda name, error: f"mend {name}", self._end, self._end)

    async def _step(self) -> str:
        if self.error is not None:
            raise self.error
        return "so is this"

    async def _end(self) -> None:
        self.ended.append("end")


async def test_every_step_is_told_and_every_end_done() -> None:
    walk = Walk()
    told = [(one.name, one.ok, one.detail, one.advice) async for one in walk.stages()]
    assert told == [("one", True, "it is", ""), ("two", True, "so is this", ""), ("three", True, "it is", "")]
    assert walk.ended == ["end", "end"]


async def test_the_first_failure_is_the_last_stage_and_has_advice() -> None:
    walk = Walk(TransientError("not now"))
    *_, last = [one async for one in walk.stages()]
    assert (last.name, last.ok, last.detail, last.advice) == ("two", False, "not now", "mend two")
    assert walk.ended == ["end", "end"]


async def test_what_is_wrong_with_the_configuration_is_not_the_servers_fault() -> None:
    *_, last = [one async for one in Walk(ConfigError("the environment has no variable X")).stages()]
    assert last.advice.startswith("Correct the configuration")


async def test_who_stops_looking_leaves_nothing_open() -> None:
    walk = Walk()
    async with aclosing(walk.stages()) as shown:
        async for _ in shown:
            break
    assert walk.ended == ["end", "end"]


@pytest.mark.parametrize(
    ("stage", "said", "word"),
    [
        ("dns", "DNS: not found", "getent hosts mail.example.com"),
        ("tcp", "cannot connect", "nc -vz mail.example.com 993. Usually 993."),
        ("tls", "the certificate is not trusted", "ca_file"),
        ("tls", "not the pinned one", "new fingerprint"),
        ("tls", "handshake failed", "openssl s_client -connect mail.example.com:993"),
    ],
)
def test_advice_names_the_server_and_a_command(stage: str, said: str, word: str) -> None:
    approach = Approach("mail.example.com", 993, None, timedelta(seconds=1), usual="Usually 993.")
    assert word in approach.advice(stage, TransientError(said))
    assert approach.advice("folder", TransientError(said)) == ""
