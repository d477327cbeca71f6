"""One address of a mail."""

from __future__ import annotations

from mailpoller.core.record import record


@record
class Address:
    """One mailbox of RFC 5322 section 3.4: display name (decoded, may be empty) and addr-spec as written."""

    name: str
    address: str
