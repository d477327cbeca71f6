"""Reading SOAP answers as they arrive: bounded, without document types or entities, contents passed on in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol
from xml.parsers import expat

ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/ Envelope"
"""The root of every answer, as expat names it: namespace, space, local name."""

DEEPEST = 40
"""Elements within elements; EWS needs a dozen."""
ELEMENTS = 100_000
"""Elements and attributes of one answer; the largest that we ask for has some 10,000."""
CONTENT = "MimeContent"
"""The element whose text is not kept but passed on."""

_PIECE = 64 * 1024
"""Characters of text that expat collects before it passes them on."""

_TAG = 256 << 10
"""Octets of one tag; expat holds it, and begins it anew with every piece."""
_ILLEGAL = re.compile(
    rb"&#(?:0*(?:[0-8]|1[124-9]|2\d|3[01]|6553[45])|x0*(?:[0-8bcef]|1[0-9a-f]|fff[ef]|d[89a-f][0-9a-f]{2}));",
    re.IGNORECASE,
)
"""References to characters that XML 1.0 does not have. Exchange writes them where a category or a name has such a
one."""
_REFERENCE = 12
"""Octets in which every one of these references ends."""


class Malformed(Exception):
    """What arrived is not an answer: the text says why, without quoting it."""


class Enough(Exception):
    """Raised by :class:`Contents`: nothing more of this answer is wanted."""


class Contents(Protocol):
    """Takes the text of each ``MimeContent``: base64, in pieces of any length, white space allowed. May raise
    :class:`Enough` and :class:`OSError`."""

    def begin(self) -> None: ...
    def take(self, text: str) -> None: ...
    def end(self) -> None: ...


class Node:
    """An element: its local ``name``, ``attributes``, ``text`` and ``children``. Namespaces are left away, for EWS
    has no two elements that differ in nothing else."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.text = ""
        self.children: list[Node] = []

    def find(self, *path: str) -> Node | None:
        """The first element at the end of ``path``, from here down."""
        node: Node | None = self
        for name in path:
            node = next((child for child in node.children if child.name == name), None) if node else None
        return node

    def value(self, *path: str) -> str:
        """The text of the first element at the end of ``path``, stripped; empty if there is none."""
        found = self.find(*path)
        return "" if found is None else found.text.strip()

    def walk(self) -> Iterator[Node]:
        """This element and all below it, in the order of the document."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


class AnswerReader:
    """Takes an answer's octets in pieces of any size and makes a tree of it.

    ``contents``: where the text of ``MimeContent`` goes. ``limit``: octets of the answer besides such text.
    ``arrived``: the response messages (children of ``ResponseMessages``) that are complete, in order; whoever takes
    them empties the list. Raises :class:`Malformed`, and whatever ``contents`` raises.
    """

    def __init__(self, *, limit: int, contents: Contents | None = None) -> None:
        self.arrived: list[Node] = []
        self._contents = contents
        self._limit = limit
        self._taken = self._parsed = 0
        self._elements = 0
        self._stack: list[Node] = []
        self._root: Node | None = None
        self._inside = False
        self._text: list[str] = []
        self._held = b""
        # EWS answers in UTF-8, whatever the declaration says.
        parser = expat.ParserCreate("utf-8", " ")
        parser.buffer_text = True
        parser.buffer_size = _PIECE
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        self._parser = parser

    def feed(self, octets: bytes) -> None:
        """Take the next piece."""
        self._taken += len(octets)
        if self._taken > self._limit:
            raise Malformed(f"an answer of more than {self._limit:,} octets")
        self._parse(self._legal(octets), False)

    def finish(self) -> Node:
        """The end of the answer: its envelope. Raises :class:`Malformed` if it is not complete."""
        self._parse(self._held, True)
        self._let_go()
        assert self._root is not None
        return self._root

    def _let_go(self) -> None:
        """The parser holds us, and we hold it: it would stay, with memory that Python's collector does not see."""
        for handler in ("StartDoctypeDeclHandler", "StartElementHandler", "EndElementHandler", "CharacterDataHandler"):
            setattr(self._parser, handler, None)

    def _parse(self, octets: bytes, last: bool) -> None:
        self._parsed += len(octets)
        try:
            self._parser.Parse(octets, last)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, "") if isinstance(error.code, int) else ""
            self._let_go()
            raise Malformed(f"broken XML: {reason or 'cannot be parsed'}") from None
        except BaseException:
            self._let_go()
            raise
        if self._parsed - self._parser.CurrentByteIndex > _TAG + len(octets):
            raise Malformed(f"a tag of more than {_TAG:,} octets")

    def _legal(self, octets: bytes) -> bytes:
        """``octets`` without references that expat would refuse; a reference that may go on is held back."""
        if self._held:
            octets, self._held = self._held + octets, b""
        start = octets.rfind(b"&", -_REFERENCE)
        if start >= 0 and b";" not in octets[start:]:
            octets, self._held = octets[:start], octets[start:]
        return _ILLEGAL.sub(b"?", octets) if b"&#" in octets else octets

    # --- what expat tells --------------------------------------------------------------------------------------
    def _doctype(self, *_: object) -> None:
        # SOAP 1.1 section 3 forbids it; without one there are no entities to expand and nothing to load.
        raise Malformed("a document type declaration, which SOAP does not have")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1 + len(attributes)
        if len(self._stack) >= DEEPEST or self._elements > ELEMENTS:
            raise Malformed("too many elements")
        if not self._stack and name != ENVELOPE:
            raise Malformed("XML that is no SOAP envelope")
        if self._inside:
            raise Malformed(f"an element within {CONTENT}")
        self._keep()
        node = Node(name.rpartition(" ")[2], {key.rpartition(" ")[2]: value for key, value in attributes.items()})
        if self._stack:
            parent = self._stack[-1]
            if parent.name != "ResponseMessages":
                parent.children.append(node)
        else:
            self._root = node
        self._stack.append(node)
        if node.name == CONTENT and self._contents is not None:
            self._inside = True
            self._contents.begin()

    def _characters(self, text: str) -> None:
        if self._inside and self._contents is not None:
            self._taken -= len(text)
            self._contents.take(text)
        else:
            self._text.append(text)

    def _end(self, _: str) -> None:
        if self._inside and self._contents is not None:
            self._inside = False
            self._contents.end()
        self._keep()
        node = self._stack.pop()
        if self._stack and self._stack[-1].name == "ResponseMessages":
            self.arrived.append(node)

    def _keep(self) -> None:
        """Text belongs to the element that is open and has no children yet; EWS has none behind these, and to add it
        piece by piece would take quadratic time."""
        if self._text:
            text = "".join(self._text)
            self._text.clear()
            if self._stack and not self._stack[-1].children and not text.isspace():
                self._stack[-1].text += text
