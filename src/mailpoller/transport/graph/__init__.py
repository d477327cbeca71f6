"""Microsoft Graph as both the source and the outgoing use it: one client, its share of the service, and what errors mean."""

from mailpoller.transport.graph.client import Answer, Ask, GraphClient
from mailpoller.transport.graph.errors import Denied, Missing, SyncLost, advice_for, words_of
from mailpoller.transport.graph.gate import Gate, gate_for
from mailpoller.transport.throttle import Busy

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
