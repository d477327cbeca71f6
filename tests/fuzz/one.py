"""Works on one target in a process of its own: ``python -m fuzz.one TARGET SECONDS PLACE``, or ``--replay FILE …``.

With atheris, which sees what an input reaches and keeps what reaches more; without it, inputs are made of the seeds at
random. Either way it does not end at the first finding: each kind is kept once, as a file in PLACE, and what became of
it all is in PLACE/told.json, written every second, since libFuzzer ends the process as it likes.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
import traceback
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

SLOWEST = 1.0
"""Seconds of the processor that an input may take. Instrumented code is slower: what is found slow is tried again
without."""
MEGABYTES = 500
LARGEST = 1 << 16


class Watch:
    """Feeds a target, and notes what it does."""

    def __init__(self, name: str, place: Path) -> None:
        from fuzz.targets import TARGETS

        self._target, self._place = TARGETS[name], place
        self.runs = 0
        self.slowest = 0.0
        self.findings: dict[str, str] = {}
        self._begun = self._told = time.monotonic()
        self._most = max(MEGABYTES, peak() + 100)  # the process may have done something else before

    def feed(self, data: bytes) -> None:
        """Run the target once; it raises nothing."""
        begun = time.process_time()
        try:
            self._target(data)
        except (Exception, RecursionError) as error:
            self._keep(where(error), data)
        elapsed = time.process_time() - begun
        self.runs += 1
        self.slowest = max(self.slowest, elapsed)
        if elapsed > SLOWEST:
            self._keep("slow", data)
        if peak() > self._most:
            self._keep("memory", data)
            self.tell()
            sys.exit(1)
        if time.monotonic() - self._told > 1.0:
            self.tell()

    def tell(self) -> None:
        """Write down how it stands."""
        self._told = time.monotonic()
        told = {
            "runs": self.runs, "seconds": self._told - self._begun, "slowest": self.slowest, "peak": peak(),
            "findings": self.findings,
        }  # fmt: skip
        (self._place / "told.json").write_text(json.dumps(told))

    def _keep(self, kind: str, data: bytes) -> None:
        if kind in self.findings:
            return
        self.findings[kind] = name = f"{sha256(data).hexdigest()[:16]}"
        (self._place / name).write_bytes(data)
        self.tell()


def where(error: BaseException) -> str:
    """The kind of an error and the innermost line of ours that it passed."""
    steps = traceback.extract_tb(error.__traceback__)
    own = [step for step in steps if "mailpoller" in Path(step.filename).parts] or steps
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}"


def peak() -> int:
    """The most memory that this process had since :func:`measured_anew`, in MB."""
    return _status("VmHWM")


def measured_anew() -> int:
    """From now on :func:`peak` counts; the memory that the process has, in MB: other tests may have left much."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return _status("VmRSS")


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii", "replace"), re.MULTILINE)
    assert found is not None
    return int(found[1]) // 1024


# --- without atheris -------------------------------------------------------------------------------------------------
def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Something like the seeds."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randint(0, len(data))
        to = min(len(data), at + rng.choice((1, 2, 4, 16, 200)))
        match rng.randrange(8):
            case 0:
                data[at:to] = rng.randbytes(to - at)
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = data[at:to] * rng.choice((1, 2, 50, 1000))
            case 3:
                other = rng.choice(seeds)
                start = rng.randint(0, len(other))
                data[at:to] = other[start : start + rng.choice((4, 40, 4000))]
            case 4:
                data[at:at] = rng.choice(_WORDS)
            case 5 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 6:
                data[at:at] = str(rng.choice((0, 1, -1, 255, 2**31, 2**32, 2**63, 10**30))).encode()
            case _:
                data[:] = data[:at] + rng.choice(seeds)
    return bytes(data[:LARGEST])


_WORDS = (
    b"\r\n", b"\n", b"\r", b"\0", b"\xff", b'"', b"\\", b"(", b")", b"{", b"}", b"[", b"]", b"<", b">", b",", b";",
    b":", b"=?utf-8?b?", b"?=", b"=", b"%", b"'", b"*", b"&", b"--", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"\xed\xa0\x80",
    b"9999999999", b"-1", b"1e400", b"0x", b".inf", b"NIL", b"charset=", b"boundary=", b"+AGE-", b"&AGE-",
)  # fmt: skip


def at_random(watch: Watch, seeds: Sequence[bytes], seconds: float) -> None:
    rng, deadline = random.Random(), time.monotonic() + seconds
    for seed in seeds:
        watch.feed(seed)
    while time.monotonic() < deadline:
        watch.feed(mutated(rng, seeds))
    watch.tell()


# --- with it ---------------------------------------------------------------------------------------------------------
def guided(name: str, place: Path, seconds: float) -> None:
    import atheris

    with atheris.instrument_imports(include=["mailpoller", "spnego", "email"]):
        import fuzz.targets
    watch = Watch(name, place)
    corpus, begin = place / "corpus", place / "seeds"
    for directory in (corpus, begin):
        directory.mkdir()
    for title, octets in fuzz.targets.seeds(name).items():
        (begin / title).write_bytes(octets)
    atheris.Setup(
        [
            "fuzz", str(corpus), str(begin), f"-max_total_time={seconds:.0f}", "-timeout=60", f"-max_len={LARGEST}",
            f"-rss_limit_mb={MEGABYTES}", f"-artifact_prefix={place}/", "-verbosity=0", "-len_control=20",
        ],
        watch.feed,
    )  # fmt: skip
    atheris.Fuzz()


def replayed(name: str, files: Sequence[Path]) -> None:
    """Print, for each file, what it does: empty if it does nothing that it must not."""
    from fuzz.targets import TARGETS

    for file in files:
        begun, found = time.process_time(), ""
        try:
            TARGETS[name](file.read_bytes())
        except (Exception, RecursionError) as error:
            found = where(error)
        elapsed = time.process_time() - begun
        found = found or (f"slow: {elapsed:.1f} s" if elapsed > SLOWEST else "")
        print(found or (f"memory: {peak()} MB" if peak() > MEGABYTES else ""))


def main() -> None:
    name, *words = sys.argv[1:]
    if words[0] == "--replay":
        replayed(name, [Path(word) for word in words[1:]])
        return
    seconds, place = float(words[0]), Path(words[1])
    try:
        import atheris  # noqa: F401
    except ImportError:
        from fuzz.targets import seeds

        at_random(Watch(name, place), list(seeds(name).values()), seconds)
    else:
        guided(name, place, seconds)


if __name__ == "__main__":
    main()
