"""What the configuration says of the mailbox that a message came to."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from mailpoller.core.record import record

ROOT = "root"
"""The department of a mailbox that names none."""


@record
class Standing:
    """``trusted``: what comes to the mailbox is trusted, as its operator says; nothing in a mail can say so.
    ``departments``: those that it serves, at least one; ``root`` is one like any other. ``forced``: its every message
    goes to its default queue."""

    trusted: bool = False
    departments: tuple[str, ...] = (ROOT,)
    forced: bool = False


USUAL_STANDING = Standing()
"""That of a mailbox of which nothing is said."""


def _name(written: str) -> str:
    if not written.isprintable() or written != written.strip() or "*" in written:
        raise ValueError("a department is a name on one line; there is no wildcard")
    return written


Department = Annotated[str, StringConstraints(min_length=1, max_length=80), AfterValidator(_name)]
"""The name of a department, compared as it is written."""
