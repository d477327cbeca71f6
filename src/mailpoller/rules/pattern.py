"""Regular expressions that an operator writes: RE2, whose time is linear in the text whatever the pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MAX_MEMORY = 4 << 20
"""Octets that one compiled pattern may use, program and lazily built automaton together."""


def compile_pattern(pattern: str, *, sensitive: bool) -> Callable[[str], Any]:
    """The ``search`` of ``pattern``: truthy if it occurs anywhere in the text.

    The dialect is RE2's: ``\\w``, ``\\d`` and ``\\b`` are ASCII (``\\p{L}`` is any letter), there are no
    back-references and no look-around; ``.`` does not match a line end, ``^`` and ``$`` are the text's ends unless
    ``(?m)``. Raises ValueError with RE2's own words if it does not take the pattern.
    """
    # The import costs 7 ms; whoever configures no pattern does not pay for it.
    import re2

    options = re2.Options()
    options.case_sensitive = sensitive
    options.max_mem = MAX_MEMORY
    options.never_capture = True
    # Else the C++ library writes to standard error behind the log's back.
    options.log_errors = False
    try:
        search: Callable[[str], Any] = re2.compile(pattern, options).search
    except re2.error as error:
        raise ValueError(f"RE2 does not take this pattern: {_words(error)}") from None
    except UnicodeEncodeError:
        raise ValueError("a pattern is valid Unicode text") from None
    return search


def _words(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
