"""Authentication-Results (RFC 8601): what a server that is trusted found of a message's sender.

Anybody can write such a field. So only those count that stand where our own servers write, and that bear an
authserv-id which is trusted; that the server removes those of strangers with the same id (section 5) is its part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from mailpoller.core.authentication import Authentication, Trust

METHODS = ("spf", "dkim", "dmarc", "arc")
_CONSIDERED = 10_000
_FIELDS = 20
_STATEMENTS = 100
_QUOTED = re.compile(r'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_PLAIN = re.compile(r'[^"\\()]++')
_SIMPLE = re.compile(r"[\w.:@-]{1,255}+", re.ASCII).fullmatch
_RESULT = re.compile(r"\s*+([A-Za-z][A-Za-z0-9-]*+)\s*+(?:/\s*+\d++\s*+)?+=\s*+([A-Za-z]{1,30}+)(?![A-Za-z])")
_HEAD = re.compile(r"\s*+([^\s=;]{1,255}+)(?:\s++(\d{1,9}+))?+\s*+").fullmatch


def authenticated(values: Iterable[str], trust: Trust) -> Authentication | None:
    """What trusted servers say; ``values`` are those of the fields in our own part of the header, from the top.

    Several fields of trusted servers complete one another, and the upper one counts first. Without an id only the
    topmost counts that has none.
    """
    found: Authentication | None = None
    for number, value in enumerate(values):
        if number == _FIELDS:
            break
        by, results = read_results(value)
        if trust.without_id:
            if by or not results:
                continue
            return Authentication(**results)
        if not by or by.lower() not in trust.ids:
            continue
        found = found or Authentication(by=by)
        known = {method: getattr(found, method) or result for method, result in results.items()}
        found = replace(found, **known)
    return found


def read_results(value: str) -> tuple[str, dict[str, str]]:
    """The authserv-id ("" without one) and the result of each method; of several signatures one that passes counts.

    Nothing for a version that is not ours (section 2.2). Never raises; time is linear.
    """
    head, *statements = _statements(value[:_CONSIDERED])
    by = ""
    if "=" in head:  # Exchange Online
        statements.insert(0, head)
    else:
        named = _HEAD(head)
        if named is None or (named[2] or "1") != "1":
            return "", {}
        by = named[1]
    results: dict[str, str] = {}
    for statement in statements[:_STATEMENTS]:
        told = _RESULT.match(statement)
        if told is not None and (method := told[1].lower()) in METHODS:
            result = told[2].lower()
            if method not in results or (result == "pass" and method == "dkim"):
                results[method] = result
    return by, results


def _statements(value: str) -> list[str]:
    """What stands between semicolons, without comments, which nest, and with ``q`` for quotes that are no plain
    word."""
    statements: list[list[str]] = [[]]
    at = depth = 0
    quotes = True
    while at < len(value):
        one = value[at]
        if one in "()":
            depth = depth + 1 if one == "(" else max(depth - 1, 0)
            statements[-1].append(" ")
            at += 1
        elif one == "\\":
            at += 2
        elif one == '"':
            quoted = _QUOTED.match(value, at) if quotes and not depth else None
            quotes = quotes and (quoted is not None or depth > 0)  # one that is never closed is looked for once
            if quoted is not None:
                statements[-1].append(quoted[1] if _SIMPLE(quoted[1]) else "q")
            at = quoted.end() if quoted is not None else at + 1
        else:
            plain = _PLAIN.match(value, at)
            assert plain is not None
            at = plain.end()
            if not depth:
                first, *more = plain[0].split(";")
                statements[-1].append(first)
                statements += [[piece] for piece in more]
    return ["".join(pieces) for pieces in statements]
