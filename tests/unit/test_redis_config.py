"""The block of a queue of type redis, and what an answer of a server is worth."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.core.durability import Durability
from mailpoller.sinks.redis import RedisQueueConfig
from mailpoller.sinks.redis.script import Keys


def block(**more: Any) -> RedisQueueConfig:
    return RedisQueueConfig(type="redis", **more)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "one of the three"),
        ({"host": "h", "socket": "/s"}, "one of the three"),
        ({"sentinels": ["h:99999"]}, "host:port"),
        ({"sentinels": ["redis://h"]}, "host:port"),
        ({"host": "h", "stream": "a{b}{c}"}, "braces"),
        ({"host": "h", "stream": ""}, "braces"),
        ({"host": "h", "remember": "0"}, "at least 1s"),
        ({"host": "h", "client_key": "/k"}, "client_certificate"),
    ],
)
def test_a_block_that_cannot_work_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        block(**keys)


@pytest.mark.parametrize(
    ("keys", "doubted"),
    [
        ({"host": "redis.example.com"}, set()),
        ({"host": "127.0.0.1", "tls": "none"}, set()),
        ({"socket": "/run/redis.sock", "tls": "none"}, set()),
        ({"host": "redis.example.com", "tls": "none"}, {"tls"}),
        ({"sentinels": ["s:1", "[::1]:2"], "tls": "none"}, {"tls", "sentinels"}),
        ({"sentinels": ["s"], "replicas": 1}, set()),
        ({"host": "h", "maxlen": 5}, {"maxlen"}),
        ({"host": "h", "durability": "declared"}, {"durability"}),
    ],
)
def test_what_may_lose_or_show_mail_is_said_by_check(keys: dict[str, Any], doubted: set[str]) -> None:
    assert {finding.key for finding in block(**keys).findings()} == doubted


@pytest.mark.parametrize("stream", ["support", "{mail}:support", "mail:{support}", "{mailpoller:a}"])
def test_stream_and_ids_are_in_one_hash_slot(stream: str) -> None:
    def tag(key: str) -> str:
        return key[key.index("{") + 1 : key.index("}")] if "{" in key else key

    assert tag(Keys(stream).of("6ba7b810")) == tag(stream)


def test_each_word_takes_what_it_says_and_a_refusal_names_what_accepts_it() -> None:
    taken = {
        finding: {word for word in ("strict", "declared", "warn") if not Durability(finding, "s", "m").refusal(word)}
        for finding in ("synced", "promised", "unknown", "volatile")
    }
    every = {"strict", "declared", "warn"}
    assert taken == {"synced": every, "promised": every, "unknown": {"declared", "warn"}, "volatile": {"warn"}}
    assert (
        Durability("unknown", "why", "GRANT x")
        .refusal("strict")
        .endswith("GRANT x; or accept it with: durability: declared")
    )
    assert "durability: warn" in Durability("volatile", "why", "x").refusal("declared")


def test_the_library_is_not_imported_before_a_queue_is_built() -> None:
    program = "import sys, mailpoller.sinks.redis; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
