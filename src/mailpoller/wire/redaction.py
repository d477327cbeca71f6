"""Words of a peer, fit for an error or a log: one line, not too long, without anything secret."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote_plus, unquote

LONGEST = 300
"""Characters of a peer's words that are shown."""

_MASK = "********"
_TELLING = 6
"""Characters from which on a secret is masked in the middle of a word, too."""
_TOKENLIKE = re.compile(r"[A-Za-z0-9+/_=~-]*(?:[A-Za-z0-9+/_=~-]{40}|\.[A-Za-z0-9_-]{16,}\.)[A-Za-z0-9+/_=~.-]*")
"""What may be a token: a run that is longer than any word and than a GUID, or that has a JWT's three parts."""


def spoken(said: str, secrets: Iterable[str] = (), asked: Iterable[str] = ()) -> str:
    """What a peer said, for an operator. ``secrets``: what must not be shown, should the peer repeat it, in whatever
    coding. ``asked``: what we asked for, such as a path with the id of a message; where the peer repeats it, it is
    shown, for it tells what the answer is about.

    What looks like a token is masked even if it is not ours: an error body may quote one that we have never seen.
    """
    for secret in secrets:
        said = without(said, secret)
    own = [form for one in asked for form in (one, unquote(one))]

    def veiled(found: re.Match[str]) -> str:
        return found[0] if any(found[0].rstrip(".") in one for one in own) else _MASK

    said = _TOKENLIKE.sub(veiled, said[: LONGEST * 4])
    return " ".join("".join(one if one.isprintable() else " " for one in said).split())[:LONGEST]


def without(said: str, secret: str) -> str:
    """``said`` with every occurrence of the secret masked: as it is, in base64, and as a URL's query writes it.

    A short one only where it stands alone: the letter ``d`` in the middle of every word is no secret.
    """
    for form in sorted({secret, b64encode(secret.encode()).decode(), quote_plus(secret)}, key=len, reverse=True):
        if len(form) >= _TELLING:
            said = said.replace(form, _MASK)
        elif form:
            said = re.sub(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", _MASK, said)
    return said
