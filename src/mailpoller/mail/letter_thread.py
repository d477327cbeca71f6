"""How an answer stays in its thread: one ``Re:``, whatever the language, and a token that it brings back."""

from __future__ import annotations

import re

_ANSWER = re.compile(
    r"\s*(?:re|aw|sv|vs|antw|antwort|odp|ynt|yan|res|rif|atb|bls|vá|vl|ref|απ|σχετ|на|отв|回复|回覆|答复|答覆|返信|답장|회신)"
    r"(?:\s?(?:\[\d{1,3}\]|\(\d{1,3}\)))?\s?[:：]",
    re.IGNORECASE,
)
_MOST = 50


def once_answered(subject: str) -> str:
    """The subject with a single ``Re:`` in place of all the marks of answers that it begins with, of any language; as
    it is if there are none. What else it begins with (``Fwd:``, a tag) stays."""
    rest = subject
    for _ in range(_MOST):
        found = _ANSWER.match(rest)
        if found is None:
            break
        rest = rest[found.end() :]
    return subject if rest is subject else f"Re: {rest.strip()}"


def message_id_of(number: str, domain: str, token: str = "") -> str:
    """A message id of our own. With a token, an answer's In-Reply-To and References bring that back."""
    return f"<{token}.{number}@{domain}>" if token else f"<{number}@{domain}>"
