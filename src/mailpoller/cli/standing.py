"""What ``mailpoller status`` shows of a report: which of it, in which order, and how it is drawn."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from mailpoller.cli.exits import refuse
from mailpoller.cli.output import age, coloured, cut, one_line, print_fields, print_table
from mailpoller.core.record import record

if TYPE_CHECKING:
    from mailpoller.config import Config

COLUMNS = 80
"""A terminal that does not say how wide it is is taken for so wide."""
NAME_WIDTH = 30
SOON = timedelta(days=30)
"""A credential that ends within this is not well."""
WORST = ("no daemon", "refused", "held", "behind", "down", "retrying", "probing", "starting", "paused", "up", "unused")
"""States in the order in which they are shown; others come last."""
_COLOURS = {
    "up": "green", "retrying": "yellow", "probing": "yellow", "starting": "yellow", "paused": "yellow",
    "refused": "red", "held": "red", "behind": "red", "down": "red", "no daemon": "red",
}  # fmt: skip


@record
class Filter:
    """Which part of a report is wanted."""

    name: str | None = None
    failing: bool = False
    inbound: bool = False
    outbound: bool = False
    department: str | None = None
    host: str | None = None
    search: str | None = None

    def require_known(self, config: Config, report: Mapping[str, Any]) -> None:
        """Refuse a name, a department or a host that nothing has: it is probably mistyped."""
        from mailpoller.config.problems import did_you_mean

        known = {*config.mailboxes, *config.queues, *config.outgoing, *(box["mailbox"] for box in report["mailboxes"])}
        known |= {queue["queue"] for queue in report["queues"]}
        departments = {one for block in config.mailboxes.values() for one in block.departments}
        hosts = {_host(block) for block in (*config.mailboxes.values(), *config.outgoing.values())}
        for what, wanted, names in (
            ("mailbox, queue or outgoing", self.name, known),
            ("department", self.department, departments),
            ("host", self.host, hosts),
        ):
            if wanted is not None and wanted not in names:
                refuse(f"there is no {what} {wanted}{did_you_mean(wanted, sorted(names))}")

    def of(self, report: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """The part. What says how the whole is (``ok``, ``line``) stays."""
        part = dict(report)
        narrowed = self.department is not None or self.search is not None or self.host is not None
        boxes = [] if self.outbound and not self.inbound else report["mailboxes"]
        outgoings = [] if self.inbound and not self.outbound else report["outgoings"]
        queues = [] if self.inbound or self.outbound or narrowed else report["queues"]
        if self.department is not None:
            outgoings = []
        part["mailboxes"] = sorted(
            (box for box in boxes if self._wants_box(box, config)),
            key=lambda box: (_rank(box["state"]), box.get("last_poll_at") or "", box["mailbox"]),
        )
        part["queues"] = [queue for queue in queues if self._wants(queue["queue"], queue["state"] == "up")]
        part["outgoings"] = [
            one
            for one in outgoings
            if self._wants(one["outgoing"], one["state"] in ("up", "unused"))
            and self._fits(one["host"], (one["outgoing"], one["sender"], one["host"]))
        ]
        names = {box["mailbox"] for box in part["mailboxes"]}
        part["hosts"] = [
            one
            for one in report.get("hosts", ())
            if not (self.name or self.failing or self.outbound or self.department or self.search)
            and self.host in (None, one["host"])
        ]
        if narrowed or self.name is not None or self.inbound or self.outbound:
            part["credentials"] = []
        elif self.failing:
            soon = (datetime.now(UTC) + SOON).isoformat()
            part["credentials"] = [one for one in report.get("credentials", ()) if one["ends_at"] < soon]
        part["stuck"] = [one for one in report["stuck"] if one["mailbox"] in names]
        if self.name is not None:
            part["alarms"] = [alarm for alarm in report["alarms"] if self._names(alarm["key"].partition(":")[2])]
        return part

    def _wants_box(self, box: Mapping[str, Any], config: Config) -> bool:
        well = box["state"] in ("up", "not polled") or (box["state"] == "no daemon" and not box["reason"])
        if not self._wants(box["mailbox"], well):
            return False
        block = config.mailboxes.get(box["mailbox"])
        if block is None:
            return not (self.department or self.host or self.search)
        if self.department is not None and self.department not in block.departments:
            return False
        addresses = [block.address] if isinstance(block.address, str) else block.address or []
        user = str(getattr(block, "username", None) or getattr(block, "user", None) or "")
        return self._fits(_host(block), (box["mailbox"], _host(block), user, *addresses, *block.departments))

    def _wants(self, name: str, well: bool) -> bool:
        return (self.name is None or name == self.name) and not (self.failing and well)

    def _fits(self, host: str, words: Iterable[str]) -> bool:
        if self.host is not None and host != self.host:
            return False
        return self.search is None or any(self.search.casefold() in word.casefold() for word in words)

    def _names(self, subject: str) -> bool:
        return subject == self.name or subject.startswith(f"{self.name}/")


def _host(block: object) -> str:
    """Where it is: the host, or what stands for one at a service."""
    return str(getattr(block, "host", None) or getattr(block, "type", ""))


def _rank(state: str) -> int:
    return WORST.index(state) if state in WORST else len(WORST)


def outgoings_of(config: Config, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The outgoings: who sends by each, and whether the queues among them are up, as far as a daemon says."""
    from mailpoller.config.fields import references_of
    from mailpoller.config.sections import INTAKES

    states = {queue["queue"]: queue for queue in report["queues"]}
    replies = {one["identity"]: one for one in report.get("outbox", ())}
    answering = {one.outgoing for one in config.mailboxes.values()} if config.of(INTAKES) else set()
    told = [
        {"outgoing": name, "state": "held", "type": "", "host": "", "sender": "", "used_by": ["replies"], "reason": why}
        for name, why in ((one["identity"], one["reason"]) for one in replies.values())
        if name not in config.outgoing
    ]
    for name, block in config.outgoing.items():
        users = [
            queue
            for queue, sink in config.queues.items()
            if any(section == "outgoing" and found == name for _, section, found in references_of(sink))
        ]
        down = [states[queue] for queue in users if states.get(queue, {}).get("state") == "down"]
        alerts = config.alerts is not None and config.alerts.outgoing == name
        used_by = [f"queue {queue}" for queue in users] + (["alerts"] if alerts else [])
        used_by += ["replies"] if name in answering or name in replies else []
        state = "down" if down else "no daemon" if "pid" not in report else "up" if used_by else "unused"
        reasons = [f"{queue['queue']}: {queue['reason']}" for queue in down]
        if (hindered := replies.get(name)) is not None:
            state = "down" if down else hindered["state"]
            reasons.append(f"replies: {hindered['reason']}")
        told.append(
            {
                "outgoing": name,
                "state": state,
                "type": block.type,
                "host": _host(block),
                "sender": str(getattr(block, "sender", "") or ""),
                "used_by": used_by,
                "reason": "; ".join(reasons),
            }
        )
    return sorted(told, key=lambda one: (_rank(str(one["state"])), one["outgoing"]))


def shown(part: Mapping[str, Any], name: str | None) -> None:
    """Draw it: ages instead of instants, and nothing wider than the terminal."""
    now = datetime.now(UTC)
    line = one_line(part["line"])
    typer.echo(_coloured(part["level"], cut(line, _width()) if sys.stdout.isatty() else line))
    if name is not None:
        _details(part, now)
        return
    _listed(
        "mailbox",
        [(box["mailbox"], box["state"], _box_figures(box, now), box["reason"]) for box in part["mailboxes"]],
        ("polled", "waiting", "to dispose", "next try"),
    )
    _listed(
        "queue",
        [
            (queue["queue"], queue["state"], [_durable(queue)], queue["reason"])
            for queue in part["queues"]
            if _worth_a_line(queue)
        ],
        ("receipts",),
    )
    _listed(
        "outgoing",
        [(one["outgoing"], one["state"], [one["sender"]], one["reason"]) for one in part["outgoings"]],
        ("sender",),
    )
    _listed(
        "stuck",
        [(one["mailbox"], one["what"], [age(one["since"], now), one["mid"]], one["reason"]) for one in part["stuck"]],
        ("since", "mid"),
    )
    if part.get("hosts"):
        _listed(
            "host",
            [
                (
                    one["host"],
                    "limited",
                    [
                        _of(one["sessions"], one["sessions_limit"]),
                        _of(one["logins_last_minute"], one["logins_limit"]),
                        f"{one['commands']:,}",
                        _wait(one),
                    ],
                    "",
                )
                for one in part["hosts"]
            ],
            ("sessions", "logins/min", "commands", "waited"),
        )
    if part.get("credentials"):
        _listed(
            "credential",
            [
                (one["credential"], "ended" if _ended(one, now) else "good", [_left(one, now)], "")
                for one in part["credentials"]
            ],
            ("ends",),
        )
    _listed(
        "alarm",
        [
            (*reversed(alarm["key"].partition(":")[::2]), [age(alarm["raised_at"], now)], alarm["summary"])
            for alarm in part["alarms"]
        ],
        ("since",),
    )


def _of(used: int, limit: int) -> str:
    return f"{used:,} of {limit:,}" if limit else f"{used:,}"


def _wait(host: Mapping[str, Any]) -> str:
    seconds = host["commands_waited_s"]
    return f"{seconds:,.0f} s" if host["commands_limit"] or seconds else ""


def _ended(credential: Mapping[str, Any], now: datetime) -> bool:
    return datetime.fromisoformat(credential["ends_at"]) <= now


def _left(credential: Mapping[str, Any], now: datetime) -> str:
    end = datetime.fromisoformat(credential["ends_at"])
    return f"{age(end, now)} ago" if end <= now else f"in {age(now, end)}"


def _worth_a_line(queue: Mapping[str, Any]) -> bool:
    return queue["state"] != "up" or bool(queue.get("concerns")) or bool(_durable(queue))


def _durable(queue: Mapping[str, Any]) -> str:
    """What its receipts are worth in a power cut, in a word; empty as long as nobody looked."""
    return str((queue.get("durability") or {}).get("finding", ""))


def _box_figures(box: Mapping[str, Any], now: datetime) -> list[str]:
    counts = box["ledger"]
    waiting = counts.get("deferred", 0) + counts.get("claimed", 0) + box.get("unfetched", 0)
    tried = box.get("next_try_at")
    return [
        age(box["last_poll_at"], now),
        f"{waiting:,}",
        f"{counts.get('undisposed', 0):,}",
        f"in {age(now, datetime.fromisoformat(tried))}" if tried else "",
    ]


def _listed(what: str, rows: Sequence[tuple[str, str, list[str], str]], more: Sequence[str]) -> None:
    """A table of one kind of thing. In a pipe the whole of it, tab-separated; on a terminal as it fits, the reason on
    a line of its own."""
    if not rows:
        return
    columns = (what, "state", *more, "reason")
    if not sys.stdout.isatty():
        print_table(columns, [(name, state, *figures, reason) for name, state, figures, reason in rows], empty="")
        return
    widths = [max(len(header), *(len(one_line(row[2][number])) for row in rows)) for number, header in enumerate(more)]
    state_width = max(len("state"), *(len(state) for _, state, _, _ in rows))
    room = max(10, _width() - 2 - state_width - sum(width + 2 for width in widths))
    name_width = min(max(len(what), *(len(one_line(row[0])) for row in rows)), room, NAME_WIDTH)
    header = f"{what:<{name_width}}  {'state':<{state_width}}" + _columns(more, widths)
    typer.echo("\n" + _bold(cut(header, _width())))
    for name, state, figures, reason in rows:
        plain = f"{cut(one_line(name), name_width):<{name_width}}  "
        rest = _columns([one_line(figure) for figure in figures], widths)
        typer.echo(plain + _coloured(state, f"{state:<{state_width}}") + cut(rest, _width() - len(plain) - state_width))
        if reason:
            typer.echo("    " + cut(one_line(reason), _width() - 4))


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"  {cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _details(part: Mapping[str, Any], now: datetime) -> None:
    """All that is known of what bears one name, a line each."""
    for section in ("mailboxes", "queues", "outgoings", "stuck", "alarms"):
        for one in part[section]:
            typer.echo()
            shown = {key: value for key, value in one.items() if key != "rules"}
            print_fields({key.replace("_", " "): _told(key, value, now) for key, value in shown.items()})
            if one.get("rules"):
                typer.echo()
                rows = [
                    (rule["rule"], f"{rule['mean_us']:,.1f} µs", f"{rule['worst_us']:,.1f} µs", f"{rule['timed']:,}")
                    for rule in one["rules"]
                ]
                print_table(("rule", "mean", "worst", "messages timed"), rows, empty="")


def _told(key: str, value: Any, now: datetime) -> Any:
    if value and (key.endswith("_at") or key == "since"):
        then = datetime.fromisoformat(value)
        return f"in {age(now, then)} ({value})" if then > now else f"{age(value, now)} ago ({value})"
    if isinstance(value, dict):
        return {name: what for name, what in value.items() if what not in (None, "")}
    return value


def _width() -> int:
    return max(40, shutil.get_terminal_size((COLUMNS, 24)).columns)


def _coloured(state: str, text: str) -> str:
    colour = _COLOURS.get(state, {"warning": "yellow", "critical": "red"}.get(state, ""))
    return coloured(text, colour) if colour and sys.stdout.isatty() else text


def _bold(text: str) -> str:
    return coloured(text, "reset")
