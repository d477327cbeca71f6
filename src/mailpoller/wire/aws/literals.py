"""Words that the blocks of SQS and SNS share."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator

LONGEST_KEPT = timedelta(days=14)
"""No queue of SQS keeps anything for longer."""
OWN_GROUP = "{deliveryid}"
"""The group in a FIFO queue or topic where the block names none: each message is one of its own, so that none waits for
another."""


def _group(written: str) -> str:
    bare = re.sub(r"\{(topic|mailbox|deliveryid)\}", "x", written)
    if not re.fullmatch(r"[!-z|~]{1,128}", bare):
        raise ValueError("a group is ASCII without blanks, with {topic}, {mailbox} or {deliveryid}")
    return written


Group = Annotated[str, AfterValidator(_group)]
