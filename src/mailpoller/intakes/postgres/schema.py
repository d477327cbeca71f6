"""The table of an intake: an interface for programs in any language, so it changes by migration only.

``docs/outgoing.md`` describes it. ``token`` is what an entry is known by for ever: a database that was put back gives
the same ``id`` to another entry.
"""

from __future__ import annotations

_TABLE = """\
CREATE TABLE IF NOT EXISTS {table} (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body        text        NOT NULL,
    state       text        NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'accepted', 'refused')),
    mail        text,
    message_id  text,
    reason      text,
    token       uuid        NOT NULL DEFAULT gen_random_uuid(),
    entered_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    answered_at timestamptz
);
CREATE INDEX IF NOT EXISTS {bare}_new ON {table} (id) WHERE state = 'new';
CREATE INDEX IF NOT EXISTS {bare}_answered ON {table} (answered_at) WHERE answered_at IS NOT NULL;
"""

_RIGHTS = """\
GRANT SELECT, UPDATE (state, mail, message_id, reason, answered_at), DELETE ON {table} TO {role};
-- and for each role that may send for the departments of this intake:
-- GRANT SELECT, INSERT (body) ON {table} TO program;
"""


def schema(table: str) -> str:
    """The statements that make the table of an intake; harmless where it is there already."""
    return _TABLE.format(table=table, bare=table.rpartition(".")[2])


def rights(table: str, role: str) -> str:
    """The statements that give the service all rights that it needs, and no more."""
    return _RIGHTS.format(table=table, role='"' + role.replace('"', '""') + '"')
