"""Bounces that are no reports (RFC 3462): a text for people, by qmail, Exim, Sendmail, Exchange, Domino and others.

They differ in everything but this: somewhere above the copy of the message stand the addresses that failed, each at
the beginning of a line or on one of its own, with the server's words behind or below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailpoller.core.classification import BouncedRecipient
from mailpoller.mail.understand.delivery_status import LONGEST, status_in
from mailpoller.mail.words import clean

RECIPIENTS_KEPT = 100
LINES_READ = 600

_LOCAL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}\Z")
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*+\.)*+[A-Za-z0-9-]*+")
_MARKS = "<>()[]\"'`,;: \t*-=|"
_COPY = re.compile(
    r"[-=_*\s>]{0,60}(?:below this line is a copy|this is a copy of|(?:the )?original message|original mail|"
    r"undelivered message follows|unsent message|returned message|message header|headers? follow|"
    r"the header of|forwarded message|message contents|copy of the message|"
    r"begin(?:ning)? of (?:the )?(?:original|returned)|start of returned|ursprüngliche nachricht|"
    r"text of (?:the )?message)",
    re.IGNORECASE,
)
_ONLY_IN_A_HEADER = re.compile(
    r"(?:received|return-path|message-id|mime-version|content-type|date|dkim-signature|x-[\w-]{1,60})[ \t]?:",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"[ \t>*]{0,20}(?:subject|betreff|objet|asunto|assunto|oggetto|onderwerp|emne|ämne|aihe|temat|"
    r"předmět|тема|件名|主题|제목)"
    r"[ \t]{0,10}[:：](.*)",
    re.IGNORECASE,
)
_QUOTED_SUBJECT = re.compile(
    r"\b(?:subject|betreff|objet|asunto|oggetto|onderwerp)(?: (?:of|line|was|is|ist|war))?:? ?['\"„“«»‘]"
    r"(.{1,900}?)['\"”“«»’](?=[\s.,;)]|$)",
    re.IGNORECASE,
)
_FIELD_NAME = re.compile(
    r"(?:received|return-path|from|to|cc|subject|date|message-id|mime-version|content-type|x-[\w-]{1,60}|reply-to"
    r"|in-reply-to|references|dkim-signature|sender)[ \t]?:", re.IGNORECASE
)  # fmt: skip


def split(text: str) -> tuple[list[str], list[str]]:
    """The lines of the server's own words, and those from the header of the copied message on."""
    lines = text.split("\n", LINES_READ)[:LINES_READ]
    run = begun = 0
    sure = False
    for number, line in enumerate(lines):
        if _FIELD_NAME.match(line.lstrip("> \t|")):
            run += 1
            if run == 1:
                begun, sure = number, False
            sure = sure or _ONLY_IN_A_HEADER.match(line.lstrip("> \t|")) is not None
            if run >= 3 and sure:  # servers name To, Cc and Subject of the message as well
                return lines[:begun], [copied.lstrip("> \t|") if run else copied for copied in lines[begun:]]
        elif not (run and line[:1] in (" ", "\t") and line.strip()):
            run = 0
    return lines, []


def read_subject(lines: list[str]) -> str:
    """The subject of the message that the server's words name, without its copy; "" if they do not."""
    found = next((found for line in lines if (found := _SUBJECT.match(line[:1000])) is not None), None)
    if found is None:
        found = next((found for line in lines if (found := _QUOTED_SUBJECT.search(line[:1000])) is not None), None)
    return found[1].strip() if found is not None else ""


def read_recipients(lines: list[str], not_these: frozenset[str]) -> tuple[BouncedRecipient, ...]:
    """The recipients that the server's words name; those on the most telling lines alone, if there are any.

    ``not_these``: addresses in small letters that are named for another reason, such as the one the bounce is for.
    """
    leading: dict[str, str] = {}
    other: dict[str, str] = {}
    for number, line in enumerate(lines):
        if "@" not in line:
            continue
        if _COPY.match(line):
            break
        begun = line.strip().lstrip(_MARKS)
        for found, at in _addresses(line[:2000]):
            if found.lower() in not_these or found.lower() in leading:
                continue
            first = line[at:].startswith(begun[: len(found)]) and begun.startswith(found)
            words = _words(lines, number, line[at + len(found) :])
            (leading if first else other).setdefault(found.lower(), f"{found}\0{words}")
            if len(leading) + len(other) >= RECIPIENTS_KEPT:
                break
    told = leading or dict(list(other.items())[:1])
    return tuple(_recipient(*value.split("\0", 1)) for value in told.values())


def _recipient(found: str, words: str) -> BouncedRecipient:
    return BouncedRecipient(final_recipient=found, action="", status=status_in(words), diagnostic=words)


def _words(lines: list[str], number: int, rest: str) -> str:
    """What stands behind an address, and below it up to an empty line that follows something."""
    pieces = [rest.strip(_MARKS)]
    length = len(pieces[0])
    for line in lines[number + 1 : number + 8]:
        text = line.strip()
        if (not text and length) or length > LONGEST:
            break
        if _COPY.match(text) or _begins_with_an_address(text):
            break
        pieces.append(text)
        length += len(text)
    return clean(" ".join(piece for piece in pieces if piece))[:LONGEST]


def _begins_with_an_address(text: str) -> bool:
    begun = text.lstrip(_MARKS)[:400]
    found = next(_addresses(begun), None) if "@" in begun else None
    return found is not None and found[1] == 0


def _addresses(line: str) -> Iterator[tuple[str, int]]:
    """(address, where it begins) of each in ``line``; looked for at the at signs, so that it takes linear time."""
    at = line.find("@")
    count = 0
    while at >= 0 and count < 50:
        count += 1
        local = _LOCAL.search(line[max(0, at - 64) : at])
        domain = _DOMAIN.match(line, at + 1)
        if local is not None and domain is not None:
            name = domain[0].rstrip("-.")
            start = at - len(local[0])
            text = local[0].lstrip("'`./=*-")
            if text and (("." in name and not name.replace(".", "").isdigit()) or name == "localhost"):
                yield f"{text}@{name}", start + len(local[0]) - len(text)
        at = line.find("@", at + 1)
