"""IMAP servers that mean harm, or have lost their mind."""

from __future__ import annotations

from collections.abc import Callable

from rig.rude import Said, Wire
from rig.scenario import HUGE, MILLION, SCENARIOS, Scenario, after, scenario


@scenario("imap")
def imap_greeting_drip(wire: Wire) -> None:
    wire.drip(b"* OK " + b"x" * 10_000)


@scenario("imap")
def imap_early_line(wire: Wire) -> None:
    wire.say(b"* OK ")
    wire.flood(b"x")


@scenario("imap")
def imap_early_quoted(wire: Wire) -> None:
    wire.imap({"CAPABILITY": b'* 1 FETCH (X "' + rb"\x" * (HUGE // 2 - 100) + b'")\r\n%T OK ok\r\n'})


@scenario("imap")
def imap_early_ok(wire: Wire) -> None:
    wire.say(b"* OK ready\r\n")
    wire.flood(b"* OK\r\n")


@scenario("imap")
def imap_early_capability(wire: Wire) -> None:
    wire.imap({"CAPABILITY": _flood(b"* CAPABILITY IMAP4rev1 " + b"X " * 1000 + b"\r\n")})


@scenario("imap")
def imap_early_literals(wire: Wire) -> None:
    wire.imap({"CAPABILITY": _flood(b"* LIST {65536}\r\n" + b"x" * 65536 + b"\r\n")})


@scenario("imap")
def imap_challenges(wire: Wire) -> None:
    wire.imap({"AUTHENTICATE": _flood(b"+ " + b"QUFB" * 1000 + b"\r\n")}, capabilities="IMAP4rev1 AUTH=PLAIN")


@scenario("imap")
def imap_scram(wire: Wire) -> None:
    nonsense = b"+ " + b"cj14LHM9" * 500 + b"\r\n"
    wire.imap({"AUTHENTICATE": nonsense}, capabilities="IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256")


@scenario("imap", folders=["Überall"])
def imap_list_flood(wire: Wire) -> None:
    wire.imap({"LIST": _flood(b'* LIST () "/" x\r\n')})


@scenario("imap", folders=["Elsewhere"])
def imap_quoted(wire: Wire) -> None:
    wire.imap({"LIST": b'* LIST () "/" "' + rb"\x" * (HUGE // 2 - 100) + b'"\r\n%T OK ok\r\n'})


@scenario("imap", folders=["Elsewhere"])
def imap_sequential_lists(wire: Wire) -> None:
    wire.imap({"LIST": b"* LIST (" + b"()" * (HUGE // 2 - 100) + b') "/" x\r\n%T OK ok\r\n'})


@scenario("imap", folders=["Elsewhere"])
def imap_atoms(wire: Wire) -> None:
    wire.imap({"LIST": b"* LIST (" + b"a " * (HUGE // 2 - 100) + b') "/" x\r\n%T OK ok\r\n'})


@scenario("imap", poll_interval="5s")
def imap_nested_lists(wire: Wire) -> None:
    wire.imap({"NOOP": b"* 1 FETCH (" + b"(" * (HUGE - 100) + b"\r\n%T OK ok\r\n"})


@scenario("imap", start="all")
def imap_esearch_ranges(wire: Wire) -> None:
    piece = b'* ESEARCH (TAG "%T") UID ALL 1:4999999\r\n'
    wire.imap({"SEARCH": piece * 300 + b"%T OK ok\r\n"}, exists=MILLION)


@scenario("imap", start="all")
def imap_esearch_widest(wire: Wire) -> None:
    wire.imap({"SEARCH": b'* ESEARCH (TAG "%T") UID ALL 1:4294967295\r\n%T OK ok\r\n'}, exists=MILLION)


@scenario("imap", start="all")
def imap_esearch_commas(wire: Wire) -> None:
    piece = b'* ESEARCH (TAG "%T") UID ALL ' + b"1," * (HUGE // 2 - 100) + b"1\r\n"
    wire.imap({"SEARCH": piece * 3 + b"%T OK ok\r\n"}, exists=MILLION)


@scenario("imap", start="all")
def imap_search_pieces(wire: Wire) -> None:
    piece = b"* SEARCH" + b" 7" * (HUGE // 2 - 100) + b"\r\n"
    wire.imap({"SEARCH": piece * 3 + b"%T OK ok\r\n"}, exists=MILLION)


@scenario("imap", start="all")
def imap_search_flood(wire: Wire) -> None:
    wire.imap({"SEARCH": _flood(b"* SEARCH 7\r\n")}, exists=MILLION)


@scenario("imap", start="all")
def imap_fetch_lines(wire: Wire) -> None:
    def lines(wire: Wire, tag: str, arguments: str) -> None:
        for first in range(1, 1 << 32, 1000):
            say = [b"* %d FETCH (UID %d RFC822.SIZE 100)\r\n" % (uid, uid) for uid in range(first, first + 1000)]
            wire.say(b"".join(say))

    wire.imap({"FETCH": lines}, exists=100)


@scenario("imap", start="all")
def imap_contradictions(wire: Wire) -> None:
    """Each question is answered otherwise, and by all that there can be."""

    def fetch(wire: Wire, tag: str, arguments: str) -> bytes:
        if "SIZE" in arguments:
            return b"* 500000 FETCH (UID 1 RFC822.SIZE 1)\r\n%T OK ok\r\n"
        for first in range(1, MILLION, 1000):
            wire.say(b"".join(b"* %d FETCH (UID %d)\r\n" % (one, 2 * one) for one in range(first, first + 1000)))
        return b"%T OK ok\r\n"

    wire.imap({"FETCH": fetch, "SEARCH": b'* ESEARCH (TAG "%T") UID ALL 1:900000\r\n%T OK ok\r\n'}, exists=MILLION)


@scenario("imap", quiet=True, start="all")
def imap_dates(wire: Wire) -> None:
    """An unreadable date is no date."""
    line = b'* 1 FETCH (UID 1 RFC822.SIZE 10 INTERNALDATE "\xff1-\xe4\xe4\xe4-9999 99:99:99 +9999")\r\n%T OK ok\r\n'
    wire.imap({"FETCH": line}, exists=1)


def _flood(octets: bytes) -> Said:
    return lambda wire, tag, arguments: wire.flood(octets.replace(b"%T", tag.encode()))  # type: ignore[func-returns-value]


@scenario("imap", start="all")
def imap_endless_literal(wire: Wire) -> None:
    """A message that is announced with a few octets, and comes with four gigabytes."""

    def fetch(wire: Wire, tag: str, arguments: str) -> bytes:
        if "BODY" not in arguments:
            return b'* 1 FETCH (UID 1 RFC822.SIZE 100 INTERNALDATE " 1-Feb-2026 03:04:05 +0000")\r\n%T OK ok\r\n'
        wire.say(b"* 1 FETCH (UID 1 BODY[] {4294967295}\r\n")
        wire.flood(b"x" * 76 + b"\r\n")
        return b""

    wire.imap({"FETCH": fetch, "SEARCH": b"* SEARCH 1\r\n%T OK ok\r\n"}, exists=1)


@scenario("imap", quiet=True, start="all")
def imap_answer_drip(wire: Wire) -> None:
    """An octet a second, and never the end of a line."""

    def drip(wire: Wire, tag: str, arguments: str) -> bytes:
        wire.drip(b"* 1 FETCH (UID 1 X " + b"x" * 10_000)
        return b""

    wire.imap({"FETCH": drip, "SEARCH": drip}, exists=100)


@scenario("imap")
def imap_idle_line(wire: Wire) -> None:
    """In IDLE a line without an end."""

    def flood(wire: Wire, tag: str, arguments: str) -> bytes:
        wire.say(b"+ idling\r\n* OK ")
        wire.flood(b"x")
        return b""

    wire.imap({"IDLE": flood})


def _in_idle(octets: bytes) -> Callable[[Wire], None]:
    return lambda wire: wire.imap({"IDLE": after(b"+ idling\r\n", octets)})


def _outside(octets: bytes) -> Callable[[Wire], None]:
    return lambda wire: wire.imap({"NOOP": _flood(octets)})


_UNASKED = {
    "ok": b"* OK still here\r\n",
    "exists": b"* 5 EXISTS\r\n* 6 EXISTS\r\n",
    "fetch": b"* 1 FETCH (FLAGS (\\Seen))\r\n",
    "expunge": b"* 1 EXPUNGE\r\n",
    "list": b'* LIST () "/" x\r\n',
    "vanished": b"* VANISHED 1:4999999\r\n",
    "copyuid": b"* OK [COPYUID 7 1:4999999 1:4999999] ok\r\n",
    "alert": b"* OK [ALERT] " + b"look " * 1000 + b"\r\n",
}
for _name, _octets in _UNASKED.items():
    SCENARIOS[f"imap-idle-{_name}"] = Scenario(f"imap-idle-{_name}", "imap", _in_idle(_octets))
    SCENARIOS[f"imap-noop-{_name}"] = Scenario(
        f"imap-noop-{_name}", "imap", _outside(_octets), settings={"poll_interval": "5s"}
    )


@scenario("imap", quiet=True)
def imap_news(wire: Wire) -> None:
    """Always news, and never a message."""

    wire.imap({"IDLE": b"+ idling\r\n* 1 EXISTS\r\n", "DONE": b"* 0 EXISTS\r\n%T OK ok\r\n"})


@scenario("imap", quiet=True, start="all")
def imap_phantoms(wire: Wire) -> None:
    """Always a new message, and never its octets."""

    def select(wire: Wire, tag: str, arguments: str) -> bytes:
        words = b"* %d EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n* OK [UIDNEXT %d] ok\r\n%%T OK [READ-WRITE] ok\r\n"
        return words % (count, count + 1)

    def idle(wire: Wire, tag: str, arguments: str) -> bytes:
        nonlocal count
        count += 1
        return b"+ idling\r\n* %d EXISTS\r\n" % count

    def fetch(wire: Wire, tag: str, arguments: str) -> bytes:
        if "SIZE" not in arguments:
            return b"%T OK ok\r\n"
        low = max(1, int(arguments.partition(":")[0].partition(",")[0].partition(" ")[0].replace("*", str(count))))
        lines = (b"* %d FETCH (UID %d RFC822.SIZE 100)\r\n" % (uid, uid) for uid in range(low, count + 1))
        return b"".join(lines) + b"%T OK ok\r\n"

    count = 1
    wire.imap({"IDLE": idle, "FETCH": fetch, "SELECT": select, "SEARCH": b"* SEARCH\r\n%T OK ok\r\n"})


@scenario("imap", quiet=True, start="all")
def imap_million_phantoms(wire: Wire) -> None:
    """A million messages, and the octets of none."""

    def fetch(wire: Wire, tag: str, arguments: str) -> bytes:
        words, _, items = arguments.partition(" ")
        if "SIZE" in items:
            for part in words.split(","):
                low, _, high = part.partition(":")
                uids = range(int(low.replace("*", "1000000")), int((high or low).replace("*", "1000000")) + 1)
                wire.say(b"".join(b"* %d FETCH (UID %d RFC822.SIZE 100)\r\n" % (uid, uid) for uid in uids))
        return b"%T OK ok\r\n"

    def search(wire: Wire, tag: str, arguments: str) -> bytes:
        return b'* ESEARCH (TAG "%T") UID' + b" ALL 1:1000000" * ("1:*" in arguments) + b"\r\n%T OK ok\r\n"

    wire.imap({"FETCH": fetch, "SEARCH": search}, exists=MILLION)
