"""A process for the kill test: works through mail on a ledger and says on stdout what was acknowledged, until it is
killed.

Lines: ``claimed UID``, ``settled UID``, ``deferred UID``, ``risked UID``, ``cleared UID``; each is written after the
ledger returned.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from datetime import timedelta
from pathlib import Path

from mailpoller.core.delivery import LEAVE
from mailpoller.core.message import Claim
from mailpoller.ledgers.sqlite import SqliteLedgerConfig
from mailpoller.testing.ledger_suite import ACCOUNT, INBOX, SuiteClock, claims, outcome, refs


def say(word: str, made: list[Claim]) -> None:
    os.write(1, "".join(f"{word} {claim.ref.uid}\n" for claim in made).encode())


async def main(path: Path, first: int) -> None:
    clock = SuiteClock()
    ledger = await SqliteLedgerConfig(type="sqlite", path=path).open(clock)
    await ledger.open_folder(INBOX, ACCOUNT)
    dice = random.Random(first)
    os.write(1, b"ready\n")
    for start in range(first, first + 10_000_000, 100):
        batch = claims(await ledger.claim(refs(INBOX, *range(start, start + dice.randint(1, 100)))))
        say("claimed", batch)
        third = len(batch) // 3
        await ledger.settle([outcome(claim, disposition=LEAVE) for claim in batch[:third]])
        say("settled", batch[:third])
        await ledger.defer(
            batch[third : 2 * third], until=clock.now() + timedelta(days=1), reason="x", receipts={"q": "1"}
        )
        say("deferred", batch[third : 2 * third])
        for claim in batch[2 * third :][:2]:
            await ledger.at_risk(claim)
            say("risked", [claim])
            if dice.random() < 0.5:
                await ledger.cleared(claim)
                say("cleared", [claim])


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
