"""A person says yes once: in a browser on this machine (RFC 8252), or with a code that is typed in elsewhere (RFC
8628)."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import socket
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from urllib.parse import parse_qs, urlencode, urlsplit

from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.ports import Clock
from mailpoller.wire.http import HttpError
from mailpoller.wire.oauth.advice import TokenRefused, advice_for, code_in
from mailpoller.wire.oauth.config import Terms
from mailpoller.wire.oauth.endpoint import Endpoint, Grant, host_of
from mailpoller.wire.redaction import spoken

PATIENCE = timedelta(minutes=15)
"""How long a person has to say yes."""
_HEAD_LIMIT = 32 << 10
_HEAD_SECONDS = 10.0

Tell = Callable[[str], None]
"""Shows a person what to do: one or more lines of text."""


async def log_in(terms: Terms, clock: Clock, tell: Tell, *, port: int = 0) -> Grant:
    """Walk a person through the grant of ``terms``, at most a quarter of an hour long.

    ``port``: where a browser is sent back to, 0 for any that is free. Raises :class:`ConfigError` if nobody need say
    yes, :class:`TokenRefused` if somebody said no, :class:`TransientError` for all that may pass.
    """
    endpoint = Endpoint(terms, clock)
    if terms.grant == "device_code":
        return await _by_device(endpoint, terms, clock, tell)
    if terms.grant == "authorization_code":
        return await _by_browser(endpoint, terms, tell, port)
    raise ConfigError(
        f"with grant: {terms.grant} nobody needs to log in"
        if terms.grant != "refresh_token"
        else "with grant: refresh_token the token comes from elsewhere; say authorization_code or device_code to log "
        "in here"
    )


# --- a code, typed in elsewhere --------------------------------------------------------------------------------------
async def _by_device(endpoint: Endpoint, terms: Terms, clock: Clock, tell: Tell) -> Grant:
    answer = await endpoint.device()
    # Google's draft has verification_url.
    page = answer.get("verification_uri", answer.get("verification_url"))
    user_code, device_code = answer.get("user_code"), answer.get("device_code")
    if not (isinstance(page, str) and isinstance(user_code, str) and isinstance(device_code, str)):
        raise HttpError(f"{host_of(terms.endpoints.device)} answered without a device code")
    if not _is_address(page, terms.endpoints.device) or not re.fullmatch(r"[A-Za-z0-9-]{1,32}", user_code):
        # The person would follow it: what is no address and no code is a sentence in the provider's name.
        raise HttpError(
            f"{host_of(terms.endpoints.device)} answered with something else than an https address and a short code"
        )
    tell(f"Open {page} on any machine, as {terms.owner}, and type in the code {user_code}")
    interval = _number(answer.get("interval"), 5.0, most=60.0)
    deadline = clock.monotonic() + _number(answer.get("expires_in"), 900.0, most=PATIENCE.total_seconds())
    while True:
        await clock.sleep(interval)
        if clock.monotonic() > deadline:
            raise TransientError("nobody confirmed the code in time; run the command once more")
        try:
            return await endpoint.device_token(device_code)
        except TokenRefused as refusal:
            if refusal.error == "slow_down":
                interval += 5.0  # section 3.5
            elif refusal.error != "authorization_pending":
                raise
        except TransientError:
            interval = min(interval * 2, 60.0)


def _number(written: object, otherwise: float, *, most: float) -> float:
    usable = isinstance(written, int | float) and not isinstance(written, bool) and written > 0
    return min(float(written), most) if usable else otherwise  # type: ignore[arg-type]


def _is_address(text: str, asked: str) -> bool:
    """True for an https address on one line in ASCII (RFC 8628 section 3.2), without a user in it, who would look
    like the host. Without TLS it is one of the very server that was ``asked`` without it: that is this machine."""
    if not re.fullmatch(r"[\x21-\x7e]{1,500}", text):
        return False
    try:
        parts, known = urlsplit(text), urlsplit(asked)
    except ValueError:
        return False
    trusted = parts.scheme == "https" or (parts.scheme, parts.netloc) == (known.scheme, known.netloc)
    return trusted and bool(parts.hostname) and "@" not in parts.netloc


# --- a browser on this machine ---------------------------------------------------------------------------------------
async def _by_browser(endpoint: Endpoint, terms: Terms, tell: Tell, port: int) -> Grant:
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
    challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    async with AsyncExitStack() as closing:
        landing = _Landing(state)
        bound = await landing.open(port, closing)
        # Microsoft wants the name that is registered, whatever the port; for all others the address, which no hosts
        # file changes.
        redirect_uri = f"http://localhost:{bound}" if terms.provider == "microsoft" else f"http://127.0.0.1:{bound}/"
        query = {
            "response_type": "code",
            "client_id": terms.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(terms.scopes),
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "login_hint": terms.owner,
            # OpenID Connect Core section 11: without a new consent offline_access, and so the refresh token, is left
            # out.
            "prompt": "consent" if "offline_access" in terms.scopes else "",
            **dict(terms.endpoints.extra),
        }
        url = terms.endpoints.authorization
        url += ("&" if urlsplit(url).query else "?") + urlencode({key: value for key, value in query.items() if value})
        tell(
            f"Open this address in a browser on this machine, as {terms.owner}:\n\n{url}\n\n"
            f"Is the browser elsewhere? Then log in with: ssh -L {bound}:localhost:{bound} …, and open it there."
        )
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                answer = await landing.answer
        except TimeoutError:
            raise TransientError("nobody came back from the browser in time; run the command once more") from None
    if not answer.code:
        words = spoken(answer.words)
        code = code_in(spoken(answer.error), words)
        told = f"{host_of(terms.endpoints.authorization)} says no: {spoken(answer.error)}" + (
            f": {words}" if words else ""
        )
        raise TokenRefused(
            told.rstrip("."), code=code, error=answer.error, advice=advice_for(code, answer.error, terms.grant, words)
        )
    return await endpoint.code(answer.code, verifier, redirect_uri)


@dataclass(frozen=True, slots=True, repr=False)
class _Answer:
    """What the browser brought: a code, or an error with words."""

    code: str
    error: str = ""
    words: str = ""


class _Landing:
    """The address on this machine to which the browser comes back. Whoever does not know the state is sent away."""

    def __init__(self, state: str) -> None:
        self._state = state
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()

    async def open(self, port: int, closing: AsyncExitStack) -> int:
        """Listen on loopback only, by IPv4 and, where there is any, by IPv6; the port."""
        try:
            server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_HEAD_LIMIT)
        except OSError as error:
            raise TransientError(f"cannot listen on port {port} of this machine: {error.strerror}") from None
        closing.callback(server.close)
        bound = int(server.sockets[0].getsockname()[1])
        if socket.has_ipv6:
            try:
                also = await asyncio.start_server(self._serve, "::1", bound, limit=_HEAD_LIMIT)
                closing.callback(also.close)
            except OSError:
                pass
        return bound

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, *_ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
                writer.write(self._respond(method, target))
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    def _respond(self, method: str, target: str) -> bytes:
        parts = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(parts.query, max_num_fields=50).items()}
        if method != "GET" or parts.path not in ("", "/"):
            return _page("404 Not Found", "There is nothing here.")
        if not hmac.compare_digest(query.get("state", "").encode(), self._state.encode()):
            return _page("400 Bad Request", "This is not the login that mailpoller waits for.")
        code, error = query.get("code", ""), query.get("error", "")
        if not code and not error:
            return _page("400 Bad Request", "There is no code in this address.")
        if not self.answer.done():
            self.answer.set_result(_Answer(code if not error else "", error, query.get("error_description", "")))
        return _page("200 OK", "You can close this window and return to the terminal.")


def _page(status: str, sentence: str) -> bytes:
    body = f"<!doctype html><title>mailpoller</title><p>{sentence}</p>\n".encode()
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {len(body)}\r\n"
        "cache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
