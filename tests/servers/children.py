"""Processes that servers are, and that are not to outlive the tests."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In a child before it becomes its program: it is ended when the tests end, however they do."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
