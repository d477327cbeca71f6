"""Deliveries as jobs that workers of procrastinate take from its own tables (version 3.2 or later).

A job is deferred by procrastinate's own function (``procrastinate_defer_jobs_v1``), as its library does, so that its
triggers note the job and wake its workers.
"""

from __future__ import annotations

from typing import Any, LiteralString

from mailpoller.core.delivery import Delivery
from mailpoller.core.record import record
from mailpoller.sinks.postgres.schema import PRIORITIES

TABLE = "procrastinate_jobs"
USUAL = "default"
"""The queue of a worker's task that names none."""

DEFER: LiteralString = (
    "SELECT procrastinate_defer_jobs_v1("
    "ARRAY[ROW(%s, %s, %s, NULL, NULL, %s::jsonb, NULL)::procrastinate_job_to_defer_v1])"
)

LACK: LiteralString = (
    "SELECT to_regclass('procrastinate_jobs') IS NULL, "
    "(SELECT bool_or(has_function_privilege(oid, 'EXECUTE')) FROM pg_proc "
    "WHERE proname = 'procrastinate_defer_jobs_v1' AND pg_function_is_visible(oid)), "
    "(SELECT bool_and(has_table_privilege(to_regclass(name), 'INSERT')) "
    "FROM unnest(ARRAY['procrastinate_jobs', 'procrastinate_events']) AS name)"
)


@record
class Job:
    """What a delivery is to its workers: a job of the task ``task`` in the queue ``queue``."""

    task: str
    queue: str

    def row(self, one: Delivery) -> tuple[Any, ...]:
        """For :data:`DEFER`. The event is the only argument, ``event``."""
        event = one.event.structured().decode("utf-8")
        return (self.queue, self.task, PRIORITIES.index(one.attributes.priority) - 1, f'{{"event": {event}}}')


def lack_in_words(missing: bool, callable_: bool | None, allowed: bool | None) -> str:
    """What :data:`LACK` found, in words; empty if nothing is lacking."""
    if missing:
        return f"there is no table {TABLE}: procrastinate makes it (procrastinate schema --apply)"
    if callable_ is None:
        return "its procrastinate is too old: 3.2 or later is needed, with its migrations"
    if not callable_ or not allowed:
        return "it refuses us: no right to defer jobs of procrastinate"
    return ""
