"""OAuth 2.0 (RFC 6749) as a client of a mail service needs it: one block of configuration, one source of tokens."""

from mailpoller.transport.oauth.advice import TokenRefused
from mailpoller.transport.oauth.config import OAuthAuth, Terms, terms_of
from mailpoller.transport.oauth.providers import CLOUDS, Cloud, ServiceName, provider_of
from mailpoller.transport.oauth.tokens import Token, TokenSource, token_source

__all__ = [
    "CLOUDS",
    "Cloud",
    "OAuthAuth",
    "ServiceName",
    "Terms",
    "Token",
    "TokenRefused",
    "TokenSource",
    "provider_of",
    "terms_of",
    "token_source",
]
