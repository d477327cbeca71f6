"""Signatures that a consumer can verify: Standard Webhooks (version 1), and the token that GitLab wants."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Sequence

from mailpoller.core.errors import ConfigError

_PREFIX = "whsec_"
_LEAST = 24
"""Octets of a key, as Standard Webhooks asks for."""


def signing_key(written: str) -> bytes:
    """The key of ``whsec_`` and Base64. Raises :class:`ConfigError`, which shows nothing of it."""
    try:
        key = base64.b64decode(written.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("signing_secrets: a secret is whsec_ and Base64") from None
    if len(key) < _LEAST:
        raise ConfigError(f"signing_secrets: a secret is Base64 of at least {_LEAST} octets")
    return key


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The field ``webhook-signature``: one signature for each key, so that a consumer may have either of them while
    they are exchanged."""
    signed = f"{message_id}.{timestamp}.".encode()
    made = []
    for key in keys:
        digest = hmac.new(key, signed, "sha256")
        digest.update(body)
        made.append("v1," + base64.b64encode(digest.digest()).decode())
    return " ".join(made)


def mailroom_token(written: str, timestamp: int) -> str:
    """The token that GitLab's internal API takes mail with (JWT, HS256). ``written``: the secret as it stands in
    ``.gitlab_mailroom_secret``. Raises :class:`ConfigError`."""
    try:
        key = base64.b64decode(written.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ConfigError("token: the secret of GitLab's mail_room is Base64, as it stands in .gitlab_mailroom_secret")
    claims = {"nonce": secrets.token_hex(12), "iss": "gitlab-mailroom", "iat": timestamp}
    signed = ".".join(_part(json.dumps(one).encode()) for one in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_part(hmac.new(key, signed.encode(), 'sha256').digest())}"


def _part(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
