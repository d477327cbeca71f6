"""What every source promises, as tests: subclass :class:`SourceSuite` and give it a mailbox of your kind.

    class MyMailbox(MailboxUnderTest):
        ...  # how to make the source, how to put mail into the mailbox, what is in it

    class TestMySource(SourceSuite):
        @pytest.fixture
        async def mailbox(self, tmp_path):
            async with my_server(tmp_path) as server:
                yield MyMailbox(server)

Each test gets a mailbox whose folders ``first`` and ``second`` exist and are empty; ``target`` does not exist. What a
protocol cannot do is declared on the mailbox, and the suite then asks for what the port promises instead. For
readable failures call ``pytest.register_assert_rewrite("mailpoller.testing")`` before the import.
"""

from __future__ import annotations

from mailpoller.testing.source.ending import EndingPromises
from mailpoller.testing.source.fetching import FetchingPromises
from mailpoller.testing.source.ground import (
    ALL,
    NOW,
    UNSEEN,
    WHOLE,
    MailboxUnderTest,
    Shown,
    claim,
    connected,
    fetched,
    letter,
    listing,
    settlement,
)
from mailpoller.testing.source.listing import ListingPromises
from mailpoller.testing.source.looking import LookingPromises
from mailpoller.testing.source.settling import SettlingPromises

__all__ = [
    "ALL",
    "NOW",
    "UNSEEN",
    "WHOLE",
    "MailboxUnderTest",
    "Shown",
    "SourceSuite",
    "claim",
    "connected",
    "fetched",
    "letter",
    "listing",
    "settlement",
]


class SourceSuite(ListingPromises, FetchingPromises, LookingPromises, SettlingPromises, EndingPromises):
    """The promises of :class:`~mailpoller.core.ports.Source` and :class:`~mailpoller.core.ports.Session`."""
