"""The block of a queue of type postgres."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.sinks.postgres import PostgresQueueConfig
from mailpoller.sinks.postgres.schema import rights, schema


def block(**more: Any) -> PostgresQueueConfig:
    return PostgresQueueConfig(type="postgres", database="mail", username="mailpoller", **more)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "one of the two"),
        ({"host": "h", "socket": "/s"}, "one of the two"),
        ({"host": "h", "table": "Mail"}, "small letters"),
        ({"host": "h", "table": "a.b.c"}, "small letters"),
        ({"host": "h", "table": "a; DROP TABLE b"}, "small letters"),
        ({"host": "h", "notify": "a b"}, "small letters"),
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
        ({"host": "db.example.com"}, set()),
        ({"host": "localhost", "tls": "none"}, set()),
        ({"socket": "/run/postgresql", "tls": "none"}, set()),
        ({"host": "db.example.com", "tls": "none"}, {"tls"}),
        ({"host": "h", "durability": "warn"}, {"durability"}),
    ],
)
def test_what_may_lose_or_show_mail_is_said_by_check(keys: dict[str, Any], doubted: set[str]) -> None:
    assert {finding.key for finding in block(**keys).findings()} == doubted


def test_the_server_is_verified_in_full_unless_told_otherwise() -> None:
    found = block(host="db.example.com", password="secret").parameters()
    assert found["sslmode"] == "verify-full"
    assert found["sslrootcert"]
    assert "secret" not in str(found)
    assert block(host="db.example.com", tls="none").parameters()["sslmode"] == "disable"
    assert block(socket="/run/postgresql").parameters()["sslmode"] == "disable"


def test_tables_are_named_after_the_queue_and_a_role_is_quoted() -> None:
    assert block(host="h").table_of("Support-Mail") == "mailpoller_support_mail"
    assert len(block(host="h").table_of("x" * 200) + "_known_at") < 64, "PostgreSQL cuts longer names"
    assert block(host="h", table="mail.support").table_of("x") == "mail.support"
    assert "INDEX IF NOT EXISTS support_next ON mail.support" in schema("mail.support")
    assert 'TO "a""b"' in rights("t", 'a"b')


def test_the_library_is_not_imported_before_a_queue_is_built() -> None:
    program = "import sys, mailpoller.sinks.postgres; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
