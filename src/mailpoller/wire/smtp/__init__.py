"""SMTP and LMTP as a client speaks them (RFC 5321, RFC 2033), on aiosmtplib: kept connections, deadlines, and errors
that are decisions.

What aiosmtplib is not asked to do, and why:

* its ``start_tls=None`` upgrades if it can, so that whoever strips STARTTLS gets the login in clear: here the mode
  decides;
* its ``login`` tries a wrong password with every mechanism in turn, which locks accounts: here one mechanism is chosen;
* its ``data`` has one time-out for the whole upload, so that a large mail on a slow line fails for ever: here every
  piece has one;
* its default name for EHLO asks the DNS without a deadline: here it is configured, the host's own, or an address
  literal.
"""

from mailpoller.wire.smtp.posting import posted
from mailpoller.wire.smtp.relay import Relay
from mailpoller.wire.smtp.terms import (
    EnvelopeRefused,
    NotCarried,
    NotNow,
    RelayCut,
    RelaySettings,
    RelayUnavailable,
    RelayUncertain,
)

__all__ = [
    "EnvelopeRefused",
    "NotCarried",
    "NotNow",
    "Relay",
    "RelayCut",
    "RelaySettings",
    "RelayUnavailable",
    "RelayUncertain",
    "posted",
]
