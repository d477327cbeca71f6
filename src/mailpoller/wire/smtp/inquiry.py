"""Asking a relay whether it would take our mail: MAIL and RCPT, then RSET. No mail is begun."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from mailpoller.core.errors import CredentialsRefused, MailpollerError
from mailpoller.core.ports import Mail, Stage
from mailpoller.wire.smtp.line import Line
from mailpoller.wire.smtp.terms import EnvelopeRefused, RelayUnavailable, words_of
from mailpoller.wire.smtp.transaction import enter, refused, reset

_LATER = "The relay puts us off. A greylist opens by itself; if it stays, the relay's log knows why."
_UNHEARD = "The relay ends the conversation when it hears this; its log knows why."
_LOGIN = "The relay wants a login before it takes mail: username and password."


async def asked(line: Line, sender: str, recipients: Sequence[str]) -> AsyncIterator[Stage]:
    """A stage ``sender``, and a stage ``recipient`` for each in their order, on an open line. Ends early only if the
    relay refuses the sender or does not answer. A relay that takes only so many at once is asked in several
    transactions."""
    named = sender or "the null sender"
    began = time.monotonic()
    try:
        mail = Mail(sender, tuple(recipients), b"")
        options = [] if all(one.isascii() for one in (sender, *recipients)) else [b"SMTPUTF8"]
        if options and not line.client.supports_extension("smtputf8"):
            words = f"{line.settings.place} takes no addresses outside ASCII (SMTPUTF8)"
            advice = "Write the addresses in ASCII, or use a relay that offers SMTPUTF8."
            raise EnvelopeRefused(words, part="sender", advice=advice)
        left, first = mail, True
        while first or left.recipients:
            line.between_mails = False
            entry = await enter(line, left, options)
            await reset(line)
            if entry.refusal is not None and entry.at == "sender":
                raise refused(line, left, "sender", entry.refusal)
            if first:
                yield Stage("sender", True, _since(began), named)
            first = False
            apart = set(entry.apart)
            for one in left.recipients:
                if one in apart:
                    break
                if (answer := entry.refused.get(one)) is None:
                    yield Stage("recipient", True, _since(began), one)
                    continue
                error = refused(line, left, "recipients", answer)
                yield Stage("recipient", False, _since(began), f"{one}: {words_of(answer)}", _advice(error))
            left = Mail(sender, entry.apart, b"")
    except MailpollerError as error:
        yield Stage("sender", False, _since(began), str(error), _advice(error))


def _advice(error: MailpollerError) -> str:
    if isinstance(error, EnvelopeRefused):
        return error.advice
    if isinstance(error, CredentialsRefused):
        return _LOGIN
    return _UNHEARD if isinstance(error, RelayUnavailable) else _LATER


def _since(began: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - began)
