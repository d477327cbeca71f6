"""One mail transaction on an open line (RFC 5321 section 3.3), and the decision that each refusal asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress

import structlog
from aiosmtplib import SMTPResponse

from mailpoller.core.errors import CredentialsRefused, MailpollerError, MessageRejected, TransientError
from mailpoller.core.ports import Mail
from mailpoller.transport.smtp.line import Line
from mailpoller.transport.smtp.terms import NotCarried, RelayCut, RelayUnavailable, words_of

log = structlog.get_logger(__name__)

_PIECE = 1 << 16
_ANSWER_PATIENCE = 10
"""RFC 5321 section 4.5.3.2.6 gives the answer to a mail more time than any other: who gives up there sends it twice."""
_SLOWEST_LINE = 8192
"""Octets a second; a relay that takes a mail more slowly is not waited for."""


async def transact(line: Line, mail: Mail) -> str:
    """Send the mail; see :meth:`mailpoller.transport.smtp.Relay.send`. Afterwards the line is ready for the next, or broken."""
    if not mail.recipients:
        raise MessageRejected("the mail has no recipient")
    options = _options(line, mail)
    encoding = "utf-8" if b"SMTPUTF8" in options else "ascii"
    line.between_mails = False
    answer = await line.ask("MAIL", b"MAIL", b"FROM:" + _path(mail.sender, encoding), *options)
    if answer.code != 250:
        await _reset(line)
        raise _refused(line, "sender", answer)
    refusals: list[SMTPResponse] = []
    for recipient in mail.recipients:
        answer = await line.ask("RCPT", b"RCPT", b"TO:" + _path(recipient, encoding))
        if answer.code not in (250, 251, 252):
            refusals.append(answer)
    if len(refusals) == len(mail.recipients):
        await _reset(line)
        raise _refused(line, "recipients", next((one for one in refusals if one.code < 500), refusals[0]))
    answer = await line.ask("DATA", b"DATA")
    if answer.code != 354:
        await _reset(line)
        raise _refused(line, "mail", answer)
    answer = await _transfer(line, mail.octets)
    line.between_mails = answer.code != 421
    if answer.code != 250:
        raise _refused(line, "mail", answer)
    words = words_of(answer)
    if refusals:
        others = f"{len(refusals)} of {len(mail.recipients)} recipients refused: {words_of(refusals[0])}"
        log.warning(
            "recipient.refused",
            relay=line.settings.place,
            refused=len(refusals),
            recipients=len(mail.recipients),
            answer=words_of(refusals[0]),
        )
        return f"{words} ({others})"
    return words


def _options(line: Line, mail: Mail) -> list[bytes]:
    """The parameters of MAIL (RFC 1870, 6152, 6531); raises before a word is said if the relay cannot carry the mail."""
    options, offers = [], line.client.supports_extension
    if offers("size"):
        said = line.client.esmtp_extensions["size"].strip()
        limit = int(said) if said.isdecimal() else 0
        if limit and len(mail.octets) > limit:
            words = f"{len(mail.octets)} octets are more than the {limit} that {line.settings.place} takes"
            raise NotCarried(words, lacks="SIZE", limit=limit)
        options.append(b"SIZE=%d" % len(mail.octets))
    if not mail.octets.isascii():
        if not offers("8bitmime"):
            raise NotCarried(f"{line.settings.place} takes no 8-bit mail", lacks="8BITMIME")
        options.append(b"BODY=8BITMIME")
    if not all(address.isascii() for address in (mail.sender, *mail.recipients)):
        if not offers("smtputf8"):
            raise MessageRejected(f"{line.settings.place} takes no addresses outside ASCII (SMTPUTF8)")
        options.append(b"SMTPUTF8")
    return options


async def _transfer(line: Line, octets: bytes) -> SMTPResponse:
    """The octets in pieces, each with its own deadline; the answer is read meanwhile, because a relay may refuse half-way."""
    protocol = line.client.protocol
    if protocol is None:
        raise RelayCut(f"{line.settings.place}: connection lost")
    timeout = line.settings.timeout.total_seconds()
    limit = timeout * _ANSWER_PATIENCE + len(octets) / _SLOWEST_LINE
    complete = False

    async def upload() -> None:
        nonlocal complete
        for piece in _stuffed(octets):
            async with asyncio.timeout(timeout):
                # The coroutine that StreamWriter.drain() awaits: the only flow control there is.
                await protocol._drain_helper()
            protocol.write(piece)
        complete = True

    try:
        with line.faults("the mail"):
            async with asyncio.timeout(limit), asyncio.TaskGroup() as group:
                uploading = group.create_task(upload(), name=f"upload {line.settings.place}")
                answer = await protocol.read_response(timeout=None)
                uploading.cancel()
    except RelayCut as error:
        if complete:
            raise RelayUnavailable(f"{error}; it may have taken the mail") from None
        raise
    if not complete:
        line.client.close()
        if answer.code < 400:
            raise RelayUnavailable(f"{line.settings.place} answered before the mail was complete: {words_of(answer)}")
    return answer


async def _reset(line: Line) -> None:
    """RSET: the transaction is over and the line may be used again. If it breaks by that, the refusal counts all the same."""
    with suppress(RelayUnavailable):
        answer = await line.ask("RSET", b"RSET")
        line.between_mails = answer.code == 250


def _refused(line: Line, what: str, answer: SMTPResponse) -> MailpollerError:
    """The decision that a refusal asks for (RFC 5321 section 4.2.1, RFC 3463, RFC 4954 section 6)."""
    said = f"{line.settings.place} refused the {what}: {words_of(answer)}"
    status = re.match(r"\d\.\d{1,3}\.\d{1,3}", answer.message)
    if answer.code in (530, 534, 535, 538):
        return CredentialsRefused(said)
    if answer.code < 500:
        return TransientError(said)
    too_large = status[0] in ("5.3.4", "5.2.3") if status else answer.code == 552
    if too_large and what != "recipients":
        return NotCarried(said, lacks="SIZE")
    return MessageRejected(said)


def _path(address: str, encoding: str) -> bytes:
    if re.search(r"[\s<>\x00-\x1f\x7f]", address):
        raise MessageRejected("an address holds characters that SMTP has no place for")
    return b"<" + address.encode(encoding) + b">"


def _stuffed(octets: bytes) -> Iterator[bytes]:
    """The octets in pieces, dots doubled at the start of lines, and the end of the mail (RFC 5321 section 4.5.2).

    A lone LF counts as a line end here: a relay that is lenient about it must not find an end of mail inside the mail.
    """
    before = b"\n"
    for start in range(0, len(octets), _PIECE):
        piece = octets[start : start + _PIECE]
        dot = b"." if before == b"\n" and piece.startswith(b".") else b""
        yield dot + piece.replace(b"\n.", b"\n..")
        before = piece[-1:]
    yield b".\r\n" if octets.endswith(b"\r\n") else b"\r\n.\r\n"
