"""A provider's token endpoint (RFC 6749 section 3.2): what is sent there, and what its answers mean."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote_plus, urlsplit

from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.ports import Clock
from mailpoller.wire.http import HttpAnswer, HttpClient, HttpError, error_of, retry_after
from mailpoller.wire.oauth.advice import TRANSIENT, TokenRefused, advice_for, code_in
from mailpoller.wire.oauth.assertion import ASSERTION_TYPE, ServiceAccount, client_assertion
from mailpoller.wire.oauth.config import Terms

ANSWER_LIMIT = 256 << 10
"""Octets of a token endpoint's answer. Tokens with many group memberships reach some ten thousand."""
DEFAULT_LIFETIME = timedelta(hours=1)
_LIFETIMES = (timedelta(seconds=1), timedelta(days=366))
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """What a provider gave. ``lifetime`` of the access token; ``refresh_token`` is empty if there is no new one."""

    access_token: str
    lifetime: timedelta
    refresh_token: str = ""
    refresh_lifetime: timedelta | None = None


class Endpoint:
    """Asks one provider for one application. Raises :class:`TokenRefused`, :class:`ConfigError` for unusable files of
    ours, :class:`TransientError` for all else; no secret is in any of them."""

    def __init__(self, terms: Terms, clock: Clock) -> None:
        self._terms = terms
        self._clock = clock

    async def client_credentials(self) -> Grant:
        """A token for the application itself (RFC 6749 section 4.4)."""
        return await self._grant({"grant_type": "client_credentials"}, [])

    async def refresh(self, refresh_token: str) -> Grant:
        """A token for a refresh token, and perhaps the next one (section 6)."""
        return await self._grant({"grant_type": "refresh_token", "refresh_token": refresh_token}, [refresh_token])

    async def service_account(self) -> Grant:
        """A token in the name of a person of the domain (RFC 7523 section 2.1)."""
        terms = self._terms
        if terms.service_account is None:
            raise ConfigError("service_account names no key file")
        account = await asyncio.to_thread(ServiceAccount.read, terms.service_account)
        signed = await asyncio.to_thread(
            account.assertion, terms.owner, terms.scopes, terms.endpoints.token, self._clock.now()
        )
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}
        return self._granted(await self._ask(terms.endpoints.token, form, [signed], "get a token"))

    async def code(self, code: str, verifier: str, redirect_uri: str) -> Grant:
        """A token for an authorization code (section 4.1.3), with the proof of RFC 7636."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        }
        return await self._grant(form, [code, verifier])

    async def device(self) -> dict[str, object]:
        """A code for a person to type in elsewhere (RFC 8628 section 3.2)."""
        form = {"client_id": self._terms.client_id, "scope": " ".join(self._terms.scopes)}
        return (await self._ask(self._terms.endpoints.device, form, [], "get a device code")).object()

    async def device_token(self, device_code: str) -> Grant:
        """A token once the person has confirmed; until then :class:`TokenRefused` with ``authorization_pending`` or
        ``slow_down``."""
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device_code}
        return await self._grant(form, [device_code])

    # --- one request -------------------------------------------------------------------------------------------
    async def _grant(self, form: Mapping[str, str], hidden: list[str]) -> Grant:
        terms = self._terms
        whole = {**form}
        # A code and a refresh token have the scopes that the person has granted, which may be fewer than were asked
        # for: whoever repeats them may be refused. With Microsoft one login serves several services, and the scope
        # says for which.
        if form["grant_type"] == "client_credentials" or (
            form["grant_type"] == "refresh_token" and terms.provider == "microsoft"
        ):
            whole |= {"scope": " ".join(terms.scopes)} if terms.scopes else {}
        headers = {}
        if terms.certificate is not None:
            signed = await asyncio.to_thread(
                client_assertion,
                terms.certificate,
                terms.certificate_key,
                terms.client_id,
                terms.endpoints.token,
                self._clock.now(),
            )
            whole |= {"client_id": terms.client_id, "client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
            hidden.append(signed)
        elif terms.client_secret is not None:
            secret = await asyncio.to_thread(terms.client_secret.reveal)
            hidden.append(secret)
            if terms.basic:
                # Both are form-encoded before they are joined (section 2.3.1).
                pair = b64encode(f"{quote_plus(terms.client_id)}:{quote_plus(secret)}".encode()).decode()
                headers["authorization"] = f"Basic {pair}"
                hidden.append(pair)
            else:
                whole |= {"client_id": terms.client_id, "client_secret": secret}
        else:
            whole["client_id"] = terms.client_id
        return self._granted(await self._ask(terms.endpoints.token, whole, hidden, "get a token", headers))

    async def _ask(
        self,
        url: str,
        form: Mapping[str, str],
        hidden: list[str],
        doing: str,
        headers: Mapping[str, str] | None = None,
    ) -> HttpAnswer:
        terms = self._terms
        # A connection for each request: tokens are asked for once an hour.
        client = HttpClient(
            url, policy=terms.policy, timeout=terms.timeout, proxy=terms.proxy, connections=1, confidential=True
        )
        try:
            answer = await client.request(
                "POST",
                doing=doing,
                form=form,
                headers={"accept": "application/json", **(headers or {})},
                secrets=hidden,
                limit=ANSWER_LIMIT,
                takes=(400, 401, 403),
            )
        finally:
            await client.close()
        if answer.status >= 400:
            raise self._refusal(answer, hidden)
        return answer

    def _refusal(self, answer: HttpAnswer, hidden: list[str]) -> Exception:
        error, words = error_of(answer.body[: 64 << 10], answer.content_type, hidden)
        place = f"{answer.host} gives no token"
        if not error:
            return TransientError(
                f"{place}: HTTP {answer.status}, and no reason that we understand",
                retry_after=retry_after(answer.headers),
            )
        code = code_in(error, words)
        told = f"{place}: {error}" + (f": {words}" if words else "")
        if error in TRANSIENT or code in TRANSIENT:
            return TransientError(told, retry_after=retry_after(answer.headers))
        return TokenRefused(
            told.rstrip("."), code=code, error=error, advice=advice_for(code, error, self._terms.grant, words)
        )

    def _granted(self, answer: HttpAnswer) -> Grant:
        """What section 5.1 promises, checked: what is not visible ASCII would break out of a header or a SASL
        message."""
        found = answer.object()
        token, refresh, kind = (
            found.get("access_token"),
            found.get("refresh_token", ""),
            found.get("token_type", "Bearer"),
        )
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise HttpError(f"{answer.host} answered without an access token")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise HttpError(f"{answer.host} gives a token of another type than Bearer")
        if not isinstance(refresh, str) or (refresh and not _TOKEN.fullmatch(refresh)):
            raise HttpError(f"{answer.host} gives a refresh token that is none")
        return Grant(
            token,
            _seconds(found.get("expires_in")) or DEFAULT_LIFETIME,
            refresh,
            _seconds(found.get("refresh_token_expires_in", found.get("refresh_expires_in"))),
        )


def host_of(url: str) -> str:
    """The host of a URL that was checked."""
    return urlsplit(url).hostname or ""


def until(now: datetime, lifetime: timedelta | None) -> datetime | None:
    """The instant at which a lifetime ends that begins now."""
    return None if lifetime is None else now + lifetime


def _seconds(written: object) -> timedelta | None:
    """A number of seconds, which some servers write as text; None if it is none, or zero, which some write for
    "never"."""
    if isinstance(written, str) and re.fullmatch(r"[0-9]{1,12}", written):
        written = int(written)
    if isinstance(written, bool) or not isinstance(written, int | float) or not written > 0:
        return None
    shortest, longest = _LIFETIMES
    return max(shortest, min(timedelta(seconds=min(float(written), longest.total_seconds())), longest))
