"""What an answer of Kafka is worth: replicas, since none of its servers syncs before it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError

_CONNECTING = ("bootstrap", "security", "ssl", "sasl")
"""What settings begin with that serve every kind of client."""
SETTINGS_S = 5.0
"""Seconds in which a cluster that has just listed its topics has to tell a topic's settings, or they stay unknown."""
REPLICAS, IN_SYNC = 3, 2
"""Below these one machine's power cut may take what was answered for."""


def read(settings: Mapping[str, Any], topic: str, seconds: float) -> Durability:
    """Ask the cluster about the topic; for a thread. Nothing is made: all topics are listed, for one that is asked for
    by name may come into being by that.

    Raises :class:`TransientError`, :class:`KafkaException`.
    """
    words = {
        name: settings[name] for name in settings if name.split(".")[0] in ("bootstrap", "security", "ssl", "sasl")
    }
    admin = AdminClient({**words, "client.id": "mailpoller", "log_level": 0, "error_cb": settings["error_cb"]})
    found = admin.list_topics(timeout=seconds).topics.get(topic)
    if found is None or found.error is not None or not found.partitions:
        why = f": {found.error.str()}" if found is not None and found.error is not None else ""
        raise TransientError(f"there is no topic {topic}{why}")
    replicas = min(len(one.replicas) for one in found.partitions.values())
    try:
        limit = min(seconds, SETTINGS_S)
        asked = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)], request_timeout=limit)
        (answer,) = asked.values()
        told = {name: one.value for name, one in answer.result(limit + 1).items()}
    except (KafkaException, TimeoutError):
        return Durability("unknown", "we may not read the topic's settings", "the right DescribeConfigs on the topic")
    return judge(topic, replicas, told)


def judge(topic: str, replicas: int, told: Mapping[str, str | None]) -> Durability:
    """What the settings mean."""
    alter = f"kafka-configs.sh --alter --topic {topic} --add-config"
    in_sync = int(told.get("min.insync.replicas") or 1)
    if replicas < REPLICAS:
        return Durability("volatile", f"the topic has {replicas} replicas", f"a topic with {REPLICAS} replicas")
    if in_sync < IN_SYNC:
        return Durability("volatile", f"min.insync.replicas is {in_sync}", f"{alter} min.insync.replicas={IN_SYNC}")
    if told.get("unclean.leader.election.enable") == "true":
        mend = f"{alter} unclean.leader.election.enable=false"
        return Durability("volatile", "a server that lags may take over (unclean.leader.election.enable)", mend)
    return Durability.promised(f"an answer after {in_sync} of {replicas} replicas")
