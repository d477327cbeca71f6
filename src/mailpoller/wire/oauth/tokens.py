"""Who has tokens: one source for all mailboxes that share one, which refreshes before it must."""

from __future__ import annotations

import asyncio
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from mailpoller.core.errors import ConfigError, CredentialsRefused, MailpollerError, TransientError
from mailpoller.core.ports import Clock
from mailpoller.wire.oauth.advice import TokenMissing, TokenRefused
from mailpoller.wire.oauth.assertion import expiry_of
from mailpoller.wire.oauth.config import DELEGATED, Terms
from mailpoller.wire.oauth.endpoint import Endpoint, Grant, host_of, until
from mailpoller.wire.oauth.store import Kept, TokenFile, fingerprint

log = structlog.get_logger(__name__)

EARLY = timedelta(minutes=5)
"""So long before its end a token is replaced, or a quarter of its life if that is less."""
RENEW = timedelta(minutes=2)
"""So long before its token's end a session is renewed, or an eighth of its life: later than a new token is to be
had."""
YOUNG = timedelta(seconds=60)
"""A token that is refused while it is younger than this is not asked for again: it is not the token that is wrong."""
PAUSE = timedelta(seconds=10)
"""After a failure the provider is left alone for so long, however many mailboxes ask."""
BLIP = timedelta(seconds=1)
"""But after the first one for so long: one 503 is not to cost all mailboxes a long back-off."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """An access token, with its times on the clock's monotonic scale."""

    value: str
    born: float
    lifetime: float
    expires_at: datetime

    @property
    def stale(self) -> float:
        """From when on a new one is wanted."""
        return self.born + self.lifetime - min(EARLY.total_seconds(), self.lifetime / 4)

    @property
    def renew(self) -> float:
        """When a session that was opened with it should be closed."""
        return self.born + self.lifetime - min(RENEW.total_seconds(), self.lifetime / 8)

    @property
    def ends(self) -> float:
        """When it is worth nothing."""
        return self.born + self.lifetime


class TokenSource:
    """Gives tokens for one set of :class:`Terms`. Made by :func:`token_source`, so that equal terms share one."""

    def __init__(self, terms: Terms, state_directory: Path, clock: Clock) -> None:
        self.terms = terms
        self._clock = clock
        self._endpoint = Endpoint(terms, clock)
        self._file = TokenFile(
            state_directory, client_id=terms.client_id, token_url=terms.endpoints.token, owner=terms.owner
        )
        self._token: Token | None = None
        self._taken = ""
        """The last token that some service took."""
        self._failures = 0
        self._revoked_at: float | None = None
        """When a young token was last given up."""
        self._asking: asyncio.Task[Token] | None = None
        self._failure: MailpollerError | None = None
        self._quiet_until = 0.0
        self._unkept: Kept | None = None
        self._refresh_ends: datetime | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When the token in hand ends, aware UTC; None if there is none."""
        return None if self._token is None else self._token.expires_at

    async def lease(self) -> Token:
        """A token that is good for some minutes, with its times.

        However many ask, the provider is asked once. While an old one is still good, a failure to replace it is
        logged and no more. Raises :class:`CredentialsRefused` with what to do, or :class:`TransientError`.
        """
        held, now = self._held(), self._clock.monotonic()
        if held is not None and now < held.stale:
            return held
        if self._failure is not None and now < self._quiet_until:
            if held is not None and now < held.renew:
                return held
            raise _anew(self._failure)
        if self._asking is None or self._asking.done():
            # A task of its own: whoever waits may be cancelled, but a refresh token that was used must be replaced.
            self._asking = asyncio.create_task(self._ask(), name=f"token from {host_of(self.terms.endpoints.token)}")
            self._asking.add_done_callback(_heard)
        try:
            return await asyncio.shield(self._asking)
        except (TransientError, CredentialsRefused) as error:
            held = self._held()
            if held is not None and self._clock.monotonic() < held.renew:
                log.warning("token.kept", provider=host_of(self.terms.endpoints.token), reason=str(error))
                return held
            raise _anew(error) from None

    async def token(self) -> str:
        """The token of :meth:`lease`."""
        return (await self.lease()).value

    async def refused(self, token: str) -> bool:
        """A service did not take this token. True if another one will be had, so that a second try is worth it.

        One that is young and was never taken is not replaced: it is not the token that is wrong. One that was taken
        before is, whatever its age, for it was revoked; but not again and again, as where a service says no to some of
        our requests alone.
        """
        held = self._held()
        if held is None or held.value != token:
            return True
        now, young = self._clock.monotonic(), YOUNG.total_seconds()
        if now - held.born < young:
            if self._taken != token or (self._revoked_at is not None and now - self._revoked_at < young):
                return False
            self._revoked_at = now
        self._token = None
        return True

    def taken(self, token: str) -> None:
        """A service took this token."""
        self._taken = token

    def ask_anew(self) -> None:
        """An operator wants the provider to be asked at the next occasion, whatever it said before."""
        self._failure, self._failures, self._quiet_until = None, 0, 0.0
        self._token = None

    def left(self) -> timedelta | None:
        """How long the token in hand is good by itself; None if there is none."""
        held = self._held()
        return None if held is None else timedelta(seconds=max(0.0, held.ends - self._clock.monotonic()))

    def _held(self) -> Token | None:
        """The token in hand, unless it has ended by the calendar: while a machine is suspended its monotonic clock
        stands still."""
        held = self._token
        return held if held is not None and self._clock.now() < held.expires_at else None

    def expiries(self) -> list[tuple[str, datetime]]:
        """What ends when (aware UTC), as far as anybody knows: the secret, the certificate, the refresh token. Reads
        files."""
        terms, found = self.terms, list[tuple[str, datetime]]()
        whose = f"{terms.client_id} at {host_of(terms.endpoints.token)}"
        if terms.expires is not None:
            what = "refresh token" if terms.client_secret is None and terms.grant in DELEGATED else "client secret"
            found.append((f"the {what} of {whose}", datetime.combine(terms.expires, time(), UTC)))
        if terms.certificate is not None:
            try:
                found.append((f"the certificate of {whose}", expiry_of(terms.certificate)))
            except ConfigError:
                pass  # the next token is refused for that, in words
        if (end := self._refresh_ends or self._kept_end()) is not None:
            found.append((f"the refresh token of {terms.owner} for {whose}", end))
        return found

    def _kept_end(self) -> datetime | None:
        """When the refresh token that an earlier process kept ends: known before this one has asked for anything."""
        if self.terms.grant not in DELEGATED:
            return None
        configured = self.terms.refresh_token
        try:
            kept = self._file.read()
            seed = "" if configured is None else fingerprint(configured.reveal())
        except (TransientError, ConfigError):
            return None  # the next token is refused for that, in words
        return kept.expires_at if kept is not None and (configured is None or kept.seed == seed) else None

    async def adopt(self, grant: Grant) -> None:
        """Keep what a person has just said yes to (``mailpoller oauth login``). Raises :class:`TransientError`."""
        if not grant.refresh_token:
            raise TokenRefused(
                f"{host_of(self.terms.endpoints.token)} gave no refresh token",
                advice="Ask for it: Microsoft wants the scope offline_access, Google access_type=offline and a new "
                "consent.",
            )
        configured = self.terms.refresh_token
        written = "" if configured is None else await asyncio.to_thread(configured.reveal)
        async with self._file.locked():
            await self._keep(grant, fingerprint(written) if written else "")
        self._token = self._made(grant)

    # --- asking ------------------------------------------------------------------------------------------------
    async def _ask(self) -> Token:
        begun = self._clock.monotonic()
        try:
            made = self._made(await self._surely_granted())
        except ConfigError as error:
            # A secret that cannot be read, a key that is none: a human is wanted, and it may be mended while we run.
            missing = TokenMissing(str(error))
            self._fail(missing)
            raise missing from None
        except (TransientError, CredentialsRefused) as error:
            self._fail(error)
            raise
        self._failure, self._failures = None, 0
        self._token = made
        log.info(
            "token.obtained",
            provider=host_of(self.terms.endpoints.token),
            grant=self.terms.grant,
            lifetime_s=round(made.lifetime),
            elapsed_s=round(self._clock.monotonic() - begun, 3),
        )
        return made

    async def _surely_granted(self) -> Grant:
        """A second try after a moment, where one refusal may have been a blip."""
        try:
            return await self._granted()
        except TransientError as error:
            if (
                self._failures
                or self._held() is not None
                or (error.retry_after is not None and error.retry_after > 3 * BLIP)
            ):
                raise
            log.debug("token.retried", provider=host_of(self.terms.endpoints.token), reason=str(error))
            await self._clock.sleep(max(BLIP, error.retry_after or BLIP).total_seconds())
            return await self._granted()

    async def _granted(self) -> Grant:
        if self.terms.grant == "client_credentials":
            return await self._endpoint.client_credentials()
        if self.terms.grant == "service_account":
            return await self._endpoint.service_account()
        async with self._file.locked():
            refresh_token, seed = await self._current()
            grant = await self._endpoint.refresh(refresh_token)
            if grant.refresh_token and grant.refresh_token != refresh_token:
                await self._keep(grant, seed)
            return grant

    async def _current(self) -> tuple[str, str]:
        """The refresh token to use, and the fingerprint of the configured one that it descends from.

        The one that is kept, unless a human has configured another one since.
        """
        if self._unkept is not None:
            await asyncio.to_thread(self._file.write, self._unkept)
            self._unkept = None
        kept = await asyncio.to_thread(self._file.read)
        configured = self.terms.refresh_token
        written = "" if configured is None else await asyncio.to_thread(configured.reveal)
        seed = fingerprint(written) if written else ""
        if kept is not None and (not written or kept.seed == seed):
            self._refresh_ends = kept.expires_at
            return kept.refresh_token, kept.seed
        if written:
            return written, seed
        raise TokenMissing(
            f"nobody has logged in as {self.terms.owner} yet",
            code="login_required",
            advice="Run mailpoller oauth login for this mailbox.",
        )

    async def _keep(self, grant: Grant, seed: str) -> None:
        now = self._clock.now()
        kept = Kept(grant.refresh_token, now, seed, until(now, grant.refresh_lifetime))
        self._unkept = kept  # should the disk be full, it is tried again before anything else
        await asyncio.to_thread(self._file.write, kept)
        self._unkept = None
        self._refresh_ends = kept.expires_at

    def _made(self, grant: Grant) -> Token:
        seconds = grant.lifetime.total_seconds()
        return Token(grant.access_token, self._clock.monotonic(), seconds, self._clock.now() + grant.lifetime)

    def _fail(self, error: MailpollerError) -> None:
        pause = PAUSE if self._failures or not isinstance(error, TransientError) else BLIP
        self._failures += 1
        wait = max(pause, getattr(error, "retry_after", None) or pause)
        self._failure = error
        self._quiet_until = self._clock.monotonic() + wait.total_seconds()


_sources: WeakValueDictionary[tuple[Path, Terms], TokenSource] = WeakValueDictionary()
"""By whom they are shared: as long as one mailbox holds a source, the next one with equal terms gets the same."""


def token_source(terms: Terms, state_directory: Path, clock: Clock) -> TokenSource:
    """The source for these terms, shared by everybody in this process who asks with equal ones."""
    found = _sources.get((state_directory, terms))
    if found is None:
        found = _sources[state_directory, terms] = TokenSource(terms, state_directory, clock)
    return found


def _anew(error: MailpollerError) -> MailpollerError:
    """The same error for another one who asks: one object raised twice would gather tracebacks without end."""
    return copy(error).with_traceback(None)


def _heard(task: asyncio.Task[Token]) -> None:
    """Whoever waited may be gone; the failure is remembered all the same."""
    if not task.cancelled():
        task.exception()
