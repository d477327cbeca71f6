"""What a server says, understood: status answers, FETCH data, uids, folder lists, dates (RFC 3501 section 7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import zip_longest
from typing import Literal as Literal_

from mailpoller.core.record import record
from mailpoller.core.spool import Octets
from mailpoller.wire.imap.names import Namespace, decode_name
from mailpoller.wire.imap.reader import Piece, ProtocolViolation, Response

MAX_VALUES = 100_000
"""Words and lists of one response: two octets of it may be a hundred of ours. An ENVELOPE with 10,000 addresses has
50,000."""
MAX_QUOTED = 256 << 10
"""Octets of one quoted string; what is longer comes as a literal."""
_MAX_DEPTH = 32
_MAX_FLAGS = 1000

_ORIGIN = rb"(?:<0(?:\.\d+)?>)?"  # of a part; some servers repeat what was asked for, not only where it begins
_BODY = re.compile(
    rb'\* \d+ FETCH \(UID (\d{1,10}) FLAGS \(([^()]*)\) INTERNALDATE "([^"]+)" BODY\[\]' + _ORIGIN + rb" \{(\d+)\}"
)
_SIZE = re.compile(rb'\* (\d{1,10}) FETCH \(UID (\d{1,10}) RFC822\.SIZE (\d{1,19})(?: INTERNALDATE "([^"]+)")?\)')
_SET = re.compile(rb"\* (\d{1,10}) FETCH \((?:UID (\d{1,10}) FLAGS \(([^()]*)\)|FLAGS \(([^()]*)\) UID (\d{1,10}))\)")
_ITEM = re.compile(
    rb"(?i)UID|FLAGS|INTERNALDATE|RFC822(?:\.\w++)*+|ENVELOPE|BODY.*|BINARY.*|MODSEQ|EMAILID|THREADID|SAVEDATE|PREVIEW.*|SNIPPET.*"
    rb"|X-[\w.-]+",
    re.DOTALL,
)
"""Names that may stand in a FETCH answer. Behind a body anything else is a piece of a mail: the length was a lie."""
_WHOLE = re.compile(rb"BODY\[\]" + _ORIGIN)
_CODE = re.compile(rb"\[([^\s\]]+)(?: ([^\]]*))?\] ?(.*)", re.DOTALL)
_TOKEN = re.compile(
    rb'[ \t]*(?:(\()|(\))|"([^"\\]*+(?:\\.[^"\\]*+)*+)"|~?\{(\d{1,19})\}$'
    rb'|((?:[^\s()"\[{]+(?:\[[^\]]*\](?:<[\d.]+>)?)?)|\[[^\]]*\]))',
    re.DOTALL,
)
"""Possessive where it repeats: a pattern that may go back keeps a state for every octet, 1.7 GB for 8 MB."""
_DATE = re.compile(rb"([ \d]?\d)-(\w{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-]\d{4})")
_PAUSE = re.compile(r"(?i)suggested backoff time: (\d{1,10}) milliseconds")
_LONGEST_PAUSE = timedelta(hours=1)
_BUSY_CODES = {"LIMIT", "THROTTLED", "UNAVAILABLE"}
_BUSY_WORDS = ("throttled", "server unavailable", "bandwidth limit", "too many")
MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""English whatever the locale is, January first."""
_MONTHS = {name.encode(): number for number, name in enumerate(MONTH_NAMES, start=1)}
_UTC = (b"+0000", b"-0000")


@record
class Status:
    """A status answer: ``kind`` is OK, NO, BAD, BYE or PREAUTH; ``code`` the response code in capitals, or empty,
    with its ``arguments``; ``text`` the server's own words, printable and at most 300 characters."""

    kind: str
    code: str
    arguments: bytes
    text: str

    @property
    def ok(self) -> bool:
        return self.kind == "OK"

    @property
    def busy(self) -> bool:
        """A refusal of us, whatever was asked for: no message is to blame, and to ask one by one would make it
        worse."""
        return not self.ok and (self.code in _BUSY_CODES or any(word in self.text.lower() for word in _BUSY_WORDS))

    @property
    def pause(self) -> timedelta | None:
        """For how long the server wants to be left alone, at most an hour. Microsoft says so in the words of its
        refusal."""
        found = None if self.ok else _PAUSE.search(self.text)
        return min(timedelta(milliseconds=int(found[1])), _LONGEST_PAUSE) if found else None

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, f"[{self.code}]" if self.code else "", self.text) if part)


def read_status(words: bytes) -> Status:
    """``NO [TRYCREATE] no such folder`` (what follows the tag or the star)."""
    kind, _, rest = words.partition(b" ")
    rest = rest.lstrip(b" ")
    code, arguments = "", b""
    if rest.startswith(b"[") and (found := _CODE.match(rest)):
        code, arguments, rest = found[1].decode("ascii", "replace").upper(), (found[2] or b"").strip(), found[3]
    return Status(kind.decode("ascii", "replace").upper(), code, arguments, readable(rest))


def readable(words: bytes, limit: int = 300) -> str:
    """A peer's words as one printable line of at most ``limit`` characters."""
    text = words[: limit * 4].decode("utf-8", "replace")
    return "".join(one if one.isprintable() else " " for one in text).strip()[:limit]


# --- FETCH -----------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Fetched:
    """One FETCH answer; what it did not name is None. ``asked``: it named BODY[]; ``announced`` is the size in octets
    of the literal that it announced (``body`` is None for NIL). ``number`` is the message's sequence number, 0 if
    that cannot be read. ``envelope``: the words of ENVELOPE (RFC 3501 section 7.4.2).

    ``doubt``: why the body may not be the message's octets, or not all of them. ``broken``: and what follows may be
    anything.
    """

    uid: str | None = None
    size: int | None = None
    flags: tuple[str, ...] | None = None
    received: datetime | None = None
    asked: bool = False
    body: Piece | None = None
    announced: int = 0
    number: int = 0
    envelope: list[Value] | None = None
    doubt: str = ""
    broken: bool = False


def read_fetch(response: Response) -> Fetched | None:
    """A FETCH answer, or None if it cannot be read. First the shape that servers give to our own commands, at a tenth
    of the price."""
    head = response[0]
    assert isinstance(head, bytes)
    if len(response) == 3:
        if response[2] == b")" and (found := _BODY.match(head)) is not None:
            uid, flags, date, size = found.groups()
            return Fetched(uid.decode(), None, read_flags(flags), read_date(date), True, response[1], int(size))
    elif len(response) == 1:
        if (found := _SIZE.fullmatch(head)) is not None:
            number, uid, size, date = found.groups()
            return Fetched(uid.decode(), int(size), None, read_date(date) if date else None, number=int(number))
        if (found := _SET.fullmatch(head)) is not None:
            number, first, flags, others, second = found.groups()
            uid, flags = (first, flags) if first is not None else (second, others)
            return Fetched(uid.decode(), None, read_flags(flags), number=int(number))
    return _read_any_fetch(response)


def _read_any_fetch(response: Response) -> Fetched | None:
    """Whatever shape it has. What is no name of an item, such as a group without one (Domino), is passed over."""
    values, frame = _read(response)
    if len(values) < 4 or not isinstance(values[3], list):
        return None
    items = values[3]
    fetched = Fetched()
    if isinstance(values[1], bytes) and values[1].isdigit() and len(values[1]) <= 10:
        fetched.number = int(values[1])
    position = 0
    while position + 1 < len(items):
        name, value = items[position : position + 2]
        if not isinstance(name, bytes):
            position += 1
            continue
        position += 2
        if fetched.asked and frame != "broken" and _ITEM.fullmatch(name) is None:
            frame = "broken"
        match name.upper(), value:
            case b"UID", bytes() if value.isdigit() and len(value) <= 10:
                fetched.uid = str(int(value))
            case b"RFC822.SIZE", bytes() if value.isdigit() and len(value) <= 19:
                fetched.size = int(value)
            case b"INTERNALDATE", bytes():
                fetched.received = read_date(value)
            case b"ENVELOPE", list():
                fetched.envelope = value
            case b"FLAGS", list():
                fetched.flags = read_flags(b" ".join(flag for flag in value if isinstance(flag, bytes)))
            case section, _ if _WHOLE.fullmatch(section):
                fetched.asked = True
                if isinstance(value, Literal):
                    fetched.body, fetched.announced = value.piece, value.size
                elif isinstance(value, bytes):
                    fetched.body, fetched.announced = Octets.of(value), len(value)
            case _:
                pass
    if len(values) > 4 or (position < len(items) and isinstance(items[position], bytes)):
        frame = "broken"
    if fetched.asked and frame:
        fetched.broken = frame == "broken"
        fetched.doubt = (
            "the server's answer goes on where the message should end"
            if fetched.broken
            else "the server's answer ends before its list is closed"
        )
    return fetched


def read_flags(words: bytes) -> tuple[str, ...]:
    r"""``\Seen $Done``, without ``\Recent``, which says nothing about the message; the first 1,000 at most."""
    return _usual_flags(words) if len(words) < 500 else _read_flags(words)


def _read_flags(words: bytes) -> tuple[str, ...]:
    flags = words[: 100 * _MAX_FLAGS].decode("ascii", "replace").split()
    return tuple(flag for flag in flags[:_MAX_FLAGS] if flag.lower() != "\\recent")


_usual_flags = lru_cache(maxsize=512)(_read_flags)


def read_date(words: bytes) -> datetime | None:
    """An INTERNALDATE (``22-Nov-2026 03:10:10 +0100``, the day perhaps after a space), in UTC, or None if it is
    none."""
    found = _DATE.match(words)
    if found is None:
        return None
    day, name, year, hour, minute, second, zone = found.groups()
    month = _MONTHS.get(name) or _MONTHS.get(name.title())
    if month is None:
        return None
    try:
        there = datetime(int(year), month, int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        return there if zone in _UTC else there - _ahead(zone)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=64)
def _ahead(zone: bytes) -> timedelta:
    """How much later than UTC it is there. Raises ValueError for a day or more."""
    ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
    if ahead >= timedelta(days=1):
        raise ValueError("no zone is a day away from another")
    return ahead if zone[0] == 43 else -ahead


# --- folders ---------------------------------------------------------------------------------------------------------
@record
class Listed:
    """One LIST answer: attributes in lower case, the delimiter (empty: flat), the decoded name."""

    attributes: frozenset[str]
    delimiter: str
    name: str

    @property
    def selectable(self) -> bool:
        return not self.attributes & {"\\noselect", "\\nonexistent"}


def read_list(response: Response, *, utf8: bool = False) -> Listed | None:
    r"""``* LIST (\HasNoChildren) "/" "Sent Items"``, or None if it cannot be read. ``utf8``: names are not encoded
    (RFC 9755)."""
    values = read_values(response)
    if len(values) < 5 or not isinstance(values[2], list):
        return None
    name = _text(values[4])
    if name is None:
        return None
    attributes = frozenset(flag.decode("ascii", "replace").lower() for flag in values[2] if isinstance(flag, bytes))
    return Listed(attributes, _text(values[3]) or "", name if utf8 else decode_name(name))


def read_namespace(response: Response, *, utf8: bool = False) -> Namespace | None:
    """``* NAMESPACE (("INBOX." ".")) NIL (("shared." "."))`` (RFC 2342): personal, other users', shared. None: no
    personal one."""
    kinds = [value if isinstance(value, list) else [] for value in read_values(response)[2:5]]
    pairs = [
        [(_text(one[0]) or "", _text(one[1]) or "") for one in kind if isinstance(one, list) and len(one) > 1]
        for kind in kinds
    ]
    personal = pairs[0] if pairs else []
    if not personal:
        return None
    prefix, delimiter = personal[0]
    read = str if utf8 else decode_name
    own = tuple(read(one) for one, _ in personal[1:] if one)
    others = tuple(read(one) for kind in pairs[1:] for one, _ in kind if one)
    return Namespace(read(prefix), delimiter, others + own, own)


# --- any values ------------------------------------------------------------------------------------------------------
@record
class Literal:
    """A literal among other values, and the size that was announced."""

    piece: Piece
    size: int


Value = bytes | None | Literal | list["Value"]


def _text(value: Value) -> str | None:
    if isinstance(value, Literal):
        value = value.piece if isinstance(value.piece, bytes) else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None


def read_values(response: Response) -> list[Value]:
    """The words of a response; parentheses become lists, NIL None, literals :class:`Literal`.

    Iterative, at most 32 deep. A server that leaves parentheses open gets them closed at the end, one that
    closes too many has the rest ignored: a response ends where its last line ends, never later. What cannot be
    read is passed over to the next literal, which is never taken for words.
    """
    return _read(response)[0]


def _read(response: Response) -> tuple[list[Value], Literal_["", "open", "broken"]]:
    """See :func:`read_values`; and whether the response ends as it should: a list that is not closed is ``open``, one
    that is closed too often, or has something that cannot be read behind its last literal, is ``broken``."""
    frame: Literal_["", "open", "broken"] = ""
    root: list[Value] = []
    stack: list[list[Value]] = [root]
    left = MAX_VALUES
    for line, literal in zip_longest(response[::2], response[1::2]):
        assert isinstance(line, bytes)
        position = 0
        while (found := _TOKEN.match(line, position)) is not None:
            position = found.end()
            left -= 1
            if left < 0 or position - found.start() > MAX_QUOTED:
                raise ProtocolViolation("a response has too many words, or too long ones")
            opened, closed, quoted, size, atom = found.groups()
            if opened:
                if len(stack) >= _MAX_DEPTH:
                    raise ProtocolViolation(f"lists are nested more than {_MAX_DEPTH} deep")
                inner: list[Value] = []
                stack[-1].append(inner)
                stack.append(inner)
            elif closed:
                if len(stack) == 1:
                    return root, "broken"
                stack.pop()
            elif quoted is not None:
                stack[-1].append(re.sub(rb"\\(.)", rb"\1", quoted) if b"\\" in quoted else quoted)
            elif size is not None:
                if literal is not None:
                    stack[-1].append(Literal(literal, int(size)))
            else:
                stack[-1].append(None if atom.upper() == b"NIL" else atom)
        frame = "broken" if line[position:].strip() else ""
    return root, frame or ("open" if len(stack) > 1 else "")
