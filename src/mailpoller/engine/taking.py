"""The first stage of a batch: its messages are claimed, and how far the listing got by it is recorded."""

from __future__ import annotations

from mailpoller.engine.claimant import Claimant
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.hangup_suspects import HangupSuspects
from mailpoller.engine.in_flight import InFlight, Pass
from mailpoller.engine.records import Records


class Taking:
    """Claims one mailbox's batches, and leaves out of them what is not to be worked on now."""

    def __init__(
        self, claims: Claimant, dispatcher: Dispatcher, hangup_suspects: HangupSuspects, records: Records
    ) -> None:
        self._claims = claims
        self._dispatcher = dispatcher
        self._hangup_suspects = hangup_suspects
        self._records = records

    async def claim(self, now: Pass, in_flight: InFlight) -> None:
        """Claim a batch, and record how far the listing got by it."""
        in_flight.claims, in_flight.owed = await self._claims.claim(in_flight.batch.refs, now)
        if now.known:
            await self._claims.recognise(now)
        if suspects := [claim for claim in in_flight.claims if claim.suspect]:
            # Listed again before their time has come.
            await self._claims.put_down(suspects)
            in_flight.claims = [claim for claim in in_flight.claims if not claim.suspect]
        down = self._dispatcher.down()
        if in_vain := [claim for claim in in_flight.claims if claim.waits_for in down]:
            # Listed again, where the mailbox has no position: what is due leaves them out.
            await self._claims.put_down(in_vain)
            now.result.put_off(len(in_vain), None)
            in_flight.claims = [claim for claim in in_flight.claims if claim.waits_for not in down]
        if in_flight.batch.alone:
            claimed = {claim.ref.uid for claim in in_flight.claims}
            self._hangup_suspects.untried([ref for ref in in_flight.batch.refs if ref.uid not in claimed])
        elif doubted := [claim for claim in in_flight.claims if claim.doubts or claim.blame]:
            # Asked for alone, at the end of the pass.
            await self._claims.put_down(doubted)
            self._hangup_suspects.recall([claim.ref for claim in doubted])
            in_flight.claims = [claim for claim in in_flight.claims if not (claim.doubts or claim.blame)]
        if in_flight.batch.position is not None and not now.questions:
            await self._records.folders.advance(now.folder, in_flight.batch.position)
        if now.last is not None:
            now.last += in_flight.owed
            in_flight.owed = []
