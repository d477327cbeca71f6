"""How well replies are told from quotes and signatures: the project's own labelled texts, a row per kind.

right    texts of which reply, quotes and signature are found as they were made, to the character
lost     texts of which something of the reply was taken for a quote or a signature
us       microseconds to split one of them, by processor time, median

  replies.py            the table of docs/performance.md
  replies.py --missed   and each text that is split otherwise
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from rig.table import median, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from labelled import replies
from mailpoller.mail.understand.reply import split

ROUNDS = 50


def spans(pieces: tuple[replies.Piece, ...]) -> tuple[str, dict[str, tuple[int, int]]]:
    """The text, and where its pieces are without the white space around them."""
    text, found = "", {}
    for kind, words in pieces:
        start = len(text) + len(words) - len(words.lstrip())
        text += words
        found[kind] = (start, len(text.rstrip()))
    return text, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missed", action="store_true", help="show each text that is split otherwise")
    missed = parser.parse_args().missed
    total, right, lost = Counter[str](), Counter[str](), Counter[str]()
    languages: dict[str, set[str]] = defaultdict(set)
    cost: dict[str, list[float]] = defaultdict(list)
    for kind, language, pieces in replies.texts():
        text, wanted = spans(pieces)
        began = time.process_time()
        for _ in range(ROUNDS):
            said = split(text)
        cost[kind].append((time.process_time() - began) / ROUNDS * 1e6)
        found = {"reply": said.reply, "quoted": said.quoted, "signature": said.signature}
        total[kind] += 1
        languages[kind].add(language)
        right[kind] += {key: span for key, span in found.items() if span is not None} == wanted
        lost[kind] += said.reply[0] > wanted["reply"][0] or said.reply[1] < wanted["reply"][1]
        if missed and {key: span for key, span in found.items() if span is not None} != wanted:
            print(f"--- {kind}, {language}: {found} and not {wanted}\n{text}")
    rows = [
        [kind, total[kind], len(languages[kind]), right[kind], f"{100 * right[kind] / total[kind]:.1f} %", lost[kind],
         median(cost[kind])]
        for kind in total
    ]  # fmt: skip
    print(table(["kind", "texts", "languages", "right", "of them", "lost", "us"], rows))


if __name__ == "__main__":
    main()
