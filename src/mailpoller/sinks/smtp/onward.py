"""Where rules send mail on to: an address that gets the message itself, or a note with the message attached.

No configuration names these queues; a rule's ``redirect`` and ``forward`` make them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.ports import Mail, Sink
from mailpoller.mail.compose import Form, ascii_address, printable, quarantine_mail
from mailpoller.mail.resend import resent
from mailpoller.sinks.smtp.note import facts_of, form_words, trace_of
from mailpoller.sinks.smtp.sink import SmtpQueue, SmtpQueueConfig

_TOLD = ("mid", "mailbox", "received", "from", "subject")
"""What a note says of the message."""


class RedirectConfig(SmtpQueueConfig):
    """Send every message on as it is."""

    type: Literal["redirect"]  # type: ignore[assignment]

    @property
    def keeps_header(self) -> bool:
        return True

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Raises :class:`~mailpoller.core.errors.ConfigError` if there is no such outgoing."""
        return RedirectQueue(*self.parts(name, runtime))


class ForwardConfig(SmtpQueueConfig):
    """Send a note with every message attached."""

    type: Literal["forward"]  # type: ignore[assignment]

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Raises :class:`~mailpoller.core.errors.ConfigError` if there is no such outgoing."""
        return ForwardQueue(*self.parts(name, runtime))


class RedirectQueue(SmtpQueue):
    """Sends messages themselves, below fields that say by whom. What is not whole is refused for good: nobody would
    see that something is missing. So is what the relay cannot carry as it is.

    The envelope sender is the outgoing's own, so that a bounce comes back to us, and not to whoever wrote the mail.
    """

    _lesser_forms = False

    async def _deliver(self, delivery: Delivery) -> Receipt | Refusal:
        if delivery.raw.truncated:
            words = f"only the first {delivery.raw.octets.size} octets of the message were downloaded"
            return Refusal(delivery.delivery_id, words, permanent=True, unasked=True)
        return await super()._deliver(delivery)

    def _mail(self, delivery: Delivery, to: tuple[str, ...], form: Form) -> Mail:
        sender = self._outgoing.sender
        octets = resent(
            delivery.raw.octets.view(),
            sender=sender,
            recipients=self._recipients,
            message_id=f"{printable(delivery.delivery_id, 64)}@{ascii_address(sender).rpartition('@')[2]}",
            at=self._clock.now(),
        )
        return Mail(sender, tuple(map(ascii_address, to)), octets)


class ForwardQueue(SmtpQueue):
    """Sends notes that say from where the message is, with the message attached, bit for bit."""

    def _mail(self, delivery: Delivery, to: tuple[str, ...], form: Form) -> Mail:
        sender, mailbox = self._outgoing.sender, delivery.raw.claim.ref.folder.mailbox
        facts = facts_of(delivery.event.data())
        mail = quarantine_mail(
            sender=sender,
            recipients=to,
            raw=delivery.raw,
            delivery_id=delivery.delivery_id,
            at=self._clock.now(),
            subject=f"Fwd: {printable(str(facts.get('subject') or ''), 200)}".rstrip(),
            explanation=[
                f"A rule of the mailbox {mailbox} forwards this message to you.",
                f"{form_words(delivery, form)} Whoever answers it opens it first: answers to this note go to {sender}.",
            ],
            trace=[one for one in trace_of(delivery, facts) if one[0] in _TOLD],
            form=form,
        )
        return replace(mail, sender=sender)
