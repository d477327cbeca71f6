"""Flags as an operator writes them (RFC 3501 section 2.3.2)."""

from __future__ import annotations

import re

_SYSTEM_FLAGS = {"\\seen", "\\answered", "\\flagged", "\\deleted", "\\draft"}
_KEYWORD = r"[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|~\[-]+"
"""An atom (RFC 3501 section 9): what is left of ASCII without (){ %*\"]\\ and controls."""


def check_flag(flag: str) -> str:
    """The flag. Raises :class:`ValueError` if no message can bear it."""
    if flag.lower() not in _SYSTEM_FLAGS and not re.fullmatch(_KEYWORD, flag):
        raise ValueError(
            f"{flag!r} is no IMAP flag: a keyword such as $Done has no spaces and only ASCII, "
            "a system flag is \\Seen, \\Answered, \\Flagged, \\Deleted or \\Draft"
        )
    return flag
