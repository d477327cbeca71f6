"""OAuth 2.0 (RFC 6749) as a client of a mail service needs it: one block of configuration, one source of tokens.

The latter is in ``tokens``, and not loaded by who only reads a configuration.
"""

from mailpoller.wire.oauth.advice import TokenRefused
from mailpoller.wire.oauth.config import OAuthAuth, Terms, terms_of
from mailpoller.wire.oauth.providers import CLOUDS, Cloud, ServiceName, provider_of

__all__ = [
    "CLOUDS",
    "Cloud",
    "OAuthAuth",
    "ServiceName",
    "Terms",
    "TokenRefused",
    "provider_of",
    "terms_of",
]
