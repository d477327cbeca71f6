"""What large providers are asked for at most, unless the configuration says otherwise.

None of them says how many logins of one address it takes: these are cautious guesses.
"""

from __future__ import annotations

from mailpoller.core.host_limit import HostLimit
from mailpoller.wire.oauth.providers import provider_of

_PROVIDERS = {"google": HostLimit(logins=300), "microsoft": HostLimit(logins=300)}
_YAHOO = HostLimit(logins=60)
_NETEASE = HostLimit(logins=20, commands=20)
_DOMAINS = {
    "mail.yahoo.com": _YAHOO,
    "mail.yahoo.co.jp": _YAHOO,
    "aol.com": _YAHOO,
    "163.com": _NETEASE,
    "126.com": _NETEASE,
    "yeah.net": _NETEASE,
}


def usual_limit(host: str) -> HostLimit | None:
    """Of a host in small letters; None: it is nobody's whom we know."""
    if (found := _PROVIDERS.get(provider_of(host) or "")) is not None:
        return found
    return next((limit for domain, limit in _DOMAINS.items() if host.endswith(f".{domain}")), None)
