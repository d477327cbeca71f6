"""Checks that need more than one block: names that lead nowhere, mailboxes that get in each other's way."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from mailpoller.config.acknowledging import acknowledging
from mailpoller.config.checked import Config
from mailpoller.config.fields import names_written, references_of
from mailpoller.config.merge import dangling, is_name
from mailpoller.config.node import Node
from mailpoller.config.problems import Problem, did_you_mean
from mailpoller.config.sections import BLOBS, CONVERSATIONS, INTAKES, OUTGOING, TESTS, noun_of
from mailpoller.config.wording import locate
from mailpoller.core.component import NO_OUTGOING, Block, SinkConfig
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.standing import ROOT
from mailpoller.mail.verp import return_address


def references(
    config: Config, names: Mapping[str, Iterable[str]], broken: Iterable[tuple[Node, type[Block]]]
) -> Iterator[Problem]:
    """Every name of another block must be one of ``names``: section -> all names in the files, also of broken blocks.

    ``broken``: blocks that are not in ``config``, since they are wrong; the names in them are checked all the same.
    """
    known = {section: set(given) for section, given in names.items()}
    for at, block in config.blocks():
        for loc, section, name in references_of(block):
            made = config.made[section] if at[0] == TESTS.key else ()  # tests may name what rules make
            if name not in known.get(section, ()) and name not in made:
                node, _ = locate(_node(config, at), loc)
                yield node.problem(dangling(noun_of(section), name, known.get(section, ())))
    for node, model in broken:
        for name_node, section in names_written(node, model):
            if name_node.value not in known.get(section, ()):
                name = str(name_node.value)
                yield name_node.problem(dangling(noun_of(section), name, known.get(section, ())))


def agreement(config: Config) -> Iterator[Problem]:
    """What blocks need beyond what their own class asks."""
    if QUARANTINE in config.queues:
        yield _node(config, ("queues", QUARANTINE)).problem("this name is taken by the quarantine itself")
    for at, block in config.blocks():
        for key in ("poll_interval", "reconnect_interval", "retry_interval"):
            if getattr(block, key, None) == timedelta(0):
                node, rest = locate(_node(config, at), (key,))
                yield node.problem("must be more than 0s", key=rest)
    if config.alerts is not None and config.alerts.outgoing is None:
        yield _node(config, ("alerts",)).problem(NO_OUTGOING, key="outgoing")
    yield from _departments(config)
    yield from _returns(config)
    yield from acknowledging(config)
    yield from _renames(config)
    yield from _circles(config)
    yield from _folders(config)
    yield from _fed(config)
    yield from _paths(config)
    yield from _envelopes(config)
    yield from _blobs(config)
    yield from _octets(config)


def disabled(config: Config, outgoings: Iterable[str]) -> Iterator[Problem]:
    """Alerts, queues and quarantines that are to be sent by an outgoing that sends nothing."""
    off = set(outgoings)
    for at, block in config.blocks():
        if at[0] == "mailboxes" and len(at) == 2:
            continue  # it does not send by it
        for loc, section, name in references_of(block):
            if section == "outgoing" and name in off:
                node, rest = locate(_node(config, at), loc)
                yield node.problem(f"the outgoing {name} is disabled: nothing is sent by it", key=rest)


def _departments(config: Config) -> Iterator[Problem]:
    """Every department has one default mailbox: its only one, or the one that says so. ``root``, where everybody is
    who names none, may have none."""
    serving: dict[str, list[str]] = {}
    default: dict[str, str] = {}
    for name, mailbox in config.mailboxes.items():
        node = _node(config, ("mailboxes", name))
        if name in config.incomplete:
            continue  # a template
        for department in mailbox.departments:
            serving.setdefault(department, []).append(name)
        for department in mailbox.default_for:
            written, rest = locate(node, ("default_for",))
            if department not in mailbox.departments:
                yield written.problem(f"the mailbox does not serve {department}", key=rest)
            elif (first := default.setdefault(department, name)) != name:
                yield written.problem(f"{department} has a default mailbox already: {first}", key=rest)
    broken = any(at[0] == "mailboxes" and at[1] not in config.mailboxes for at in config.places if len(at) == 2)
    for name, intake in ({} if broken else config.of(INTAKES) or {}).items():
        for department in [one for one in intake.departments if one not in serving]:
            written, rest = locate(_node(config, (INTAKES.key, name)), ("departments",))
            shown = did_you_mean(department, serving)
            yield written.problem(f"no mailbox serves {department}, so nothing can be sent for it{shown}", key=rest)
    for name, intake in (config.of(INTAKES) or {}).items():
        if (queue := config.queues.get(intake.events or "")) is not None and not queue.takes_events:
            written, rest = locate(_node(config, (INTAKES.key, name)), ("events",))
            yield written.problem(f"the queue {intake.events} holds mail, and cannot hold events about it", key=rest)
    for department in [] if broken else sorted(serving.keys() - default.keys() - {ROOT}):
        if len(serving[department]) > 1:
            first, *others = serving[department]
            message = f"{department} has no default mailbox: one of {', '.join([first, *others][:6])} must name it"
            yield _node(config, ("mailboxes", first)).problem(message, key="default_for")


def _returns(config: Config) -> Iterator[Problem]:
    """Addresses to which bounces of replies come back: polled, and long enough for a token."""
    polled = {
        address.casefold()
        for name, mailbox in config.mailboxes.items()
        if mailbox.enabled and name not in config.incomplete
        for address in mailbox.own_addresses()
    }
    conversations = config.of(CONVERSATIONS)
    key = conversations.keys[0] if conversations is not None and conversations.keys else None
    for name, outgoing in config.outgoing.items():
        if not outgoing.enabled or outgoing.verp is None:
            continue
        node, rest = locate(_node(config, (OUTGOING.key, name)), ("verp",))
        if not outgoing.has_envelope:
            yield node.problem("this outgoing has no envelope sender of its own", key=rest)
        elif key is None:
            yield node.problem("needs a key in conversations.keys, by which its token is signed", key=rest)
        elif outgoing.verp.casefold() not in polled:
            yield node.problem("no mailbox is polled here that has this address, so no bounce would be seen", key=rest)
        else:
            try:
                return_address(outgoing.verp, "0" * 32, key.id, b"")
            except ValueError as error:
                yield node.problem(str(error), key=rest)


def _paths(config: Config) -> Iterator[Problem]:
    """Two blocks that keep what they hold at one path, or a directory that is polled and delivered to."""
    taken: dict[str, tuple[str, ...]] = {}
    for at, block in config.blocks():
        path = getattr(block, "path", None)
        if not isinstance(path, Path) or at not in config.places or len(at) > 2:
            continue  # a mailbox's own quarantine is the other one, changed
        first = taken.setdefault(os.path.abspath(path), at)  # noqa: PTH100 - resolve() would ask the disk
        if first != at and not first[0] == at[0] == "mailboxes":
            node, rest = locate(_node(config, at), ("path",))
            yield node.problem(f"{'.'.join(first)} has the same path", key=rest)


def _envelopes(config: Config) -> Iterator[Problem]:
    """Mail that is to leave under a stranger's header, by an outgoing that goes by the header alone."""
    for name, queue in config.queues.items():
        if not queue.keeps_header:
            continue
        for loc, section, used in references_of(queue):
            outgoing = config.outgoing.get(used) if section == OUTGOING.key else None
            if outgoing is not None and not outgoing.has_envelope:
                node, _ = locate(_node(config, ("queues", name)), loc)
                yield node.problem(
                    f"the outgoing {used} sends to whom the header names, under our own name alone: a message cannot "
                    "be redirected by it; forward it, or name another outgoing"
                )


def _octets(config: Config) -> Iterator[Problem]:
    """Attachments that are to be removed, and a queue that gets them all the same."""
    for name, block in config.mailboxes.items():
        if name in config.incomplete or block.removal() is None:
            continue
        try:
            reached = sorted(config.reachable(name))
        except KeyError:
            continue  # a name that leads nowhere, which is told
        if carrying := [one for one in reached if one in config.queues and config.queues[one].carries_octets]:
            node, rest = locate(_node(config, ("mailboxes", name)), ("attachments",))
            yield node.problem(
                f"attachments cannot be kept from {', '.join(carrying)}, which gets the whole message: let its mail go "
                "to queues without octets, or keep the attachments",
                key=rest,
            )


MAX_CHAIN = 20
"""Rules that name one another, from the first to the last."""


def _circles(config: Config) -> Iterator[Problem]:
    """Rules whose conditions lead back to themselves, or go through more rules than anybody can follow."""
    leads = {
        name: [(loc, other) for loc, section, other in references_of(rule) if section == "rules"]
        for name, rule in config.rules.items()
    }
    told: set[str] = set()
    for name in leads:
        ways: list[tuple[str, tuple[str, ...]]] = [(name, (name,))] if leads[name] else []
        seen: set[str] = set()
        while ways:
            at, way = ways.pop()
            for loc, other in leads.get(at, ()):
                node, _ = locate(_node(config, ("rules", at)), loc)
                if other == name and name not in told:
                    told.update(way)
                    yield node.problem(f"the rules name one another in a circle: {' -> '.join((*way, other))}")
                elif len(way) > MAX_CHAIN:
                    yield node.problem(f"more than {MAX_CHAIN} rules name one another")
                    return
                elif other not in seen:
                    seen.add(other)
                    ways.append((other, (*way, other)))


def _renames(config: Config) -> Iterator[Problem]:
    yield from _renamed(config, "mailboxes", "mailbox", config.mailboxes)
    yield from _renamed(config, "queues", "queue", config.queues)
    yield from _renamed(config, "outgoing", "outgoing", config.outgoing)


def _renamed(config: Config, section: str, kind: str, blocks: Mapping[str, Renamed]) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for name, block in blocks.items():
        if block.formerly is None:
            continue
        node = _node(config, (section, name)).entries["formerly"]
        if not is_name(block.formerly):
            yield node.problem("a name is letters, digits, - and _, at most 40")
        elif block.formerly in blocks:
            yield node.problem(f"the {kind} {block.formerly} is still there, so this one was not it")
        elif block.formerly in taken:
            yield node.problem(f"the {kind} {taken[block.formerly]} was this one, too")
        else:
            taken[block.formerly] = name


class Renamed(Protocol):
    """A block that may have had another name."""

    @property
    def formerly(self) -> str | None: ...


Polled = tuple[Account, str]
"""Account and folder: what is polled."""


def _folders(config: Config) -> Iterator[Problem]:
    polled: dict[tuple[str | None, Polled], str] = {}
    finders = _by_account(config)
    for name, mailbox in config.mailboxes.items():
        if not mailbox.enabled:
            continue
        for place in _polled(mailbox):
            other = polled.setdefault((mailbox.environment, place), name)
            if other != name:
                node = _node(config, ("mailboxes", name))
                yield node.problem(
                    f"the mailbox {other} polls the same folder: every message would come twice", "warning"
                )
            if (finder := _finder(finders, *place, environment=mailbox.environment, but=name)) is not None:
                node = _node(config, ("mailboxes", name))
                words = f"a pattern of the mailbox {finder} may find the same folder {place[1]}"
                yield node.problem(f"{words}: every message would come twice", "warning")
    for name, mailbox in config.mailboxes.items():
        if not mailbox.enabled or mailbox.mode == "shadow":
            continue
        for key in ("disposition", "on_quarantine", "on_discard"):
            target = getattr(getattr(mailbox, key), "move", None)
            if target is None:
                continue
            account = mailbox.polled_account()
            if account is None:
                continue
            place_ = mailbox.folder_key(target)
            other_ = polled.get((mailbox.environment, (account, place_)))
            if other_ is None:  # its own patterns leave it out
                other_ = _finder(finders, account, place_, environment=mailbox.environment, but=name)
            if other_ is not None:
                whose = "this mailbox" if other_ == name else f"the mailbox {other_}"
                node, _ = locate(_node(config, ("mailboxes", name)), (key, "move"))
                yield node.problem(f"{whose} polls the folder that messages are moved to")


Finders = Mapping[tuple[str, str], Sequence[tuple[str, SourceConfig]]]
"""Host and user -> the mailboxes there that find folders by patterns."""


def _by_account(config: Config) -> Finders:
    found: dict[tuple[str, str], list[tuple[str, SourceConfig]]] = {}
    for name, mailbox in config.mailboxes.items():
        if mailbox.enabled and mailbox.has_patterns and (account := mailbox.polled_account()) is not None:
            found.setdefault((account.host, account.user), []).append((name, mailbox))
    return found


def _finder(finders: Finders, account: Account, key: str, *, environment: str | None = "", but: str = "") -> str | None:
    """The mailbox whose patterns may find this folder, by whatever protocol. ``environment``: "" is any."""
    for name, mailbox in finders.get((account.host, account.user), ()):
        if name != but and environment in ("", mailbox.environment) and mailbox.finds(key):
            return name
    return None


def _fed(config: Config) -> Iterator[Problem]:
    """What a queue puts into a mailbox that is polled here comes back for ever."""
    polled = {
        (account.host, account.user, key): name
        for name, mailbox in config.mailboxes.items()
        if mailbox.enabled
        for account, key in _polled(mailbox)
    }
    finders = _by_account(config)
    for name, queue in config.queues.items():
        for account, key in queue.fed_folders():
            # By whatever protocol it is polled: INBOX is the same one over all of them.
            other = polled.get((account.host, account.user, key)) or _finder(finders, account, key)
            if other is not None:
                node = _node(config, ("queues", name))
                yield node.problem(f"the mailbox {other} polls the folder that this queue puts mail into")
                break


def _blobs(config: Config) -> Iterator[Problem]:
    """Octets that are to lie apart have a place, and stay there as long as an event may ask for them."""
    blobs = config.of(BLOBS)
    broken = BLOBS.key in {at[0] for at in config.places} and blobs is None
    for at, block in config.blocks():
        if not isinstance(block, SinkConfig) or block.blobs_above is None or broken:
            continue
        node, rest = locate(_node(config, at), ("blobs_above",))
        if "blobs_above" in block.model_fields_set:
            if blobs is None:
                yield node.problem("there is no block blobs:, where such a message would lie", key=rest)
                continue
            if not block.octets_wanted:
                yield node.problem("the queue does not get the octets: say raw: true, or leave this away", "warning")
        if blobs is not None and (kept := block.events_kept()) is not None and blobs.keep < kept:
            words = f"the queue keeps events for {_in_words(kept)}, and blobs.keep is {_in_words(blobs.keep)}"
            yield _node(config, at).problem(f"{words}: an event would name what is gone")


def _in_words(span: timedelta) -> str:
    days, rest = divmod(span.total_seconds(), 86_400)
    return f"{days:.0f}d" if not rest else f"{span.total_seconds():.0f}s"


def _polled(mailbox: SourceConfig) -> list[Polled]:
    account = mailbox.polled_account()
    names = mailbox.named_folders() or (() if getattr(mailbox, "folders", ()) else ("INBOX",))
    return [] if account is None else [(account, mailbox.folder_key(name)) for name in names]


def _node(config: Config, at: tuple[str, ...]) -> Node:
    return config.places[at]
