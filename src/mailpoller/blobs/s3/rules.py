"""The rules by which a bucket removes objects (S3, *lifecycle*), as far as they may hit ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

NOW = timedelta(0)


def shortest(rules: Sequence[Mapping[str, Any]], prefix: str) -> tuple[timedelta, str] | None:
    """After how long the first of the rules may remove an object whose name begins with ``prefix``, and its name; None
    if none does. One by a date may at once. Of a filter its prefix is heeded alone, and its tags, which ours have
    none of; what is not understood may hit."""
    found = [
        (_after(rule), str(rule.get("ID") or "without a name"))
        for rule in rules
        if rule.get("Status") != "Disabled" and _removes(rule) and _may_hit(rule, prefix)
    ]
    return min(found, default=None)


def _removes(rule: Mapping[str, Any]) -> bool:
    told = rule.get("Expiration") or {}
    return "Days" in told or "Date" in told


def _after(rule: Mapping[str, Any]) -> timedelta:
    told = rule["Expiration"]
    return timedelta(days=int(told["Days"])) if "Days" in told and "Date" not in told else NOW


def _may_hit(rule: Mapping[str, Any], prefix: str) -> bool:
    told = rule.get("Filter") or {}
    both = told.get("And") or {}
    if "Tag" in told or both.get("Tags"):
        return False
    named = str(told.get("Prefix") or both.get("Prefix") or rule.get("Prefix") or "")
    return named.startswith(prefix) or prefix.startswith(named)
