"""How well the classes are found: the project's own labelled mails, a row per class.

found    mails of the class that are called so
others   mails of other classes that are called so
us       microseconds to classify one of them, header parsed, median

  classes.py            the table of docs/performance.md
  classes.py --missed   and each mail that is called something else, with the evidence
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from rig.table import median, table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import labelled
from mailpoller.core.classification import MAIL_CLASSES
from odd_mail.reading import read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missed", action="store_true", help="show each mail that is called something else")
    missed = parser.parse_args().missed
    total, found, others = Counter[str](), Counter[str](), Counter[str]()
    cost: dict[str, list[float]] = defaultdict(list)
    for label, name, octets in labelled.mails():
        message = read(octets)
        began = time.perf_counter()
        said = message.classification
        cost[label].append((time.perf_counter() - began) * 1e6)
        total[label] += 1
        if said.kind == label:
            found[label] += 1
            continue
        others[said.kind] += 1
        if missed:
            print(f"{label}, {name}: {said.kind} {said.subclass} by {', '.join(said.evidence)}")
    rows = [
        [kind, total[kind], found[kind], f"{100 * found[kind] / total[kind]:.1f} %", others[kind], median(cost[kind])]
        for kind in MAIL_CLASSES
    ]
    print(table(["class", "mails", "found", "of them", "others", "us"], rows))


if __name__ == "__main__":
    main()
