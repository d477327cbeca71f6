"""Proofs that we hold a private key: client assertions and service accounts (RFC 7523), by PyJWT."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from mailpoller.core.errors import ConfigError
from mailpoller.core.regular import read_regular

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME = timedelta(minutes=10)
_FILE_LIMIT = 256 << 10


def client_assertion(certificate: Path, key: Path | None, client_id: str, audience: str, now: datetime) -> str:
    """A signed statement that we are this client, for one request (section 3). Raises :class:`ConfigError` naming the
    file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    found = load_certificate(certificate)
    private = _private_key(_read(key or certificate), key or certificate)
    assert isinstance(found, x509.Certificate)
    thumbprint = urlsafe_b64encode(sha256(found.public_bytes(Encoding.DER)).digest()).rstrip(b"=").decode()
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "nbf": now - timedelta(minutes=1),
        "exp": now + _LIFETIME,
    }
    return _signed(claims, private, {"x5t#S256": thumbprint}, key or certificate)


@dataclass(frozen=True, slots=True, repr=False)
class ServiceAccount:
    """A Google key file."""

    email: str
    key_id: str
    key: str
    path: Path

    @classmethod
    def read(cls, path: Path) -> ServiceAccount:
        """Raises :class:`ConfigError` naming the file."""
        try:
            found = orjson.loads(_read(path))
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or found.get("type") != "service_account":
            raise ConfigError(f"{path} is no key file of a Google service account")
        words = [found.get(key) for key in ("client_email", "private_key_id", "private_key")]
        email, key_id, key = (word if isinstance(word, str) else "" for word in words)
        if not email or not key:
            raise ConfigError(f"{path} lacks client_email or private_key")
        return cls(email, key_id, key, path)

    def assertion(self, subject: str, scopes: tuple[str, ...], audience: str, now: datetime) -> str:
        """A signed request for a token in the name of ``subject`` (domain-wide delegation)."""
        claims = {
            "iss": self.email,
            "sub": subject,
            "scope": " ".join(scopes),
            "aud": audience,
            "iat": now,
            "exp": now + timedelta(hours=1),
        }
        private = _private_key(self.key.encode(), self.path)
        return _signed(claims, private, {"kid": self.key_id} if self.key_id else {}, self.path, rsa="RS256")


def load_certificate(path: Path) -> Any:
    """The first certificate of a PEM file, as cryptography has it. Raises :class:`ConfigError` naming the file."""
    try:
        from cryptography import x509
    except ImportError:
        raise _missing() from None
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError:
        raise ConfigError(f"{path} holds no certificate (PEM)") from None


def expiry_of(path: Path) -> datetime:
    """When a certificate ends, aware UTC. Raises :class:`ConfigError` naming the file."""
    found = load_certificate(path)
    end = getattr(found, "not_valid_after_utc", None)
    return end if isinstance(end, datetime) else found.not_valid_after.replace(tzinfo=UTC)


def _private_key(pem: bytes, path: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        raise ConfigError(f"{path} holds no private key (PEM, not encrypted)") from None


def _signed(claims: dict[str, Any], key: Any, headers: dict[str, str], path: Path, rsa: str = "PS256") -> str:
    try:
        import jwt
    except ImportError:
        raise _missing() from None
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if isinstance(key, RSAPrivateKey):
        algorithm = rsa
    elif isinstance(key, EllipticCurvePrivateKey):
        algorithm = {256: "ES256", 384: "ES384", 521: "ES512"}.get(key.curve.key_size, "")
    else:
        algorithm = ""
    if not algorithm:
        raise ConfigError(f"{path}: the private key must be RSA, or on the curve P-256, P-384 or P-521")
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, _FILE_LIMIT)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _missing() -> ConfigError:
    return ConfigError("OAuth 2.0 with a key needs PyJWT and cryptography: pip install 'mailpoller[oauth]'")
