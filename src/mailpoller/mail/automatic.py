"""What is automatic mail: nobody waits for an answer to it, and answering it begins a loop (RFC 3834)."""

from __future__ import annotations

import re
from collections.abc import Iterable

AUTO_SUBMITTED = "auto-submitted"
"""The field Auto-Submitted says something other than ``no``."""
NULL_RETURN_PATH = "null-return-path"
"""The envelope sender was null, as that of every bounce and every well-behaved auto-reply."""

_COMMENT = re.compile(r"\([^()]*\)")


def classify(auto_submitted: Iterable[str], return_path: str | None) -> str | None:
    """Why this is automatic mail, a constant word, or None for a human's.

    ``auto_submitted``: every value of that field; parameters and comments in it are allowed (RFC 3834 section 5) and
    do not count, and ``Auto-Submitted: no`` is a human. ``return_path``: "" for the null sender, None if there was no
    such field.
    """
    for value in auto_submitted:
        keyword = _COMMENT.sub(" ", value).partition(";")[0].strip().lower()
        if keyword and keyword != "no":
            return AUTO_SUBMITTED
    return NULL_RETURN_PATH if return_path == "" else None
