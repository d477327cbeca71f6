"""What is forgotten, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from mailpoller.core.delivery import (
    LEAVE,
)
from mailpoller.core.message import Position
from mailpoller.core.ports import (
    Traits,
)
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    INBOX,
    RENUMBERED,
    LedgerGround,
    SuiteClock,
    claims,
    outcome,
    refs,
)


class PruningPromises(LedgerGround):
    """What is forgotten, and when."""

    async def test_only_old_settled_mail_that_left_the_mailbox_is_forgotten(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        old_gone, old_there, _open, deferred = claims(await ledger.claim(refs(INBOX, 1, 2, 3, 4)))
        await ledger.settle([outcome(old_gone, disposition=LEAVE), outcome(old_there, disposition=LEAVE)])
        await ledger.defer([deferred], until=clock.now(), reason="queue-down")
        clock.move(timedelta(days=91))
        (young,) = claims(await ledger.claim(refs(INBOX, 5)))
        await ledger.settle([outcome(young, disposition=LEAVE)])
        before = clock.now() - timedelta(days=90)
        assert await ledger.prune(INBOX, {"2"}, before=before) == 0, "one look is none"
        clock.move(timedelta(hours=23))
        assert await ledger.prune(INBOX, {"2"}, before=before) == 0
        clock.move(timedelta(hours=2))
        assert await ledger.prune(INBOX, {"2"}, before=before) == 1
        assert await ledger.prune(INBOX, {"2"}, before=before) == 0
        assert (await ledger.open_folder(INBOX, ACCOUNT)).pruned_at == clock.now()
        assert await ledger.counts("support") == {"claimed": 1, "deferred": 1, "settled": 2, "undisposed": 0}
        assert len(await ledger.trace(old_gone.mid)) == 0
        assert len(await ledger.trace(old_there.mid)) == 1
        await ledger.close()

    async def test_a_message_is_found_by_what_answers_it_in_its_mailboxes_alone(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two, three, four, five = claims(await ledger.claim(refs(INBOX, 1, 2, 3, 4, 5)))
        await ledger.settle(
            [
                replace(outcome(one, octets=b"1", message_id="<One@example.com>")),
                replace(outcome(two, octets=b"2", message_id="<two@example.com>"), conversation="case 4711"),
                replace(outcome(three, octets=b"3", message_id="<three@example.com>"), conversation=""),
                replace(outcome(four, octets=b"1", message_id="<four@example.com>"), repeat_of=one.mid),
            ]
        )
        await ledger.defer([five], until=clock.now(), reason="x", traits=[Traits(message_id="<five@example.com>")])
        asked = [f"<{name}@example.com>" for name in ("One", "two", "three", "four", "five", "six", "one")]
        known = {
            "<One@example.com>": one.mid,
            "<two@example.com>": "case 4711",
            "<three@example.com>": three.mid,
            "<four@example.com>": one.mid,
        }
        assert await ledger.conversations("support", asked, None) == known
        assert await ledger.conversations("support", asked, ["support", "sales"]) == known
        assert await ledger.conversations("support", asked, ["sales"]) == {}
        assert await ledger.conversations("support", [], None) == {}
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert await ledger.conversations("support", asked, ["support"]) == known
        await ledger.close()

    async def test_of_a_message_to_two_mailboxes_its_own_copy_is_found_first(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        copies: dict[str, str] = {}
        for name in ("support", "sales", "house"):
            folder = replace(INBOX, mailbox=name)
            await ledger.open_folder(folder, ACCOUNT)
            (one,) = claims(await ledger.claim(refs(folder, 1)))
            await ledger.settle([outcome(one, octets=b"1", message_id="<one@example.com>")])
            copies[name] = one.mid
            clock.move(timedelta(seconds=1))
        for name in copies:
            assert await ledger.conversations(name, ["<one@example.com>"], None) == {"<one@example.com>": copies[name]}
        assert await ledger.conversations("other", ["<one@example.com>"], None) == {
            "<one@example.com>": copies["house"]
        }
        await ledger.close()

    async def test_a_message_that_was_pruned_is_not_found_by_what_answers_it(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two = claims(await ledger.claim(refs(INBOX, 1, 2)))
        await ledger.settle([outcome(one, octets=b"1", message_id="<one@example.com>", disposition=LEAVE)])
        answer = outcome(two, octets=b"2", message_id="<two@example.com>", disposition=LEAVE)
        await ledger.settle([replace(answer, conversation=one.mid)])
        clock.move(timedelta(days=91))
        for _ in range(2):
            await ledger.prune(INBOX, {"2"}, before=clock.now() - timedelta(days=90))
            clock.move(timedelta(hours=25))
        asked = ["<one@example.com>", "<two@example.com>"]
        assert await ledger.conversations("support", asked, None) == {"<two@example.com>": one.mid}
        await ledger.close()

    async def test_the_conversation_that_a_queue_was_told_stays_the_same(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (one,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert one.conversation is None
        for said in (None, "case 1", "case 2", None):
            await ledger.defer(
                [one],
                until=clock.now(),
                reason="down",
                queue="q",
                receipts={"r": "1"},
                traits=[Traits(conversation=said)],
            )
            (one,) = claims(await ledger.claim(refs(INBOX, 1)))
            assert one.conversation == (None if said is None and not one.conversation else "case 1")
        await ledger.settle([replace(outcome(one, octets=b"1"), conversation="case 3")])
        await ledger.reopen(one.mid)
        (one,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert one.conversation == "case 1"
        await ledger.close()

    async def test_a_former_epoch_is_forgotten_once_the_present_one_is_complete(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        settled, deferred = claims(await ledger.claim(refs(INBOX, 1, 2)))
        await ledger.settle([outcome(settled, octets=b"a", disposition=LEAVE)])
        await ledger.defer([deferred], until=clock.now(), reason="queue-down")
        await ledger.advance(INBOX, Position("3"))
        await ledger.complete(INBOX)
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        clock.move(timedelta(days=91))
        assert (await ledger.counts("support"))["deferred"] == 0, "nobody works on a former epoch"
        assert await ledger.prune(RENUMBERED, (), before=clock.now()) == 0, "its fingerprints are still needed"
        await ledger.complete(RENUMBERED)
        assert await ledger.prune(RENUMBERED, (), before=clock.now()) == 0
        clock.move(timedelta(days=1))
        assert await ledger.prune(RENUMBERED, (), before=clock.now()) == 1
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert (state.position, state.complete) == (None, False), "mail was left there that nobody settled"
        await ledger.close()
