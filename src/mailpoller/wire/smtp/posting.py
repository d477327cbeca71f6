"""What became of a mail for each of its recipients, from a relay's answer or refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from email.parser import BytesParser
from email.policy import compat32

from mailpoller.core.errors import MessageRejected, TransientError
from mailpoller.core.ports import Mail, Said
from mailpoller.wire.smtp.terms import (
    EnvelopeRefused,
    NotCarried,
    NotNow,
    RelayUnavailable,
    RelayUncertain,
    words_of,
)

_SEVEN_BIT = compat32.clone(cte_type="7bit", linesep="\r\n")


async def posted(send: Callable[[Mail], Awaitable[str]], mail: Mail) -> Mapping[str, Said]:
    """Send a mail whose sender is ours and whose recipients are its own; see
    :class:`~mailpoller.core.ports.Posting`.

    A mail that may have been taken when the relay was lost is put off: it comes again with the same Message-ID. One
    with octets above 127 is sent to a relay that takes none (8BITMIME) in another transfer encoding.
    """
    try:
        answer = await send(mail)
    except NotCarried as error:
        if error.lacks == "8BITMIME" and (other := await asyncio.to_thread(_seven_bit, mail)) is not None:
            return await posted(send, other)
        return _all(mail, Said("refused", str(error)))
    except EnvelopeRefused as error:
        if error.part == "sender":
            raise TransientError(str(error), advice=error.advice) from None
        if error.part == "recipients":
            return _each(mail, error, Said("refused", str(error)))
        return _all(mail, Said("deferred", str(error)))  # before it saw an octet, and whatever it means by that
    except MessageRejected as error:
        return _all(mail, Said("refused", str(error)))
    except NotNow as error:
        if error.part == "sender":
            raise
        return _each(mail, error, Said("deferred", str(error)))
    except RelayUncertain as error:
        return _all(mail, Said("deferred", str(error)))
    except RelayUnavailable:
        raise
    except TransientError as error:
        return _all(mail, Said("deferred", str(error)))
    later, never = getattr(answer, "later", ()), getattr(answer, "never", {})
    return {
        one: Said("refused", never[one])
        if one in never
        else Said("deferred" if one in later else "accepted", str(answer))
        for one in mail.recipients
    }


def _all(mail: Mail, said: Said) -> Mapping[str, Said]:
    return dict.fromkeys(mail.recipients, said)


def _each(mail: Mail, error: EnvelopeRefused | NotNow, otherwise: Said) -> Mapping[str, Said]:
    """By the relay's answer to each, where there was one."""
    return {
        one: otherwise
        if (answer := error.said.get(one)) is None
        else Said("refused" if answer.code >= 500 else "deferred", words_of(answer))
        for one in mail.recipients
    }


def _seven_bit(mail: Mail) -> Mail | None:
    """The mail with every part in a transfer encoding of ASCII; None if that cannot be."""
    try:
        octets = BytesParser(policy=_SEVEN_BIT).parsebytes(mail.octets).as_bytes(policy=_SEVEN_BIT)
    except Exception:  # the library names no errors of its own, and a mail may be anything
        return None
    return replace(mail, octets=octets) if octets.isascii() else None
