"""Short mails whose class is known, made after what programs and people really send, in many languages.

``mails()`` gives (class, name, octets). None of them is anybody's mail: names and addresses are invented.
"""

from __future__ import annotations

from collections.abc import Iterator

from labelled import answers, bounces, people, programs, strangers

Labelled = tuple[str, str, bytes]


def mails() -> list[Labelled]:
    """All of them; no name twice."""
    return list(_mails())


def _mails() -> Iterator[Labelled]:
    for module in (bounces, answers, programs, people, strangers):
        yield from module.mails()
