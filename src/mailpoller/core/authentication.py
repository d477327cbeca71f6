"""Who says that a message is who it claims to be from, and whose word on that is taken."""

from __future__ import annotations

from mailpoller.core.record import record


@record
class Authentication:
    """What a trusted server found (RFC 8601 section 2.7): a result such as ``pass`` or ``fail`` in small letters for
    each method, None for one that it does not speak of. ``by``: the server's authserv-id, "" if it writes none."""

    spf: str | None = None
    dkim: str | None = None
    dmarc: str | None = None
    arc: str | None = None
    by: str = ""


@record
class Trust:
    """Whose word is taken: servers by their authserv-ids, in small letters, or with ``without_id`` the one that writes
    none.

    ``inside``: domains whose servers name one another truly in Received fields. ``gates``: those of them, by the end
    of their name, that strangers speak to.
    """

    ids: frozenset[str] = frozenset()
    without_id: bool = False
    inside: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()


EXCHANGE_ONLINE = Trust(
    without_id=True,
    inside=(".outlook.com", ".office365.com", ".office365.us", ".partner.outlook.cn"),
    gates=(
        ".mail.protection.outlook.com",
        ".mail.protection.office365.us",
        ".mail.protection.partner.outlook.cn",
        ".mx.microsoft",
    ),
)
"""Microsoft 365: its Authentication-Results has no authserv-id, and stands above what its gate has received."""
GMAIL = Trust(ids=frozenset(("mx.google.com",)), gates=("mx.google.com",))
"""Gmail and Google Workspace."""
