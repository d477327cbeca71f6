"""The row of stages that each batch goes along. A further one is a file with its work, and a line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mailpoller.core.record import record
from mailpoller.engine.bringing import Bringing
from mailpoller.engine.fetcher import Fetcher
from mailpoller.engine.in_flight import InFlight, Pass
from mailpoller.engine.judge import Judge
from mailpoller.engine.taking import Taking


@record
class BatchStage:
    """One stage of the row: what is done there to a batch.

    ``brings``: it belongs to how a batch's octets come; suspects, which are fetched by themselves, pass only the
    others. ``always``: it is done although the pass has met a failure.
    """

    name: str
    work: Callable[[Pass, InFlight], Awaitable[None]]
    brings: bool = False
    always: bool = False


def row_of(taking: Taking, fetcher: Fetcher, judge: Judge, bringing: Bringing) -> tuple[BatchStage, ...]:
    """The stages in their order. All are at work at once, each on another batch."""
    return (
        BatchStage("claim", taking.claim, brings=True),
        BatchStage("ask", fetcher.ask, brings=True),
        BatchStage("fetch", fetcher.receive, brings=True),
        BatchStage("judge", judge.judge),
        BatchStage("deliver", bringing.deliver),
        # What is delivered is settled whatever fails meanwhile.
        BatchStage("settle", bringing.settle, always=True),
    )
