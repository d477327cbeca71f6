"""How an account is written as a URL: what every epoch begins with."""

from __future__ import annotations

from collections.abc import Container
from urllib.parse import quote

USER_LEFT = "@"
"""What stays as it is in a user's name that is an address."""


def account_url(scheme: str, user: str, host: str, port: int, usual: Container[int], *, left: str = "") -> str:
    """``imap://user@host`` (RFC 3986 section 3.2, after RFC 5092), host in lower case, a literal in brackets; ``left``
    is not percent-encoded in the user's name.

    A port that is none of the ``usual`` ones stands behind the host. These lead to the same mailboxes, and going over
    from one to the other for the sake of TLS must not look like another server.
    """
    place = f"[{host}]" if ":" in host else host.lower()
    return f"{scheme}://{quote(user, safe=left)}@{place}{'' if port in usual else f':{port}'}"
