"""Where Graph is, and whose mailbox: what the blocks of the source and of the outgoing check alike."""

from __future__ import annotations

from importlib.util import find_spec

from mailpoller.core.errors import ConfigError
from mailpoller.wire.dial import confidential
from mailpoller.wire.oauth import CLOUDS, OAuthAuth

VERSION = "v1.0"


def service_url(url: str | None, auth: OAuthAuth) -> str:
    """The URL of the service: as written, or of the cloud that ``auth`` names. Raises ValueError if nobody says."""
    if url is not None:
        return url
    if auth.provider != "microsoft":
        raise ValueError("auth: {provider: microsoft, …} says where Graph is; without it, say url")
    return f"https://{CLOUDS[auth.cloud].graph}/{VERSION}"


def check_installed() -> None:
    """Raise :class:`ConfigError` if what speaks HTTP is not installed."""
    if find_spec("httpcore") is None:
        raise ConfigError("type: graph needs httpcore: pip install 'mailpoller[graph]'")


def check_url(url: str | None) -> str | None:
    """``url`` if a token may go there. Raises ValueError."""
    if url is None:
        return url
    parts = confidential(url)
    if parts is None or parts.query:
        raise ValueError("the URL of Graph is https://HOST/v1.0, without user and query: a token never goes over http")
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/{VERSION}"


def check_user(user: str) -> str:
    """``user`` if it can stand in a path. Raises ValueError."""
    if not user or any(one.isspace() or not one.isprintable() or one in "/?#\\" for one in user) or user in (".", ".."):
        raise ValueError("a user is a principal name such as support@example.com, or an object id")
    if user.lower() == "me":
        raise ValueError("say whose mailbox it is: a principal name such as support@example.com, or an object id")
    return user
