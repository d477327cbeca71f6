"""Names on the wire: modified UTF-7, quoting, sequence sets, and where a folder lies in the server's namespaces."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from mailpoller.core.record import record

_SHIFTED = re.compile(r"[^\x20-\x7e]+")
_UNSHIFTED = re.compile(r"&([^-]*)-")
_UNQUOTABLE = re.compile(r"[^\x01-\x09\x0b\x0c\x0e-\x7f]")


def encode_name(name: str) -> str:
    """A folder name in modified UTF-7 (RFC 3501 section 5.1.3)."""

    def shift(run: re.Match[str]) -> str:
        octets = run[0].encode("utf-16-be", "surrogatepass")
        return "&" + base64.b64encode(octets, altchars=b"+,").rstrip(b"=").decode() + "-"

    return _SHIFTED.sub(shift, name.replace("&", "&-"))


def decode_name(wire: str) -> str:
    """The inverse of :func:`encode_name`. What is not modified UTF-7 (some servers send UTF-8) is left as it is."""

    def unshift(run: re.Match[str]) -> str:
        if not run[1]:
            return "&"
        try:
            octets = base64.b64decode(run[1] + "=" * (-len(run[1]) % 4), altchars=b"+,", validate=True)
            return octets.decode("utf-16-be")
        except ValueError:  # no base64, not even ASCII, or no UTF-16
            return run[0]

    return _UNSHIFTED.sub(unshift, wire)


def composed(name: str) -> str:
    """A name as it is compared: ``ö`` is written as one character or as two (Unicode's NFC and NFD), and is the same
    to people."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def quotable(text: str) -> bool:
    """True if ``text`` may stand in a quoted string: no NUL, CR, LF and nothing above 7 bits (RFC 3501 section 9)."""
    return _UNQUOTABLE.search(text) is None


def quote(text: str) -> str:
    """A quoted string. ``text`` must be :func:`quotable`; raises ValueError, which does not show it, if it is not."""
    if not quotable(text):
        raise ValueError("NUL, CR, LF and 8-bit characters cannot be quoted")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def quote_name(name: str, *, utf8: bool = False) -> str:
    """A folder name as it stands in a command: in modified UTF-7, or in UTF-8 where both sides have agreed on that
    (RFC 9755)."""
    if not utf8 or name.isascii():
        return quote(name if utf8 else encode_name(name))
    if any(one in name for one in "\r\n\0"):
        raise ValueError("NUL, CR and LF cannot be quoted")
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def uid_set(uids: Iterable[int]) -> str:
    """A sequence set (RFC 3501 section 9) of ascending uids: ``1:4,7``. Only neighbours become a range."""
    parts: list[str] = []
    first = last = -1
    for uid in uids:
        if uid == last + 1 and first >= 0:
            last = uid
            continue
        if first >= 0:
            parts.append(str(first) if first == last else f"{first}:{last}")
        first = last = uid
    if first >= 0:
        parts.append(str(first) if first == last else f"{first}:{last}")
    return ",".join(parts)


def uid_sets(uids: Sequence[int], octets: int = 7000) -> Iterator[tuple[Sequence[int], str]]:
    """``uids`` (ascending) cut into pieces whose set is at most about ``octets`` long: servers limit command lines."""
    step = max(1, octets // 11)
    for start in range(0, len(uids), step):
        piece = uids[start : start + step]
        yield piece, uid_set(piece)


@record
class Namespace:
    """Where folders lie on this server (RFC 2342): the personal prefix (``INBOX.`` on Courier), the hierarchy
    delimiter (empty: flat), and all other prefixes. ``own``: those of them that are personal, too; below the rest lie
    everybody else's folders."""

    prefix: str = ""
    delimiter: str = "/"
    foreign: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    def candidates(self, name: str) -> list[str]:
        """The names that the folder an operator calls ``name`` may have here, the likeliest first.

        Below the personal prefix unless it is there already or belongs to another namespace; ``/`` may be written
        for whatever the delimiter is.
        """
        if name.upper() == "INBOX":
            return ["INBOX"]
        spellings = [name]
        if self.delimiter and self.delimiter != "/" and "/" in name:
            spellings.insert(0, name.replace("/", self.delimiter))
        found: list[str] = []
        for spelling in spellings:
            below = self._starts(spelling, self.prefix) or any(self._starts(spelling, one) for one in self.foreign)
            found.extend([spelling] if below else [self.prefix + spelling, spelling])
        return list(dict.fromkeys(found))

    def owner(self, name: str) -> str:
        """The prefix below which other people's folder of this name, or pattern, lies; empty: it is the mailbox's."""
        longest = max((one for one in (self.prefix, *self.foreign) if self._starts(name, one)), key=len, default="")
        return longest if longest in self.foreign and longest not in self.own else ""

    @staticmethod
    def _starts(name: str, prefix: str) -> bool:
        if prefix.upper().startswith("INBOX"):  # the one name that knows no case (RFC 3501 section 5.1)
            return name.upper().startswith(prefix.upper())
        return bool(prefix) and name.startswith(prefix)
