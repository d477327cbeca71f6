"""Taking steps: each with its time, up to the first that fails, and what a sysadmin can do about that one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

from mailpoller.core.errors import ConfigError, MailpollerError
from mailpoller.core.ports import Stage
from mailpoller.wire.http import Bearer

Step = tuple[str, Callable[[], Awaitable[str]]]
"""A stage's name, and what takes it: returns what there is to say about it, or raises a :class:`MailpollerError`."""


async def stages(
    steps: Sequence[Step], advice: Callable[[str, MailpollerError], str], *ends: Callable[[], Awaitable[None]]
) -> AsyncIterator[Stage]:
    """Take the steps, each with its time, up to the first that fails; do all of ``ends`` in the end.

    ``advice``: what a sysadmin can do about a stage and its error. An error of the configuration needs none of it.
    """
    try:
        for name, step in steps:
            began = time.monotonic()
            try:
                detail = await step()
            except MailpollerError as error:
                remedy = _CORRECT if isinstance(error, ConfigError) else advice(name, error)
                yield Stage(name, False, _since(began), str(error), remedy)
                return
            yield Stage(name, True, _since(began), detail)
    finally:
        for end in ends:
            await end()


_CORRECT = "Correct the configuration; the file or variable must be readable by the service's user."


def _since(began: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - began)


def token_step(tokens: Bearer) -> Step:
    """``login``, where that takes a token."""

    async def login() -> str:
        await tokens.token()
        return "there is a token"

    return "login", login
