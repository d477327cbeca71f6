"""The doubt of a queue whose server answers before it syncs, or does not say, and whose block accepts that."""

from __future__ import annotations

from mailpoller.core.ports import DoubtKind

NOT_DURABLE = DoubtKind(
    "not-durable",
    "The queue {subject} is not known to survive a power cut, and its block accepts that",
    "The queue {subject} would survive a power cut",
    "Change the server's setting that is named above; then say durability: strict for the queue.",
)
