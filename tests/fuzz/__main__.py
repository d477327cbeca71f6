"""All targets in turn, each for its share of the time: ``python -m fuzz [MINUTES] [TARGET …]``.

Ends with 1 if anything was found: an exception, an input that takes more than a second of the processor, more than
500 MB. Each finding is a file in ``fuzz-findings``, to be mended and put into the corpus.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from fuzz.targets import TARGETS

KEPT = Path("fuzz-findings")


def work(name: str, seconds: float) -> tuple[str, int]:
    """A line for the table, and how much was found."""
    with tempfile.TemporaryDirectory(prefix="mailpoller-fuzz-") as given:
        place = Path(given)
        command = [sys.executable, "-m", "fuzz.one", name]
        try:
            ended = subprocess.run(
                [*command, str(seconds), given], capture_output=True, text=True, timeout=seconds + 120, errors="replace"
            )
            code, last = ended.returncode, ended.stderr.strip().splitlines()[-1:]
        except subprocess.TimeoutExpired:
            code, last = -9, ["it did not come to an end"]
        told = json.loads((place / "told.json").read_text()) if (place / "told.json").exists() else {}
        files = {found: kind for kind, found in told.get("findings", {}).items()}
        # What libFuzzer itself ended for: out of memory, no end within a minute, a crash below Python.
        files |= {path.name: path.name.partition("-")[0] for path in place.glob("*-*") if path.is_file()}
        found = 0
        for file, kind in files.items():
            again = subprocess.run([*command, "--replay", str(place / file)], capture_output=True, text=True)
            word = again.stdout.strip() if again.returncode == 0 else f"died: {again.returncode}"
            if not word and kind in ("slow", "memory", "oom"):
                continue  # instrumentation is slow, and takes memory of its own
            found += 1
            (KEPT / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(place / file, KEPT / name / file)
            print(f"  {name}: {word or kind}: {KEPT / name / file}")
        if not told or (code not in (0, 1) and not found):
            print(f"  {name}: ended with {code}: {' '.join(last)}")
            found += 1
    runs, took = told.get("runs", 0), told.get("seconds", 0.0)
    slowest, most = told.get("slowest", 0.0), told.get("peak", 0)
    return f"| {name:<13} | {took:>7.0f} | {runs:>10,} | {slowest:>9.2f} | {most:>7} | {found:>8} |", found


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    names = sys.argv[2:] or list(TARGETS)
    print("with atheris" if find_spec("atheris") else "without atheris: at random")
    rows, found = [], 0
    for name in names:
        row, more = work(name, minutes * 60 / len(names))
        rows.append(row)
        found += more
    print("| target        | seconds |       runs | slowest s | peak MB | findings |")
    print("| ------------- | ------: | ---------: | --------: | ------: | -------: |")
    print("\n".join(rows))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
