"""The tables of a queue: an interface for consumers in any language, so they change by migration only.

``docs/sinks.md`` describes them. A consumer needs the first alone; the second is by what a repeat is known, also after
the consumer deleted the row; the third says which queue this is, and how many messages it was given.
"""

from __future__ import annotations

from typing import Literal

PRIORITIES: tuple[Literal["low", "normal", "high"], ...] = ("low", "normal", "high")
"""What ``priority`` counts: 0, 1, 2."""

COLUMNS = (
    "seq", "delivery_id", "mid", "topic", "priority", "tags", "reason", "detail", "event", "octets", "arrived_at",
)  # fmt: skip
"""Of the first table."""

# json and not jsonb: it holds an event as it was written, also one with \u0000 in it, which jsonb refuses.
_ROWS = """\
CREATE TABLE IF NOT EXISTS {table} (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_id text        NOT NULL UNIQUE,
    mid         text        NOT NULL,
    topic       text        NOT NULL,
    priority    smallint    NOT NULL,
    tags        text[]      NOT NULL,
    reason      text        NOT NULL,
    detail      text        NOT NULL,
    event       json        NOT NULL,
    octets      bytea,
    arrived_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS {bare}_next ON {table} (priority DESC, seq);
"""

_BESIDE = """\
CREATE TABLE IF NOT EXISTS {table}_known (
    delivery_id text        PRIMARY KEY,
    known_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    gone_at     timestamptz
);
CREATE INDEX IF NOT EXISTS {bare}_known_at ON {table}_known (known_at);
CREATE TABLE IF NOT EXISTS {table}_mark (
    identity    text        NOT NULL,
    height      bigint      NOT NULL
);
"""

_RIGHT_TO_ROWS = """\
GRANT SELECT, INSERT ON {table} TO {role};
"""

_RIGHTS_TO_JOBS = """\
GRANT SELECT, INSERT ON procrastinate_jobs, procrastinate_events TO {role};
GRANT USAGE ON SEQUENCE procrastinate_jobs_id_seq, procrastinate_events_id_seq TO {role};
"""

_RIGHTS_BESIDE = """\
GRANT SELECT, INSERT, UPDATE, DELETE ON {table}_known TO {role};
GRANT SELECT, INSERT, UPDATE ON {table}_mark TO {role};
"""


def schema(table: str, *, jobs: bool = False) -> str:
    """The statements that make the tables of a queue; harmless where they are there already. ``jobs``: what is held
    are procrastinate's jobs, and the tables are those beside."""
    return (("" if jobs else _ROWS) + _BESIDE).format(table=table, bare=table.rpartition(".")[2])


def rights(table: str, role: str, *, jobs: bool = False) -> str:
    """The statements that give the service all rights that it needs, and no more."""
    wanted = (_RIGHTS_TO_JOBS if jobs else _RIGHT_TO_ROWS) + _RIGHTS_BESIDE
    return wanted.format(table=table, role='"' + role.replace('"', '""') + '"')
