"""One mail transaction on an open line (RFC 5321 section 3.3), and the decision that each refusal asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog
from aiosmtplib import SMTPResponse

from mailpoller.core.errors import CredentialsRefused, MailpollerError, MessageRejected, TransientError
from mailpoller.core.ports import Answer, Mail
from mailpoller.core.tasks import TaskGroup
from mailpoller.wire.smtp import reports
from mailpoller.wire.smtp.answers import answers_to_each
from mailpoller.wire.smtp.line import Line
from mailpoller.wire.smtp.terms import (
    EnvelopeRefused,
    NotCarried,
    NotNow,
    RelayCut,
    RelayUnavailable,
    RelayUncertain,
    status_of,
    words_of,
)

log = structlog.get_logger(__name__)

_PIECE = 1 << 16
_ANSWER_PATIENCE = 10
"""RFC 5321 section 4.5.3.2.6 gives the answer to a mail more time than any other: who gives up there sends it twice."""
_SLOWEST_LINE = 8192
"""Octets a second; a relay that takes a mail more slowly is not waited for."""


async def transact(line: Line, mail: Mail) -> Answer:
    """Send the mail; see :meth:`mailpoller.wire.smtp.Relay.send`. Afterwards the line is ready for the next, or broken.

    Whom the relay wants to have in a transaction of their own (too many recipients, RFC 5321 section 4.5.3.1.10) gets
    one.
    """
    if not mail.recipients:
        raise MessageRejected("the mail has no recipient")
    answer, left = await _part(line, mail)
    while left and line.ready:
        try:
            more, left = await _part(line, replace(mail, recipients=left))
        except MailpollerError as error:
            # Others have the mail: whatever this is, it is no reason to send it to them again.
            log.warning(
                "recipient.refused",
                relay=line.settings.place,
                refused=len(left),
                recipients=len(mail.recipients),
                answer=str(error)[:300],
            )
            break
        answer = Answer(answer, later=answer.later + more.later, never={**answer.never, **more.never})
    return Answer(answer, later=answer.later + left, never=answer.never) if left else answer


async def _part(line: Line, mail: Mail) -> tuple[Answer, tuple[str, ...]]:
    """One transaction: the relay's answer, and the recipients that it wants to have in another one."""
    options = _options(line, mail)
    line.between_mails = False
    entry = await enter(line, mail, options)
    misread = entry.at == "sender" and entry.refusal is not None and entry.refusal.code in reports.MISREAD
    if misread and any(map(reports.asks, options)):
        # It offers reports (RFC 3461) and does not know their parameters: nobody's mail waits for that.
        await reset(line)
        if line.ready:
            line.reports = line.between_mails = False
            options = _options(line, mail)
            entry = await enter(line, mail, options)
    if entry.refusal is not None:
        await reset(line)
        error = await _attributed(line, mail, options, entry)
        if isinstance(error, EnvelopeRefused | NotNow):
            error.said = entry.refused
        raise error
    answer = await line.ask("DATA", b"DATA")
    if answer.code != 354:
        if answer.code < 400:
            raise RelayUnavailable(f"{line.settings.place} answered DATA with {words_of(answer)}")
        await reset(line)
        raise refused(line, mail, "mail", answer, unseen=True)
    if line.settings.lmtp:
        answer = await _each(line, mail, entry)
    else:
        answer = await _transfer(line, mail.octets)
    line.between_mails = answer.code != 421 and line.client.is_connected
    if answer.code == 421:
        raise RelayUnavailable(f"{line.settings.place} closes the connection: {words_of(answer)}")
    if not 200 <= answer.code < 300:
        raise refused(line, mail, "mail", answer)
    return _told(line, mail, entry, answer), entry.apart


async def _each(line: Line, mail: Mail, entry: Entry) -> SMTPResponse:
    """Send the octets, and note in ``entry`` for whom the server does not take them (RFC 2033 section 4.2). The answer
    to one whom it took them for; if there is nobody, the one that tells most.

    Whose answer did not come because the line was lost has perhaps been served, and is tried again; the others are
    not. Raises :class:`RelayUncertain` if no answer came.
    """
    after = set(entry.apart)
    asked = [one for one in mail.recipients if one not in entry.refused and one not in after]
    with answers_to_each(line, len(asked)) as collected:
        try:
            await _transfer(line, mail.octets, collected.all_of_them)
        except RelayUncertain as error:
            if not collected.answers:
                raise
            line.client.close()
            lost = SMTPResponse(451, f"4.4.2 no answer: {error}")
            collected.answers += [lost] * (len(asked) - len(collected.answers))
    said = dict(zip(asked, collected.answers, strict=True))
    entry.refused.update((one, _softened(answer)) for one, answer in said.items() if not 200 <= answer.code < 300)
    taken = [answer for one, answer in said.items() if one not in entry.refused]
    return taken[0] if taken else min(map(_softened, collected.answers), key=lambda answer: answer.code)


def _softened(answer: SMTPResponse) -> SMTPResponse:
    """A mailbox that is full, or closed for now, is no trouble of the message's, however final the words are."""
    status = status_of(answer)
    mailbox = status in _MAILBOX if status else answer.code == 552 and bool(_FULL.search(answer.message))
    if answer.code >= 500 and mailbox:
        return SMTPResponse(452, f"{answer.message} (said with {answer.code})")
    return answer


def _told(line: Line, mail: Mail, entry: Entry, answer: SMTPResponse) -> Answer:
    words = words_of(answer)
    if not entry.refused:
        return Answer(words)
    first = words_of(next(iter(entry.refused.values())))
    refused, of = len(entry.refused), len(mail.recipients)
    log.warning("recipient.refused", relay=line.settings.place, refused=refused, recipients=of, answer=first)
    return Answer(
        f"{words} ({refused} of {of} recipients refused: {first})",
        later=tuple(one for one, said in entry.refused.items() if said.code < 500),
        never={one: words_of(said) for one, said in entry.refused.items() if said.code >= 500},
    )


@dataclass(slots=True)
class Entry:
    """How far MAIL and RCPT led. ``refusal``: why nothing may follow, at the stage ``at``; None if a recipient was
    taken."""

    at: str = "sender"
    refusal: SMTPResponse | None = None
    refused: dict[str, SMTPResponse] = field(default_factory=dict)
    apart: tuple[str, ...] = ()


async def enter(line: Line, mail: Mail, options: Sequence[bytes] = ()) -> Entry:
    """MAIL and RCPT. Raises what :meth:`Line.ask` raises; a refusal is in what it returns."""
    encoding = "utf-8" if b"SMTPUTF8" in options else "ascii"
    entry = Entry()
    answer = await line.ask("MAIL", b"MAIL", b"FROM:" + _path(mail.sender, encoding), *options)
    if not _taken(line, "MAIL", answer):
        entry.refusal = answer
        return entry
    entry.at = "recipients"
    taken = 0
    for number, recipient in enumerate(mail.recipients):
        more = reports.of_recipient(recipient, options)
        answer = await line.ask("RCPT", b"RCPT", b"TO:" + _path(recipient, encoding), *more)
        if more and answer.code in reports.MISREAD:  # of this one alone, perhaps, and others are taken
            answer = await line.ask("RCPT", b"RCPT", b"TO:" + _path(recipient, encoding))
        if _taken(line, "RCPT", answer):
            taken += 1
        elif taken and _too_many(answer):
            entry.apart = mail.recipients[number:]
            break
        else:
            entry.refused[recipient] = answer
    if mail.recipients and not taken:
        refusals = list(entry.refused.values())
        entry.refusal = next((one for one in refusals if one.code < 500), refusals[0])
    return entry


def _taken(line: Line, verb: str, answer: SMTPResponse) -> bool:
    """By the first digit (RFC 5321 section 4.2.1). Raises if the answer is none to a command that asks for nothing
    more."""
    if not 200 <= answer.code < 300 and answer.code < 400:
        raise RelayUnavailable(f"{line.settings.place} answered {verb} with {words_of(answer)}")
    return answer.code < 300


def _too_many(answer: SMTPResponse) -> bool:
    """No more recipients in this transaction. A bare 452 may mean that; to ask once more costs nothing, for somebody
    was taken. So may 552, in an old relay (RFC 5321 section 4.5.3.1.10)."""
    status = status_of(answer)
    if status:
        return status == "5.3"
    return answer.code == 452 or (answer.code >= 400 and "too many recipients" in answer.message.lower())


async def _attributed(line: Line, mail: Mail, options: Sequence[bytes], entry: Entry) -> MailpollerError:
    """Whose refusal it is. One that does not say so is asked about: where the relay takes the same sender and
    recipients without a word about the mail (its size, its octets), and then refuses the mail's again, it refuses
    this mail and not us."""
    assert entry.refusal is not None
    error = refused(line, mail, entry.at, entry.refusal, options)
    said = [one for one in options if one != b"SMTPUTF8" and not reports.asks(one)]
    if not isinstance(error, EnvelopeRefused | NotNow) or not said or not line.ready:
        return error
    try:
        line.between_mails = False
        bare = await enter(line, mail, [one for one in options if one not in said])
        await reset(line)
        if bare.refusal is not None or not line.ready:
            return error
        line.between_mails = False
        again = await enter(line, mail, options)
        await reset(line)
    except RelayUnavailable:
        return error
    if again.refusal is None:
        return error
    words = str(error)
    if again.refusal.code < 500:
        return TransientError(words)
    return NotCarried(words, lacks="8BITMIME" if b"BODY=8BITMIME" in said else "SIZE")


def _options(line: Line, mail: Mail) -> list[bytes]:
    """The parameters of MAIL (RFC 1870, 3461, 6152, 6531); raises before a word is said if the relay cannot carry the
    mail."""
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
            words = f"{line.settings.place} takes no addresses outside ASCII (SMTPUTF8)"
            raise NotCarried(words, lacks="SMTPUTF8")
        options.append(b"SMTPUTF8")
    if mail.envelope_id and line.reports and not line.settings.lmtp and offers("dsn"):
        options += reports.of_mail(mail.envelope_id)
    return options


async def _transfer(
    line: Line, octets: bytes, answered: Callable[[], Awaitable[SMTPResponse]] | None = None
) -> SMTPResponse:
    """The octets in pieces, each with its own deadline; the answer is read meanwhile, because a relay may refuse
    half-way."""
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
            async with asyncio.timeout(limit), TaskGroup() as group:
                uploading = group.create_task(upload(), name=f"upload {line.settings.place}")
                answer = await (protocol.read_response(timeout=None) if answered is None else answered())
                uploading.cancel()
    except RelayUnavailable as error:
        if complete:
            raise RelayUncertain(f"{error}; it may have taken the mail") from None
        raise
    if not complete:
        line.client.close()
        if answer.code < 400:
            raise RelayUnavailable(f"{line.settings.place} answered before the mail was complete: {words_of(answer)}")
    return answer


async def reset(line: Line) -> None:
    """RSET: the transaction is over and the line may be used again. If it breaks by that, the refusal counts all the
    same."""
    with suppress(RelayUnavailable):
        answer = await line.ask("RSET", b"RSET")
        line.between_mails = answer.code == 250


_SIZE = frozenset(("3.4", "2.3"))
_ADDRESSES = "6.7"
_SEND_AS = frozenset(("2.252", "7.60"))
"""Exchange's SendAsDenied. It looks at the mail first, and then speaks of the sender all the same."""
_SENDER = _SEND_AS | {"1.7", "1.8"}
_MAILBOX = frozenset(("2.1", "2.2", "3.1"))
_FULL = re.compile(r"full|quota|storage|space", re.IGNORECASE)


def refused(
    line: Line, mail: Mail, what: str, answer: SMTPResponse, options: Sequence[bytes] = (), *, unseen: bool = False
) -> MailpollerError:
    """The decision that a refusal asks for (RFC 5321 section 4.2.1, RFC 3463, RFC 4954 section 6).

    ``what`` was refused: the sender, the recipients, or the mail; ``unseen``: the mail, before an octet of it was
    sent. Before that a refusal is the mail's only if it says so: sender and recipients are the same for every mail of
    ours.
    """
    place, words, status = line.settings.place, words_of(answer), status_of(answer)
    said = f"{place} refused the {what}: {words}"
    unseen = unseen or what != "mail"
    if answer.code in (530, 534, 535, 538):
        return CredentialsRefused(said)
    if answer.code < 500:
        return NotNow(said, part=what) if unseen else TransientError(said)
    if _too_large(what, answer, options):
        return NotCarried(said, lacks="SIZE")
    if unseen and status == _ADDRESSES:
        return NotCarried(said, lacks="SMTPUTF8")
    if not unseen and status not in _SEND_AS:
        return MessageRejected(said)
    return _envelope(line, mail, what, answer)


def _too_large(what: str, answer: SMTPResponse, options: Sequence[bytes]) -> bool:
    """A mail is too large by the status; without one by 552, which RCPT gives for a full mailbox too, and about a
    size only if it was told one."""
    if status := status_of(answer):
        return status in _SIZE
    if answer.code != 552:
        return False
    told = any(one.startswith(b"SIZE=") for one in options)
    return what != "recipients" or (told and not _FULL.search(answer.message))


def _envelope(line: Line, mail: Mail, what: str, answer: SMTPResponse) -> EnvelopeRefused:
    """A refusal that is not the mail's, with what may help."""
    status, part, hint = status_of(answer), what, ""
    advice = "Look at the addresses, and whether this relay carries our mail to them."
    if what == "sender" or status in _SENDER or "sender" in answer.message.lower():
        part = "sender"
        advice = "Look at sender: many relays allow only the address of the login itself, or one that it may send as."
        if not mail.sender and line.settings.lmtp:
            what, advice = "null sender", "Give a sender: the server does not want the null envelope sender."
        elif not mail.sender:
            what, hint = "null sender", " (null_sender: false may help)"
            advice = (
                "Say null_sender: false: the relay does not want the null envelope sender, and gets the address in "
                "sender instead. If it refuses that too, look at sender."
            )
    elif not mail.sender and not line.settings.lmtp:
        advice += " Some relays mean the null envelope sender by this: null_sender: false."
    return EnvelopeRefused(
        f"{line.settings.place} refused the {what}{hint}: {words_of(answer)}", part=part, advice=advice
    )


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
