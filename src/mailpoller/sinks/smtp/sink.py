"""A queue that is a mail address: every message goes there as an attachment. Above all, the quarantine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from time import monotonic
from typing import Literal
from urllib.parse import quote

import structlog

from mailpoller.core.component import NO_OUTGOING, Finding, Runtime, SinkConfig
from mailpoller.core.delivery import Delivery, Payload, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import (
    ConfigError,
    CredentialsMissing,
    CredentialsRefused,
    MailpollerError,
    MessageRejected,
    TransientError,
)
from mailpoller.core.literals import MailAddresses, OutgoingName
from mailpoller.core.ports import Clock, Inquiring, Mail, OctetsPlace, Outgoing, Sink, Stage
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.tasks import TaskGroup
from mailpoller.mail.compose import Form, printable, quarantine_mail
from mailpoller.sinks.smtp.note import OTHERWISE, REASONS, facts_of, form_words, trace_of
from mailpoller.sinks.smtp.partly import Partly, Share
from mailpoller.storage.recent import Recent
from mailpoller.wire.smtp import EnvelopeRefused, NotCarried, NotNow, RelayUnavailable, RelayUncertain

log = structlog.get_logger(__name__)
_THREAD_ABOVE = 1 << 17
"""Octets of a message above which the mail is composed in a thread."""
_LANES = 2
"""Mails in hand at once, of all batches: each holds a whole message in memory."""
_BUDGET_S = 90.0
"""No further mail of a batch is begun after so many seconds: what is known then is told before the engine gives up on
the batch."""


class SmtpQueueConfig(SinkConfig):
    """Send every message to a mail address, attached to a note. Made for the quarantine."""

    type: Literal["smtp"]
    outgoing: OutgoingName | None = None
    """The outgoing identity that sends it. Without it: in a mailbox's own quarantine the mailbox's; elsewhere the only
    one there is, or the one that says ``default: true``."""
    to: MailAddresses
    """The address, or a list of them. A mail counts as held when the relay has taken it for at least one and put
    nobody off."""
    payload: Payload = "summary"
    """The original is always attached; the event only serves the note."""

    def findings(self) -> Iterable[Finding]:
        yield from super().findings()
        if self.outgoing is None:
            yield Finding("outgoing", NO_OUTGOING, "error")

    @property
    def carries_octets(self) -> bool:
        return True

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Raises :class:`ConfigError` if there is no such outgoing."""
        return SmtpQueue(*self.parts(name, runtime))

    def parts(self, name: str, runtime: Runtime) -> tuple[str, Outgoing, tuple[str, ...], Clock, Partly]:
        """What the sink is made of. Raises :class:`ConfigError` if there is no such outgoing."""
        outgoing = runtime.outgoings.get(self.outgoing or "")
        if outgoing is None:
            raise ConfigError(f"queue {name}: there is no outgoing named {self.outgoing or 'for it'}")
        file = runtime.state_directory / "recipients" / f"{quote(name, safe='')[:120]}.json"
        return name, outgoing, tuple(self.to), runtime.clock, Partly(file)


class SmtpQueue:
    """Delivers by mail. A repeat that this process knows is not sent again; after a restart it bears the same
    Message-ID.

    Sender and recipients are the configuration's and the same for every mail: a relay that refuses them is a queue
    that is down, and so is one that puts us off before it has seen a mail. Whom it put off alone, of several
    recipients, gets the mail alone.
    """

    octets_place: OctetsPlace = "beside"
    _lesser_forms = True
    """The message may be carried in another form than its own."""

    def __init__(
        self, name: str, outgoing: Outgoing, recipients: tuple[str, ...], clock: Clock, partly: Partly
    ) -> None:
        self._name = name
        self._outgoing = outgoing
        self.sifts: Literal[True] = True
        self._recipients = recipients
        self._clock = clock
        self._recent = Recent()
        self._partly = partly
        self._uncertain = Recent()
        """Mails after which the relay was lost: one that does it again may be the reason."""
        self._taken = 0
        self._taken_before: dict[str, int] = {}
        """Delivery -> mails that the relay had taken when it last put this one off."""
        self._hands = asyncio.Semaphore(_LANES)
        self._unserved: dict[str, str] = {}
        """Recipients that the relay refused for good, while it took the mail for others -> its words then."""
        self._served: set[str] = set()

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """Mail each delivery. A relay that is down ends the batch: what it had taken is told, the rest may be repeated.

        Raises :class:`TransientError` if it took nothing, or refuses us.
        """
        answers: dict[str, Receipt | Refusal] = {
            one.delivery_id: SealedReceipt(one.delivery_id, self._outgoing.host, repeated=True)
            for one in batch
            if one.delivery_id in self._recent
        }
        waiting = iter({one.delivery_id: one for one in batch if one.delivery_id not in answers}.values())
        ends = monotonic() + _BUDGET_S
        trouble: MailpollerError | None = None

        async def lane() -> None:
            nonlocal trouble
            for delivery in waiting:
                if trouble:
                    return
                if monotonic() > ends:
                    trouble = TransientError("the relay is too slow for so many at once")
                    return
                try:
                    async with self._hands:
                        answers[delivery.delivery_id] = answer = await self._deliver(delivery)
                except (TransientError, CredentialsRefused, ConfigError) as error:
                    lack = isinstance(error, (ConfigError, CredentialsMissing))
                    trouble = error if lack or isinstance(error, TransientError) else TransientError(str(error))
                    return
                if isinstance(answer, Receipt):
                    self._recent.add([delivery.delivery_id])

        if len(batch) == 1:
            await lane()
        else:
            async with TaskGroup() as group:
                for number in range(_LANES):
                    group.create_task(lane(), name=f"mail {self._name} {number}")
        if trouble and not answers:
            raise trouble
        put_off = [
            one
            for one in answers.values()
            if isinstance(one, Refusal) and one.blame == "queue" and one.delivery_id in self._taken_before
        ]
        if len(put_off) == len(answers) > 1:
            # Nobody can tell whether it is the mails; but they have nothing in common, apart from the relay.
            raise TransientError(put_off[0].reason)
        told: set[str] = set()
        in_order = []
        for delivery in batch:
            answer = answers.get(delivery.delivery_id) or Refusal(delivery.delivery_id, str(trouble), blame="queue")
            if isinstance(answer, Receipt) and delivery.delivery_id in told:
                answer = SealedReceipt(answer.delivery_id, answer.reference, repeated=True)
            told.add(delivery.delivery_id)
            in_order.append(answer)
        return in_order

    async def _deliver(self, delivery: Delivery) -> Receipt | Refusal:
        """One mail, in the best form that the relay carries, to those who do not have it. Raises what is the queue's
        trouble."""
        share = await self._partly.of(delivery.delivery_id)
        to = tuple(one for one in self._recipients if one not in share.taken and one not in share.refused)
        if not to:
            await self._partly.drop(delivery.delivery_id)
            return SealedReceipt(delivery.delivery_id, self._outgoing.host, repeated=True)
        form: Form = "whole"
        too_large = ""
        while True:
            mail = await self._compose(delivery, to, form)
            try:
                answer = await self._outgoing.send(mail)
            except NotCarried as error:
                if self._lesser_forms and error.lacks == "8BITMIME" and form == "whole":
                    form = "encoded"
                    continue
                if self._lesser_forms and error.lacks == "SIZE" and form != "header" and delivery.attributes.reason:
                    form, too_large = "header", str(error)
                    continue
                if error.lacks == "SMTPUTF8" and not "".join((mail.sender, self._outgoing.sender, *to)).isascii():
                    raise TransientError(str(error)) from None
                return Refusal(delivery.delivery_id, str(error), permanent=True, unasked=True)
            except EnvelopeRefused as error:
                if share.taken and error.part == "recipients":
                    self._note((), dict.fromkeys(to, str(error)))
                    return await self._done(delivery, str(error), replace(share, refused=share.refused + to))
                raise TransientError(str(error), advice=error.advice) from None
            except MessageRejected as error:
                if share.taken:
                    self._note((), dict.fromkeys(to, str(error)))
                    return await self._done(delivery, str(error), replace(share, refused=share.refused + to))
                return Refusal(delivery.delivery_id, too_large or str(error), permanent=True)
            except NotNow as error:
                if share.taken:
                    return Refusal(delivery.delivery_id, str(error), blame="queue")
                raise
            except RelayUncertain as error:
                if delivery.delivery_id in self._uncertain:
                    return self._put_off(delivery, error)
                self._uncertain.add([delivery.delivery_id])
                raise
            except RelayUnavailable:
                raise
            except TransientError as error:
                return self._put_off(delivery, error)
            self._taken += 1
            if too_large:
                # A note is not the message, but the quarantine holds that: whoever is told of it has been told.
                answer = f"{answer}; a note with the header alone: {too_large}"
            log.debug("message.mailed", queue=self._name, mid=delivery.mid, form=form)
            self._taken_before.pop(delivery.delivery_id, None)
            later: tuple[str, ...] = getattr(answer, "later", ())
            never: Mapping[str, str] = getattr(answer, "never", {})
            taken = tuple(one for one in to if one not in later and one not in never)
            self._note(taken, never)
            has = Share(share.taken + taken, share.refused + tuple(never))
            if later:
                await self._partly.keep(delivery.delivery_id, has)
                return Refusal(delivery.delivery_id, f"{self._outgoing.host}: {answer}", blame="queue")
            return await self._done(delivery, answer, has)

    def _note(self, taken: Collection[str], never: Mapping[str, str]) -> None:
        """Who has a mail, and who never will. The relay's first words to each count: later ones may differ in a
        number alone."""
        self._served |= set(taken)
        for one in taken:
            self._unserved.pop(one, None)
        for one, words in never.items():
            self._unserved.setdefault(one, words)

    def unserved(self) -> str | None:
        """See :class:`~mailpoller.core.ports.Unserving`. Of the addresses only the domains are told."""
        if not self._unserved:
            return "" if self._served.issuperset(self._recipients) else None
        domains = sorted({one.rpartition("@")[2] for one in self._unserved})
        return (
            f"{self._outgoing.host} refuses {len(self._unserved)} of {len(self._recipients)} recipients for good (at "
            f"{', '.join(domains)}), and the others have the mail: {next(iter(self._unserved.values()))}"
        )

    async def _done(self, delivery: Delivery, words: str, share: Share) -> Receipt:
        """All have it that ever will, somebody among them."""
        await self._partly.drop(delivery.delivery_id)
        refused, of = len(share.refused), len(self._recipients)
        if refused and " recipients refused" not in words:
            words += f" ({refused} of {of} recipients refused)"
        return SealedReceipt(delivery.delivery_id, f"{self._outgoing.host}: {words}")

    def _put_off(self, delivery: Delivery, error: TransientError) -> Refusal:
        """The relay had the mail, and wants it later. That is the mail's trouble if others were taken since it was
        first put off."""
        before = self._taken_before.pop(delivery.delivery_id, None)
        self._taken_before[delivery.delivery_id] = self._taken if before is None else before
        if len(self._taken_before) > self._recent.limit:
            del self._taken_before[next(iter(self._taken_before))]
        alone = before is not None and self._taken > before
        return Refusal(delivery.delivery_id, str(error), blame="message" if alone else "queue")

    async def _compose(self, delivery: Delivery, to: tuple[str, ...], form: Form) -> Mail:
        if delivery.raw.octets.size > _THREAD_ABOVE:
            return await asyncio.to_thread(self._mail, delivery, to, form)
        return self._mail(delivery, to, form)

    def _mail(self, delivery: Delivery, to: tuple[str, ...], form: Form) -> Mail:
        ref, facts, said = delivery.raw.claim.ref, facts_of(delivery.event.data()), delivery.attributes
        words, advice = REASONS.get(said.reason, OTHERWISE)
        if said.reason:
            subject = f"[mailpoller] quarantined in {ref.folder.mailbox}: {said.reason}"
            explanation = [
                f"A message in the mailbox {ref.folder.mailbox} was put into quarantine ({said.reason}).",
                words if not said.detail else f"{words}\n{printable(said.detail, 500)}",
                f"What to do: {advice.replace('MID', delivery.mid)}",
            ]
        else:
            subject = f"[mailpoller] {self._name}: message in {ref.folder.mailbox}"
            explanation = [f"A message in the mailbox {ref.folder.mailbox} for the queue {self._name} is attached."]
        explanation.append(form_words(delivery, form))
        return quarantine_mail(
            sender=self._outgoing.sender,
            recipients=to,
            raw=delivery.raw,
            delivery_id=delivery.delivery_id,
            at=self._clock.now(),
            subject=subject,
            explanation=explanation,
            trace=trace_of(delivery, facts),
            form=form,
        )

    async def check(self) -> None:
        """Go as far as RCPT, where the outgoing can; raises :class:`TransientError` with the first stage that fails.

        Of several recipients one is enough: the queue serves those whom it can.
        """
        failed = await self._failed()
        if failed and (failed[0].name != "recipient" or len(failed) == len(self._recipients)):
            raise TransientError(f"{failed[0].name}: {failed[0].detail}", advice=failed[0].advice)

    async def probe(self) -> AsyncIterator[Stage]:
        """One stage; in it every recipient must be taken."""
        began = monotonic()
        failed = await self._failed()
        detail = "; ".join(f"{one.name}: {one.detail}" for one in failed)
        advice = failed[0].advice if failed else ""
        yield Stage("check", not failed, timedelta(seconds=monotonic() - began), detail or "takes deliveries", advice)

    async def _failed(self) -> list[Stage]:
        outgoing = self._outgoing
        stages = outgoing.inquire(self._recipients) if isinstance(outgoing, Inquiring) else outgoing.probe()
        return [stage async for stage in stages if not stage.ok]

    @property
    def durability(self) -> Durability:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return Durability.promised("an answer of 250")

    async def close(self) -> None:
        """Nothing: the outgoing is closed by whoever made it."""
