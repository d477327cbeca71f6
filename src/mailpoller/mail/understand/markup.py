"""Writes the text of HTML, a word and a tag at a time: lines and paragraphs, quotes, lists, rows, links; and knows what
nobody is to see."""

from __future__ import annotations

import html as entities
import re

_ENTITY = re.compile(r"&(?:#0*+([0-9]++)|#[xX]0*+([0-9A-Fa-f]++)|([A-Za-z][A-Za-z0-9]{1,31}));?+")
_LONGEST_NUMBER = 9
_HREF = re.compile(r"\shref\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))", re.IGNORECASE)
_ALT = re.compile(r"\salt\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)')", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*+\"|'[^']*+'")
_HIDDEN_WORD = re.compile(r"\shidden(?![\w:.-])")
_NO_SIZE = re.compile(r"font-size:0*+(?:\.0*+)?(?:px|pt|em|rem|%)?(?![.\w])")
_NO_COLOUR = re.compile(r"opacity:0*+(?:\.0*+)?(?![.\w])")
_WITHOUT_LAYOUT = frozenset(("b", "span", "font", "strong", "i", "em", "u", "small", "o:p", "col", "meta"))
_ADDRESSES = ("http://", "https://", "mailto:", "tel:", "ftp://")
_LONGEST_ADDRESS = 2000
_DEEPEST = 10
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "frame", "hr", "img", "input", "link", "meta", "param", "source", "track",
     "wbr")
)  # fmt: skip
_LINES = frozenset(
    ("address", "article", "aside", "body", "caption", "center", "dd", "details", "dir", "div", "dt", "fieldset",
     "figcaption", "figure", "footer", "form", "header", "html", "legend", "main", "menu", "nav", "option",
     "section", "summary", "tbody", "tfoot", "thead")
)  # fmt: skip
_PARAGRAPHS = frozenset(("p", "h1", "h2", "h3", "h4", "h5", "h6", "dl"))
_ENDED_BY_THEIR_LIKE = frozenset(("p", "li", "td", "th", "tr", "dd", "dt", "option"))
_SIGNATURE = "-- "
_RULE = "-" * 10


class Writer:
    """Writes text that tags surround. ``breaks``: line ends that come before the next word; ``cell``: it is the first
    of a cell, behind another one in its row."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.hidden = 0
        self.breaks = 0
        self.apart = 2  # of paragraphs: those of Word have no space between them
        self.space = False
        self.cell = False
        self.row = -1  # lines of the row that is open; -1 outside of one
        self.depth = self.written_depth = 0
        self.lists: list[int] = []  # of each list around: the number of its next item, or -1
        self.mark = ""  # of the list's item that begins
        self.link: tuple[str, int] | None = None
        self.links: set[str] = set()
        self.pre = 0
        self.unseen = False
        self.small = False
        # Elements that change what is seen: name, how many of that name are open within, what was seen outside.
        self.effects: list[tuple[str, bool, bool]] = []
        self.nested = 0

    # --- words --------------------------------------------------------------------------------------------------------
    def text(self, text: str) -> None:
        if "&" in text:
            text = _ENTITY.sub(_entity, text)
        if self.unseen or self.small:
            self.hidden += len(" ".join(text.split()))
        elif self.pre:
            first, *others = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
            self.put(first)
            for line in others:
                self.breaks += 1
                self.put(line)
        elif words := text.split():
            self.space = self.space or text[0].isspace()
            self.put(" ".join(words) if words != ["--"] or text[-1] != " " else _SIGNATURE)
            self.space = text[-1].isspace()
        elif text and self.breaks and "\xa0" in text:
            self.breaks += 1  # a line with nothing in it
        else:
            self.space = self.space or bool(text)

    def put(self, words: str) -> None:
        """Words, behind whatever has to come before them."""
        if not words:
            return
        out = self.out
        if self.breaks or not out:
            self.lead()
        elif self.space:
            out.append(" ")
        self.space = self.cell = False
        if self.mark:
            out.append(self.mark)
            self.mark = ""
        out.append(words)

    def lead(self) -> None:
        """The line ends that are due, and what begins the line."""
        prefix = "> " * self.depth + "  " * (len(self.lists[:_DEEPEST]) - 1)
        if self.out:
            if self.cell:
                self.out.append("\t")
                self.breaks = 0
                return
            blank = prefix.rstrip() if self.depth == self.written_depth and self.depth else ""
            self.out.append("\n" + f"{blank}\n" * (min(self.breaks, 3) - 1))
        self.breaks = 0
        self.row += self.row >= 0
        self.written_depth = self.depth
        self.out.append(prefix)

    def line(self, breaks: int) -> None:
        """A new line begins, behind one that is empty if ``breaks`` is 2."""
        self.breaks = max(self.breaks, breaks)
        self.space = False

    # --- tags ---------------------------------------------------------------------------------------------------------
    def begin(self, name: str, rest: str) -> None:
        if self.effects and name not in _VOID:
            self.nest(name)
        folded = ""
        if rest:
            folded = rest.lower()
            if (
                "display" in folded
                or "visib" in folded
                or "hidden" in folded
                or "font-size" in folded
                or "opacity" in folded
            ):
                self.effect(name, folded)
        if self.unseen or name in _WITHOUT_LAYOUT:
            return
        if name == "br":
            self.breaks += 1
            self.space = False
        elif name in _LINES:
            self.line(1)
        elif name in _PARAGRAPHS:
            self.apart = 1 if "msonormal" in folded else 2
            self.line(self.apart)
        elif name in ("td", "th"):
            self.new_cell()
        elif name == "tr":
            self.breaks = 1 if self.row >= 0 else max(self.breaks, 1)
            self.row = 0
        elif name == "a":
            self.open_link(rest)
        elif name == "img":
            if (alt := _ALT.search(f" {rest}")) and (words := (alt[1] or alt[2] or "").split()):
                self.text(f"[{' '.join(words)[:200]}]")
        elif name == "li":
            self.item()
        elif name in ("ul", "ol"):
            self.line(1 if self.lists else 2)
            self.lists.append(1 if name == "ol" else -1)
        elif name == "blockquote":
            self.line(1)
            self.depth = min(self.depth + 1, _DEEPEST)
        elif name == "hr":
            self.line(1)
            self.put(_RULE)
            self.line(1)
        elif name in ("pre", "table"):
            self.line(1)
            self.row = -1
            self.pre += name == "pre"

    def end(self, name: str) -> None:
        if self.effects and name == self.effects[-1][0]:
            if self.nested:
                self.nested -= 1
            else:
                self.leave()
        if self.unseen or name in _WITHOUT_LAYOUT:
            return
        if name in _LINES or name in ("tr", "li"):
            self.line(1)
        elif name in _PARAGRAPHS:
            self.line(self.apart)
        elif name == "a":
            self.close_link()
        elif name in ("ul", "ol"):
            if self.lists:
                self.lists.pop()
            self.line(1 if self.lists else 2)
        elif name == "blockquote":
            self.line(1)
            self.depth = max(self.depth - 1, 0)
        elif name in ("pre", "table"):
            self.line(1)
            self.row = -1
            self.pre = max(self.pre - (name == "pre"), 0)

    def new_cell(self) -> None:
        """Cells stand in one line, a tab between two; unless the one before has lines of its own."""
        self.line(1)
        self.cell = self.row == 1

    def item(self) -> None:
        self.line(1)
        if self.lists and self.lists[-1] >= 0:
            self.mark = f"{self.lists[-1]}. "
            self.lists[-1] += 1
        else:
            self.mark = "* "

    # --- links --------------------------------------------------------------------------------------------------------
    def open_link(self, rest: str) -> None:
        found = _HREF.search(f" {rest}") if rest else None
        self.link = None
        if found is not None:
            address = "".join(_ENTITY.sub(_entity, found[1] or found[2] or found[3] or "").split())
            if address.lower().startswith(_ADDRESSES) and len(address) <= _LONGEST_ADDRESS:
                self.link = address, len(self.out)

    def close_link(self) -> None:
        """The address goes behind the words, if these do not show it, and no link had it before."""
        if self.link is None:
            return
        address, began = self.link
        self.link = None
        shown = "".join(self.out[began:]).strip()
        bare = address.split(":", 1)[1].removeprefix("//")
        if shown and address not in self.links and bare.rstrip("/") not in shown:
            self.out.append(f" <{address}>")
        self.links.add(address)

    # --- what nobody is to see ----------------------------------------------------------------------------------------
    def nest(self, name: str) -> None:
        """An element within those that have an effect; it may end the innermost of them."""
        innermost, _, _ = self.effects[-1]
        if name == innermost:
            if name in _ENDED_BY_THEIR_LIKE and not self.nested:
                self.leave()
            else:
                self.nested += 1
        elif innermost == "p" and (
            name in _LINES or name in _PARAGRAPHS or name in ("table", "ul", "ol", "blockquote")
        ):
            self.leave()

    def leave(self) -> None:
        _, self.unseen, self.small = self.effects.pop()
        self.nested = 0

    def effect(self, name: str, folded: str) -> None:
        """What the attributes of an element that begins hide, or show again."""
        if name in _VOID:
            return
        squeezed = "".join(folded.split())
        unseen, small = self.unseen, self.small
        if (
            "display:none" in squeezed
            or "visibility:hidden" in squeezed
            or _NO_COLOUR.search(squeezed)
            or ("hidden" in folded and _HIDDEN_WORD.search(f" {_QUOTED.sub('', folded)}"))
        ):
            unseen = True
        if "font-size:" in squeezed:
            small = _NO_SIZE.search(squeezed) is not None
        if (unseen, small) != (self.unseen, self.small):
            self.effects.append((name, self.unseen, self.small))
            self.nested = 0
            self.unseen, self.small = unseen, small


def _entity(found: re.Match[str]) -> str:
    """What an entity stands for. Numbers are bounded: the standard library raises on one of thousands of digits."""
    decimal, hexadecimal, _ = found.groups()
    if decimal is not None:
        return entities.unescape(f"&#{decimal};") if len(decimal) < _LONGEST_NUMBER else "\ufffd"
    if hexadecimal is not None:
        return entities.unescape(f"&#x{hexadecimal};") if len(hexadecimal) < _LONGEST_NUMBER else "\ufffd"
    return entities.unescape(found[0])
