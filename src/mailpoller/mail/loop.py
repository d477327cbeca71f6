"""The mark on mail that we send ourselves, by which it is known when it comes back."""

from __future__ import annotations

LOOP_HEADER = "X-Mailpoller-Loop"
"""Mail that bears this field is never quarantined by mail and never alerted about: it is ours."""
