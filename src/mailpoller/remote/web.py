"""A mailbox of a web service, as its client speaks to it: every request takes its turn, is made again where that is
likely to do, and fails with a decision."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.remote.bearer import TokenTrouble
from mailpoller.remote.polled_session import Asked
from mailpoller.remote.throttle import LONGEST_PAUSE, Throttle
from mailpoller.wire.http import HttpClient, HttpStatus, IntakeTrouble, Unauthorized

TRIES = 4
"""How often a request that may pass later is made, all told, before the engine is left to wait."""
FIRST_WAIT = 0.3
"""Seconds before a request that failed inside the service is made again; doubled each time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
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
        for attempt in range(TRIES):
            self.check()
            async with turn():
                self.check()
                try:
                    done = await once()
                except (HttpStatus, Unauthorized) as error:
                    refusal = means(error)
                    if refusal.throttled:
                        wait = self._throttle.throttled(refusal.wish)  # the next turn is as far away
                    else:
                        wait = FIRST_WAIT * 2**attempt * random.uniform(0.8, 1.2)
                    if not refusal.again or wait > LONGEST_PAUSE or attempt == TRIES - 1:
                        raise refusal.error from None
                except (TokenTrouble, IntakeTrouble):
                    raise
                except TransientError as error:
                    raise self.lose(str(error), error.retry_after) from None
                else:
                    self._throttle.served()
                    return done
            if not refusal.throttled:
                await self._throttle.clock.sleep(wait)
        raise AssertionError("the last attempt returns or raises")
