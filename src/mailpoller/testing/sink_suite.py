"""What every sink promises, as tests: subclass :class:`SinkSuite` and say how to make the sink and what it holds.

    class TestMySink(SinkSuite):
        def make_sink(self, directory):
            return MySinkConfig(type="mine", path=directory / "queue").build("support", runtime)

        def held(self, directory):
            return [row.delivery_id for row in look_into(directory / "queue")]

Each test gets an empty directory; a sink that is a server's client may use its name to keep the tests apart. The file
that defines the subclass is loaded again, by its path, in a process of its own that is killed.
"""

from __future__ import annotations

from mailpoller.testing.sink.answering import AnsweringPromises
from mailpoller.testing.sink.disk import DiskPromises
from mailpoller.testing.sink.holding import HoldingPromises
from mailpoller.testing.sink.kills import KillPromises
from mailpoller.testing.sink.marks import MarkPromises

__all__ = ["SinkSuite"]


class SinkSuite(AnsweringPromises, MarkPromises, HoldingPromises, DiskPromises, KillPromises):
    """The promises of :class:`~mailpoller.core.ports.Sink`. Flags say which of the optional ones a sink makes."""
