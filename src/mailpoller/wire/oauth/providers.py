"""What is known of Microsoft and Google: where they are, and which scopes a service needs.

Microsoft's national clouds are worlds of their own: other hosts for logging in, for Graph and for Exchange.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mailpoller.core.authentication import EXCHANGE_ONLINE, GMAIL, Trust
from mailpoller.core.record import record

ProviderName = Literal["microsoft", "google"]
CloudName = Literal["global", "us-gov", "us-dod", "china"]
GrantName = Literal["client_credentials", "refresh_token", "device_code", "authorization_code", "service_account"]
ServiceName = Literal["imap", "pop3", "smtp", "graph", "ews", "gmail", "gmail-import"]
"""What a token is for: the ``type`` of the block that logs in."""


@record
class Cloud:
    """One of Microsoft's clouds, by its hosts. ``outlook`` serves IMAP, POP3, SMTP and EWS; ``delegated`` names it in
    a person's scopes."""

    login: str
    graph: str
    outlook: str
    delegated: str


CLOUDS: Mapping[str, Cloud] = {
    "global": Cloud("login.microsoftonline.com", "graph.microsoft.com", "outlook.office365.com", "outlook.office.com"),
    "us-gov": Cloud("login.microsoftonline.us", "graph.microsoft.us", "outlook.office365.us", "outlook.office365.us"),
    "us-dod": Cloud(
        "login.microsoftonline.us", "dod-graph.microsoft.us", "outlook-dod.office365.us", "outlook-dod.office365.us"
    ),
    "china": Cloud(
        "login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn", "partner.outlook.cn",
        "partner.outlook.cn"
    ),
}  # fmt: skip


_DOMAINS: Mapping[ProviderName, tuple[str, ...]] = {
    "microsoft": ("office365.com", "office.com", "outlook.com", "outlook.de", "office365.us", "outlook.cn"),
    "google": ("gmail.com", "googlemail.com"),
}


def provider_of(host: str) -> ProviderName | None:
    """Whose mail server this is, by its name; None if it is neither's."""
    name = "." + host.lower().rstrip(".")
    return next(
        (one for one, domains in _DOMAINS.items() if name.endswith(tuple(f".{domain}" for domain in domains))), None
    )


def trust_of(host: str) -> Trust | None:
    """Whose word on senders is taken in a mailbox on this server; None if it is neither's."""
    return {"microsoft": EXCHANGE_ONLINE, "google": GMAIL, None: None}[provider_of(host)]


@record
class Endpoints:
    """Where one provider is asked. ``extra`` goes along with an authorization request."""

    token: str
    authorization: str = ""
    device: str = ""
    extra: tuple[tuple[str, str], ...] = ()


_DELEGATED = {
    "imap": "IMAP.AccessAsUser.All",
    "pop3": "POP.AccessAsUser.All",
    "smtp": "SMTP.Send",
    "ews": "EWS.AccessAsUser.All",
}
_GOOGLE_MAIL = "https://mail.google.com/"


def microsoft(cloud: CloudName, tenant: str) -> Endpoints:
    """Microsoft Entra ID. ``tenant`` is an id, a domain, ``organizations``, ``consumers`` or ``common``."""
    root = f"https://{CLOUDS[cloud].login}/{tenant}/oauth2/v2.0"
    return Endpoints(f"{root}/token", f"{root}/authorize", f"{root}/devicecode", (("prompt", "select_account"),))


GOOGLE = Endpoints(
    "https://oauth2.googleapis.com/token",
    "https://accounts.google.com/o/oauth2/v2/auth",
    extra=(("access_type", "offline"), ("prompt", "consent")),  # without both there is no refresh token
)


def scopes_of(
    provider: ProviderName | None, service: ServiceName, grant: GrantName, cloud: CloudName
) -> tuple[str, ...]:
    """The least that reading, settling and sending mail needs; none for a provider that is not known."""
    if provider == "microsoft":
        hosts = CLOUDS[cloud]
        if grant == "client_credentials":
            return (f"https://{hosts.graph if service == 'graph' else hosts.outlook}/.default",)
        if service == "graph":
            mail = ("Mail.ReadWrite", "Mail.ReadWrite.Shared", "Mail.Send")
            return (*(f"https://{hosts.graph}/{one}" for one in mail), "offline_access")
        return f"https://{hosts.delegated}/{_DELEGATED[service]}", "offline_access"
    if provider == "google":
        if service == "gmail":
            return ("https://www.googleapis.com/auth/gmail.modify",)
        if service == "gmail-import":
            return tuple(f"https://www.googleapis.com/auth/gmail.{one}" for one in ("insert", "readonly"))
        # An administrator delegates this narrower scope for IMAP; it also shows labels that their owner hides from
        # IMAP.
        admin = grant == "service_account" and service == "imap"
        return ("https://www.googleapis.com/auth/gmail.imap_admin" if admin else _GOOGLE_MAIL,)
    return ()
