"""What a provider's refusal means, and what a human can do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mailpoller.core.errors import CredentialsMissing, CredentialsRefused
from mailpoller.wire.oauth.providers import ServiceName, provider_of


class TokenRefused(CredentialsRefused):
    """The provider gives no token. ``error`` as RFC 6749 names it, ``code`` the most exact one that it has
    (``AADSTS7000222``, else the error); ``advice`` may be empty."""

    def __init__(self, message: str, *, code: str = "", error: str = "", advice: str = "") -> None:
        super().__init__(f"{message}. {advice}" if advice else message)
        self.code = code
        self.error = error
        self.advice = advice


class TokenMissing(TokenRefused, CredentialsMissing):
    """A token cannot even be asked for: a secret, a file or a person's yes is missing."""


_LOGIN = "Run mailpoller oauth login for this mailbox again."

_ADVICE: Mapping[str, str] = {
    # Microsoft Entra ID
    "AADSTS7000222": "The client secret has expired: create a new one (Entra, App registrations, Certificates & "
    "secrets) and "
    "replace client_secret.",
    "AADSTS7000215": "The client secret is wrong: client_secret must be the secret's value, not its id.",
    "AADSTS700082": f"The refresh token has expired, because it was not used for 90 days. {_LOGIN}",
    "AADSTS700084": f"The refresh token was one of a single-page app and has expired. {_LOGIN}",
    "AADSTS70008": f"The refresh token has expired or was revoked. {_LOGIN}",
    "AADSTS70000": f"The refresh token or code is not valid for this application. {_LOGIN}",
    "AADSTS50173": f"The password was changed, which ends every token. {_LOGIN}",
    "AADSTS50089": f"The sign-in has expired. {_LOGIN}",
    "AADSTS50076": f"Multi-factor authentication is wanted. {_LOGIN}",
    "AADSTS50079": f"Multi-factor authentication has to be set up for this user. {_LOGIN}",
    "AADSTS50078": f"Multi-factor authentication has expired. {_LOGIN}",
    "AADSTS65001": "Nobody has consented: an administrator grants the permissions (Entra, App registrations, API "
    "permissions, Grant "
    "admin consent), or the user does at mailpoller oauth login.",
    "AADSTS65004": "The user declined to consent.",
    "AADSTS90094": "Only an administrator may consent: Entra, App registrations, API permissions, Grant admin consent.",
    "AADSTS50034": "This user does not exist in the tenant: check owner or username, and tenant.",
    "AADSTS50057": "The user's account is disabled.",
    "AADSTS50055": "The user's password has expired: change it, then log in again.",
    "AADSTS50126": "User name or password are wrong.",
    "AADSTS50053": "The account is locked, or the address that we come from is blocked.",
    "AADSTS53000": "Conditional Access wants a managed device: exclude this application or this account.",
    "AADSTS53003": "Conditional Access blocks this sign-in: exclude this application or this account, or allow its "
    "address.",
    "AADSTS530003": "Conditional Access wants a registered device: exclude this application or this account.",
    "AADSTS700016": "The application is not known in this tenant: check client_id and tenant, and that it was "
    "consented to there.",
    "AADSTS7000112": "The application is disabled: enable it under Entra, Enterprise applications, Properties.",
    "AADSTS7000218": "A secret is wanted: set client_secret, or allow public client flows (Entra, App registrations, "
    "Authentication).",
    "AADSTS90002": "The tenant does not exist: check tenant and cloud.",
    "AADSTS900023": "The tenant is neither an id nor a domain: check tenant.",
    "AADSTS90013": "The request was not understood: check client_id, tenant and scopes.",
    "AADSTS50011": "The redirect address is not registered: add http://localhost under Entra, App registrations, "
    "Authentication, "
    "Mobile and desktop applications.",
    "AADSTS50059": "The tenant is missing: set tenant.",
    "AADSTS50194": "The application is for one tenant only: set tenant.",
    "AADSTS70011": "A scope is not valid: for client_credentials it must end in /.default.",
    "AADSTS1002012": "With client_credentials the scope must end in /.default.",
    "AADSTS500011": "The tenant does not have the service that the scope names: check scopes and cloud.",
    "AADSTS650057": "The application lacks the permission: add it under Entra, App registrations, API permissions.",
    "AADSTS700027": "The certificate is not the application's: upload it under Entra, App registrations, "
    "Certificates & secrets.",
    "AADSTS700024": "The signature's time is not now: set this machine's clock (NTP).",
    "AADSTS700023": "The signature is for another audience: check tenant and cloud.",
    "AADSTS7000229": "The application has no service principal in this tenant: New-MgServicePrincipal, or consent as "
    "an administrator.",
    # Google
    "admin_policy_enforced": "The domain's administrator does not allow this application: Google Admin, Security, "
    "API controls.",
    "org_internal": "The application is for its own organisation only: change the consent screen's user type.",
    "deleted_client": "The application was deleted in Google Cloud: create another one, and log in again.",
    "disabled_client": "The application was disabled in Google Cloud.",
    "redirect_uri_mismatch": "The application must be of the type Desktop app, which may use loopback addresses.",
    "rate_limit_exceeded": "The provider counts too many requests; it is tried again later.",
    # RFC 6749
    "invalid_client": "Check client_id and client_secret (or certificate): the provider does not know this pair.",
    "invalid_scope": "Check scopes: the provider does not give one of them to this application.",
    "unauthorized_client": "The application may not use this grant, or not for this user. With a Google service "
    "account: delegate its "
    "numeric client id with exactly these scopes (Google Admin, Security, API controls, Domain-wide delegation).",
    "unsupported_grant_type": "The provider does not have this grant: check grant and token_url.",
    "access_denied": "The user, or an administrator, said no.",
    "consent_required": f"Consent is missing. {_LOGIN}",
    "interaction_required": f"The user has to sign in once more. {_LOGIN}",
    "login_required": f"The user has to sign in once more. {_LOGIN}",
    "expired_token": "The code was not confirmed in time: run mailpoller oauth login once more.",
}

_GRANT: Mapping[str, str] = {
    "service_account": "Check that subject and key belong to this domain (owner or username is the person), that the "
    "key was not "
    "deleted, and this machine's clock (NTP).",
    "client_credentials": "Check client_id, secret and tenant.",
}
"""``invalid_grant`` says nearly nothing: what it mostly means, by the grant."""

TRANSIENT = frozenset(
    ("temporarily_unavailable", "server_error", "rate_limit_exceeded", "internal_failure", "backend_error",
     "AADSTS90033", "AADSTS90036", "AADSTS50196", "AADSTS90006", "AADSTS90012")
)  # fmt: skip
"""Codes of a trouble that passes by itself."""


def code_in(code: str, words: str) -> str:
    """The most exact code: Microsoft's own out of its words, else the error as RFC 6749 names it."""
    found = re.search(r"\bAADSTS\d{4,9}\b", words)
    return found[0] if found else code


def advice_for(code: str, error: str, grant: str, words: str = "") -> str:
    """What to do about a refusal, in the provider's own terms; empty if nobody knows."""
    if code in _ADVICE:
        return _ADVICE[code]
    if error == "invalid_grant":
        if grant == "service_account" and "email" in words.lower():
            return "This person does not exist in the domain: check owner or username."
        return _GRANT.get(
            grant, f"The refresh token has expired or was revoked (a changed password does that). {_LOGIN}"
        )
    return _ADVICE.get(error, "")


def token_not_taken(service: ServiceName, host: str, username: str) -> str:
    """What to do where the provider gave a token and the mail server at ``host`` does not take it."""
    provider, protocol = provider_of(host), "POP" if service == "pop3" else service.upper()
    if provider == "microsoft" and service == "smtp":
        return (
            "The token is good, but not for sending. Switch authenticated SMTP on for this mailbox: Set-CASMailbox "
            f"{username} -SmtpClientAuthenticationDisabled $false. With client_credentials also: SMTP.SendAsApp "
            f"granted, "
            "New-ServicePrincipal, and Add-RecipientPermission … -AccessRights SendAs."
        )
    if provider == "microsoft":
        return (
            f"The token is good, but not for this mailbox. With client_credentials: {protocol}.AccessAsApp granted, "
            f"New-ServicePrincipal with the enterprise application's object id, Add-MailboxPermission for "
            f"{username}; it takes up to half an hour. With a person's login: that person needs full access, and "
            f"{protocol} switched on for the mailbox."
        )
    if provider == "google" and service != "smtp":
        return (
            "The token is good, but not for this mailbox. With a service account: delegate exactly the configured "
            "scopes, and let "
            f"username or owner be the mailbox's own address; {protocol} must be on for {username}."
        )
    return "The mail server must trust this provider, and the token must name this user: check username and scopes."
