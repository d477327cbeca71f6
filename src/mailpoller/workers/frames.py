"""What a worker is asked and what it answers: frames over its standard streams, each behind its length."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from mailpoller.core.body import Body, Contents

LENGTH = struct.Struct(">I")
LARGEST = 64 << 20
"""Octets of an answer at most: text and HTML are 5 MB each, in JSON up to six times that."""


@cache
def _readers() -> tuple[TypeAdapter[Body], TypeAdapter[Contents]]:
    """What reads the two; made when the first worker answers."""
    return TypeAdapter(Body), TypeAdapter(Contents)


def question(size: int, path: str | None, *, header: bool = False, closed: Sequence[str] = ()) -> bytes:
    """A frame that asks for a message to be parsed, and for its body; with ``header`` for that to be parsed and no
    more; with ``closed`` for what is in the parts of these kinds. ``path``: the spool file that holds the message;
    None: its ``size`` octets follow the frame."""
    return frame({"header": header, "closed": closed, "size": size, "path": path})


def answer(found: Body | Contents) -> bytes:
    """The frame with a body, or with contents."""
    return frame({"body" if isinstance(found, Body) else "contents": found})


def refusal(reason: str) -> bytes:
    """The frame that says in one word why there is no body."""
    return frame({"refused": reason})


def frame(value: Any) -> bytes:
    """A value in JSON behind its length."""
    text = orjson.dumps(value)
    return LENGTH.pack(len(text)) + text


def found_in(text: bytes) -> Body | Contents | str:
    """The body or the contents of an answer, or why there are none. Raises :class:`ValueError` for what no worker of
    ours says."""
    found = orjson.loads(text)
    if not isinstance(found, dict):
        raise ValueError("an answer is an object")
    if isinstance(reason := found.get("refused"), str):
        return reason
    bodies, contents = _readers()
    if "contents" in found:
        return contents.validate_python(found["contents"], strict=False)
    return bodies.validate_python(found.get("body"), strict=False)
