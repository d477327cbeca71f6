"""Microsoft Graph as both the source and the outgoing use it: one client, its share of the service, and what errors
mean."""

from mailpoller.remote.graph.client import Answer, Ask, GraphClient
from mailpoller.remote.graph.errors import Denied, Missing, SyncLost, advice_for, words_of
from mailpoller.remote.graph.gate import Gate, gate_for
from mailpoller.remote.throttle import Busy

__all__ = [
    "Answer",
    "Ask",
    "Busy",
    "Denied",
    "Gate",
    "GraphClient",
    "Missing",
    "SyncLost",
    "advice_for",
    "gate_for",
    "words_of",
]
