"""What an answer of RabbitMQ is worth: what can be found out of a queue over AMQP.

A server confirms a persistent message once every durable queue that took it has written it to disk: a quorum queue on
most of its members, a classic one on its own (RabbitMQ, "Consumer Acknowledgements and Publisher Confirms", "When Will
Published Messages Be Confirmed by the Broker?"). Whether a queue is durable it does not tell; but it refuses to declare
one again that is there in another form, and says which word differs and what it is (AMQP 0-9-1 reference,
queue.declare). So the queue is declared again, which changes nothing, until every word is known.

Policies of an operator that remove messages are not among these words: only the management plug-in tells them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aiormq.exceptions import ChannelClosed

from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel

    from mailpoller.sinks.rabbitmq.client import Client

_DIFFERS = re.compile(
    r"inequivalent arg '(?P<name>[^']{1,80})' .* but current is "
    r"(?:(?P<none>none)|the value '(?P<value>[^']{0,200})' of type '(?P<type>\w+)'|'(?P<bare>[^']{0,200})')"
)
_WORDS = 24
"""Words that a queue may be declared with; there are some fifteen."""
_FORGETS = {
    "durable": "it is gone after a restart of its server (not durable)",
    "auto_delete": "it is removed with its last consumer (auto-delete)",
    "x-message-ttl": "it removes what nobody took in time (x-message-ttl)",
    "x-expires": "it is removed when nobody uses it (x-expires)",
}
_LIMITS = ("x-max-length", "x-max-length-bytes")
_REFUSES = ("reject-publish", "reject-publish-dlx")


class _Hidden(Exception):
    """We may not declare the queue."""


async def read(client: Client, queue: str | None) -> Durability:
    """What was found of the queue, which is there. Raises :class:`TransientError`."""
    if queue is None:
        return Durability("unknown", "nobody looked at what the exchange leads to", "queue: NAME beside exchange here")
    try:
        found = await _words(client, queue)
    except _Hidden:
        return Durability("unknown", "we may not look at the queue (configure)", f"the right to configure {queue}")
    for name, reason in _FORGETS.items():
        if name in found:
            return Durability("volatile", reason, f"declare the queue {queue} anew, as a quorum queue")
    if any(name in found for name in _LIMITS) and found.get("x-overflow") not in _REFUSES:
        reason = "full, it removes the oldest, taken or not (x-max-length)"
        return Durability("volatile", reason, f"declare the queue {queue} anew, with x-overflow reject-publish")
    kind = found.get("x-queue-type") or "classic"
    return Durability.promised(f"a confirmation of a persistent message in a durable {kind} queue")


async def _words(client: Client, queue: str) -> dict[str, object]:
    """The words that the queue was declared with; of those that are no arguments only what is not as it should be."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    for _ in range(_WORDS):
        differs = await _declare(client, queue, arguments)
        if differs is None:
            return arguments
        name = differs["name"]
        if not name.startswith("x-"):
            return {name: differs["bare"]}
        if differs["none"]:
            arguments.pop(name, None)
        else:
            value = differs["value"] if differs["value"] is not None else differs["bare"]
            arguments[name] = value if differs["type"] in (None, "longstr") else int(value)
    raise TransientError(f"{client.place}: what the queue {queue} was declared with cannot be told")


async def _declare(client: Client, queue: str, arguments: dict[str, Any]) -> re.Match[str] | None:
    """Declare the queue, which is there: the word that differs and what it is, or None."""

    async def ask(channel: AbstractChannel) -> None:
        await channel.queue_declare(queue, passive=True)  # so that nothing is made
        await channel.queue_declare(queue, durable=True, arguments=dict(arguments))

    try:
        await client.aside(ask)
    except ChannelClosed as error:
        said = " ".join(map(str, error.args))
        if found := _DIFFERS.search(said):
            return found
        if "ACCESS_REFUSED" in said:
            raise _Hidden from None
        raise TransientError(f"{client.place}: {said[:300]}") from None
    return None
