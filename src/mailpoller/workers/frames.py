"""What a worker is asked and what it answers: frames over its standard streams, each behind its length."""

from __future__ import annotations

import struct
from typing import Any

import orjson
from pydantic import TypeAdapter

from mailpoller.core.message import Body

LENGTH = struct.Struct(">I")
LARGEST = 64 << 20
"""Octets of an answer at most: text and HTML are 5 MB each, in JSON up to six times that."""

_BODY = TypeAdapter(Body)


def question(size: int, path: str | None, *, header: bool) -> bytes:
    """A frame that asks for a message to be parsed, and for its body; with ``header`` for that to be parsed and no
    more. ``path``: the spool file that holds the message; None: its ``size`` octets follow the frame."""
    return frame({"header": header, "size": size, "path": path})


def answer(body: Body) -> bytes:
    """The frame with a body."""
    return frame({"body": body})


def refusal(reason: str) -> bytes:
    """The frame that says in one word why there is no body."""
    return frame({"refused": reason})


def frame(value: Any) -> bytes:
    """A value in JSON behind its length."""
    text = orjson.dumps(value)
    return LENGTH.pack(len(text)) + text


def body_of(text: bytes) -> Body | str:
    """The body of an answer, or why there is none. Raises :class:`ValueError` for what no worker of ours says."""
    found = orjson.loads(text)
    if not isinstance(found, dict):
        raise ValueError("an answer is an object")
    if isinstance(reason := found.get("refused"), str):
        return reason
    return _BODY.validate_python(found.get("body"), strict=False)
