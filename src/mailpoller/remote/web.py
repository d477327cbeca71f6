"""A mailbox of a web service, as its client speaks to it: every request takes its turn, is made again where that is
likely to do, and fails with a decision."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.record import record
from mailpoller.remote.bearer import TokenTrouble
from mailpoller.remote.polled_session import Asked
from mailpoller.remote.throttle import LONGEST_PAUSE, Throttle
from mailpoller.wire.http import HttpClient, HttpStatus, IntakeTrouble, Unauthorized
from mailpoller.wire.retry import as_told

TRIES = 4
"""How often a request that may pass later is made, all told, before the engine is left to wait."""
FIRST_WAIT = 0.3
"""Seconds before a request that failed inside the service is made again; doubled each time."""

T = TypeVar("T")


@record
class Refusal:
    """What it means that the service refused a request.

    ``error``: the decision, to be raised. ``again``: the same request may pass a little later. ``throttled``: the
    service wants to be left alone, whoever asks; for as long as ``wish``, if it said how long.
    """

    error: MailpollerError
    again: bool = False
    throttled: bool = False
    wish: timedelta | None = None


class WebClient(Asked):
    """Asks by ``http``, when ``throttle`` lets it. Requests go through :meth:`_in_turn`, and raise what that does."""

    def __init__(self, http: HttpClient, throttle: Throttle) -> None:
        self._http = http
        self._throttle = throttle

    @property
    def host(self) -> str:
        """The service's name, for errors."""
        return self._http.host

    @property
    def octets_in(self) -> int:
        """Octets of answers that have come."""
        return self._http.octets_in

    async def _hang_up(self) -> None:
        await self._http.close()

    async def _in_turn(
        self,
        turn: Callable[[], AbstractAsyncContextManager[None]],
        once: Callable[[], Awaitable[T]],
        means: Callable[[HttpStatus | Unauthorized], Refusal],
    ) -> T:
        """Do ``once`` when it is our ``turn``, which holds as long as it takes; again, if what the refusal ``means``
        is worth it.

        Raises :class:`SessionLost` when there is no answer that can be used (and then whatever is asked later does),
        the error that the last refusal means, :class:`Busy`, :class:`TokenTrouble`, :class:`IntakeTrouble`, and what
        the tokens raise.
        """

        async def attempt() -> T:
            self.check()
            await self.in_pace(self._throttle.clock)
            async with turn():
                self.check()
                try:
                    done = await once()
                except (HttpStatus, Unauthorized) as error:
                    refusal = means(error)
                    # The next turn is as far away as a service that is busy wishes.
                    pause = self._throttle.throttled(refusal.wish) if refusal.throttled else None
                    raise _Refused(refusal, pause) from None
                except (TokenTrouble, IntakeTrouble):
                    raise
                except TransientError as error:
                    raise self.lose(str(error), error.retry_after) from None
                self._throttle.served()
                return done

        try:
            return await as_told(attempt, _wait, tries=TRIES, sleep=self._throttle.clock.sleep)
        except _Refused as refused:
            raise refused.refusal.error from None


class _Refused(Exception):
    """``pause``: how far away the next turn is, if the service is busy."""

    def __init__(self, refusal: Refusal, pause: float | None) -> None:
        super().__init__(str(refusal.error))
        self.refusal = refusal
        self.pause = pause


def _wait(error: Exception, attempt: int) -> float | None:
    """Seconds until the same is asked again, beside the turn's own; None if it is not."""
    if not isinstance(error, _Refused) or not error.refusal.again:
        return None
    if error.pause is not None:
        return 0.0 if error.pause <= LONGEST_PAUSE else None
    wait = FIRST_WAIT * 2.0 ** (attempt - 1) * random.uniform(0.8, 1.2)
    return wait if wait <= LONGEST_PAUSE else None
