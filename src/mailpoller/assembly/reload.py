"""Another configuration while the service runs: checked whole, and then only what changed is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from functools import partial

import structlog

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.lacking import Lacking
from mailpoller.assembly.plans import Rules, awaited, bare_plan, limit_hosts, plan_of, recipe_of, set_up_quarantine
from mailpoller.assembly.reloaded import Reloaded
from mailpoller.assembly.removals import Removals
from mailpoller.assembly.secret_marks import SecretMarks
from mailpoller.config import Config
from mailpoller.config.difference import Change, changes, left_behind, taken_over
from mailpoller.config.registry import installed_now
from mailpoller.config.sections import ALERTS, MAILBOXES, OUTGOING, QUARANTINE, QUEUES, noun_of
from mailpoller.core.component import OutgoingConfig
from mailpoller.core.errors import ConfigError, MailpollerError, machine_trouble
from mailpoller.engine.health import Condition
from mailpoller.engine.schedule import Policy

log = structlog.get_logger(__name__)

NEWLY_INSTALLED = "plug-ins or versions that were installed or removed since the start"


class Reload:
    """Brings a fleet from one configuration to another.

    ``holding`` is what holds now: the configuration that was read last, but for what needs a restart, and for what
    could not be done. ``load`` reads the files, in a thread. ``only``: the one mailbox that this process polls.
    ``heed`` is told of what holds after every reload.
    """

    def __init__(
        self,
        holding: Config,
        fleet: Fleet,
        lacking: Lacking,
        load: Callable[[], Config],
        *,
        only: str | None = None,
        heed: Callable[[Config], None] = lambda _: None,
    ) -> None:
        self._heed = heed
        self.holding = holding
        self._fleet = fleet
        self._lacking = lacking
        self._load = load
        self._only = only
        self._removals = Removals(fleet)
        self._installed: frozenset[tuple[str, str, str]] | None = None
        self._marks: SecretMarks | None = None
        self._failed: dict[str, str] = {}
        self._parts: list[str] = []

    async def begin(self) -> None:
        """Remember which plug-ins there are and which secrets, so that a reload knows others."""
        self._installed = await asyncio.to_thread(installed_now)
        self._marks = await asyncio.to_thread(SecretMarks, self.holding)

    async def run(self, *, dry_run: bool = False, remove: Collection[str] = ()) -> Reloaded:
        """Read the configuration anew, and unless this is a dry run make it hold. Never raises but
        :class:`LedgerUnavailable`, before anything is changed.

        ``remove``: names that may go although they are in use or hold something.
        """
        now = self._fleet.ports.runtime.clock.now()
        restart = await self._newly_installed()
        try:
            read = await asyncio.to_thread(self._load)
            found = await asyncio.to_thread(changes, self.holding, read)
        except ConfigError as error:
            problems = tuple(getattr(error, "problems", ())) or (str(error),)
            return Reloaded(now, "bad", problems=problems, restart=tuple(restart))
        except Exception as error:  # a parser's, or a plug-in's: the service goes on with what it has
            reason = machine_trouble(error)
            if reason is None:
                log.exception("reload.crashed", part="configuration")
            words = reason or f"it cannot be read: {type(error).__name__}; the log has more"
            return Reloaded(now, "bad", problems=(words,), restart=tuple(restart))
        read.hold_as(self.holding)
        target = taken_over(self.holding, read)
        restart += [_needing(one) for one in found if one.restart]
        refusals = [
            f"{section} still names the {noun_of(of)} {name}, and a change of {section} needs a restart"
            for section, of, name in await asyncio.to_thread(list, left_behind(target))
        ]
        refusals += await self._removals.refusals(self.holding, target, remove)
        report = Reloaded(now, "refused" if refusals else "same", tuple(found), tuple(restart), tuple(refusals))
        if not refusals:
            missing = await asyncio.to_thread(read.missing)
            report = report.but(problems=(*read.warnings, *missing), outcome="applied" if found else "same")
        if refusals or dry_run:
            return report
        self._failed, self._parts = {}, []
        await self._carry_out(target)
        await self._tried("what lacks something", self._lacking.look)
        await self._ask_again_who_was_refused()
        waiting = tuple(f"{part}: {reason}" for part, reason in self._lacking.reasons.items())
        return report.but(
            outcome="partly" if self._failed else report.outcome,
            failed=tuple(f"{part}: {reason}" for part, reason in self._failed.items()),
            waiting=waiting,
            parts=tuple(self._parts),
        )

    # --- step by step ----------------------------------------------------------------------------------------------
    async def _carry_out(self, target: Config) -> None:
        """Outgoings, queues and mailboxes come in this order, and go in the other. Whatever fails, the rest is done,
        and ``holding`` is what was."""
        former, fleet, lacking = self.holding, self._fleet, self._lacking
        self.holding = target
        for name, outgoing in _sending(target).items():
            if name not in fleet.outgoings:
                await self._step(OUTGOING.key, name, partial(_now, lacking.outgoing, name, outgoing), former)
            elif former.outgoing.get(name) != outgoing:
                await self._step(OUTGOING.key, name, partial(lacking.replace_outgoing, name, outgoing), former)
        for name, sink in target.queues.items():
            if name not in former.queues:
                await self._step(QUEUES.key, name, partial(_now, lacking.queue, name, sink), former)
            elif former.queues[name] != sink:
                await self._step(QUEUES.key, name, partial(lacking.replace_queue, name, sink), former)
        if former.alerts != target.alerts:
            await self._step(ALERTS.key, "", partial(_now, self._redirect_alerts, target), former)
        if (former.quarantine, former.quarantine_store) != (target.quarantine, target.quarantine_store):
            await self._step(QUARANTINE.key, "", partial(_now, set_up_quarantine, target, fleet), former)
        fleet.awaited |= awaited(target)
        limit_hosts(target, fleet)
        await self._mailboxes(former, target)
        fleet.awaited = awaited(self.holding)
        for name in [name for name in former.queues if name not in target.queues]:
            lacking.forget(f"queue {name}")
            await self._step(QUEUES.key, name, partial(fleet.remove_queue, name), former)
        for name in [name for name in fleet.outgoings if name not in _sending(target)]:
            lacking.forget(f"outgoing {name}")
            await self._step(OUTGOING.key, name, partial(fleet.remove_outgoing, name), former)
        self._heed(self.holding)

    async def _mailboxes(self, former: Config, target: Config) -> None:
        fleet, lacking, rules = self._fleet, self._lacking, Rules(target, self._fleet.ports.runtime)
        wanted = [name for name in target.mailboxes if self._polled(target, name)]
        leaving = [name for name in fleet.parts if name not in wanted]
        for name in leaving:
            lacking.forget(f"mailbox {name}")
        if leaving:
            await self._several(leaving, partial(fleet.remove_mailboxes, leaving), former)
        others = await asyncio.to_thread(_others, former, target, wanted)
        changed = [name for name in others if name in fleet.parts]
        plans = {name: partial(plan_of, target, name, fleet, rules) for name in changed}
        if plans:
            await self._several(changed, partial(lacking.replace_mailboxes, plans), former)
        for name in wanted:
            if name not in fleet.parts:
                block = target.mailboxes[name]
                plan = partial(plan_of, target, name, fleet, rules)
                come = partial(_now, lacking.mailbox, name, plan, bare_plan(name, block))
                await self._step(MAILBOXES.key, name, come, former)
        self._note_idle(target)

    async def _ask_again_who_was_refused(self) -> None:
        """A login that was refused is tried at once if its secret is another now, and not otherwise: a server that
        has refused it might lock the account."""
        if self._marks is None:
            return
        before, self._marks = self._marks, await asyncio.to_thread(SecretMarks, self.holding)
        for name, watcher in self._fleet.watchers.items():
            refused = self._fleet.ports.health.mailboxes[name].condition is Condition.REFUSED
            if refused and self._marks.differs(before, name):
                watcher.insist()

    def _polled(self, config: Config, name: str) -> bool:
        return config.runs(name) and self._only in (None, name)

    def _note_idle(self, target: Config) -> None:
        """``status`` shows those that are not polled, and nothing of those that are not configured."""
        mailboxes = self._fleet.ports.health.mailboxes
        for name in [name for name in mailboxes if name not in self._fleet.parts and name not in target.mailboxes]:
            del mailboxes[name]
        if self._only is None:
            for name, block in target.mailboxes.items():
                if name not in self._fleet.parts and (reason := target.idle_reason(name)) is not None:
                    entry = self._fleet.ports.health.register(name, block.poll_interval)
                    entry.condition, entry.reason = Condition.NOT_POLLED, reason

    def _redirect_alerts(self, target: Config) -> None:
        alerts, fleet = target.alerts, self._fleet
        fleet.alerts = (alerts.outgoing or "") if alerts else ""
        fleet.ports.alarm.address(
            fleet.outgoings[fleet.alerts] if alerts else None,
            alerts.to if alerts else (),
            sender=alerts.sender if alerts else None,
            policy=Policy(reminder=alerts.reminder if alerts else None),
        )

    # --- one step --------------------------------------------------------------------------------------------------
    async def _step(self, section: str, name: str, work: Callable[[], Awaitable[object]], former: Config) -> None:
        part = f"{noun_of(section)} {name}" if name else section
        if await self._tried(part, work):
            self._parts.append(part)
        else:
            self._keep(section, name, former)

    async def _several(self, names: Iterable[str], work: Callable[[], Awaitable[object]], former: Config) -> None:
        """The same of mailboxes that change side by side."""
        names = list(names)
        if await self._tried("mailboxes " + ", ".join(names[:10]), work):
            self._parts += [f"mailbox {name}" for name in names]
            return
        for name in names:
            self._keep(MAILBOXES.key, name, former)

    async def _tried(self, part: str, work: Callable[[], Awaitable[object]]) -> bool:
        if self._fleet.ports.stop.is_set():
            self._failed[part] = "the service stops"
            return False
        try:
            await work()
        except MailpollerError as error:
            self._failed[part] = str(error)
        except Exception as error:
            self._failed[part] = machine_trouble(error) or f"{type(error).__name__}; the log has more"
            log.exception("reload.crashed", part=part)
        return part not in self._failed

    def _keep(self, section: str, name: str, former: Config) -> None:
        """This part is what it was, so the next reload finds the difference again."""
        was, now = former.made[section], self.holding.made[section]
        if not name:
            self.holding = self.holding.but(**{section: was})
            return
        made = {**now, name: was[name]} if name in was else {one: block for one, block in now.items() if one != name}
        overrides = {**self.holding.overrides, **{one: own for one, own in former.overrides.items() if one == name}}
        self.holding = replace(self.holding.but(**{section: made}), overrides=overrides)

    async def _newly_installed(self) -> list[str]:
        if self._installed is None:
            return []
        return [NEWLY_INSTALLED] if await asyncio.to_thread(installed_now) != self._installed else []


def _others(former: Config, target: Config, names: Iterable[str]) -> list[str]:
    """Those of these mailboxes that are to be polled otherwise than before."""
    return [
        name for name in names if name not in former.mailboxes or recipe_of(former, name) != recipe_of(target, name)
    ]


def _sending(config: Config) -> dict[str, OutgoingConfig]:
    """The outgoings that something is sent by."""
    return {name: block for name, block in config.outgoing.items() if block.enabled}


async def _now(work: Callable[..., None], *what: object) -> None:
    work(*what)


def _needing(change: Change) -> str:
    keys = ", ".join(key.key for key in change.keys)
    return f"{change.part}: {keys}" if keys else change.part
