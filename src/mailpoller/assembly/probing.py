"""Every part that can be probed, for check: mailboxes, queues, outgoings."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial

from mailpoller import __version__
from mailpoller.assembly.outbox import intake_source
from mailpoller.assembly.parts import NOTICES
from mailpoller.assembly.preparing import prepare_runtime
from mailpoller.assembly.standins import AbsentSink, AbsentSource, built
from mailpoller.config import Config
from mailpoller.config.model import QuarantineConfig
from mailpoller.config.sections import BLOBS, INTAKES
from mailpoller.core.component import BlobsConfig, Runtime, SinkConfig
from mailpoller.core.errors import ConfigError, LedgerUnavailable, MailpollerError, QueueVanished
from mailpoller.core.ports import (
    Clock,
    Durable,
    EntryListener,
    EntrySource,
    Inquiring,
    Mail,
    Marked,
    Outgoing,
    Probed,
    QueueRecord,
    Sink,
    Source,
    Stage,
)
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.recognition import BLOBS as BLOBS_KNOWN
from mailpoller.engine.recognition import vanished
from mailpoller.mail.compose import test_mail
from mailpoller.mail.letter_trial import test_answer


@asynccontextmanager
async def parts_to_probe(
    config: Config, only: str | None = None, *, send_to: str | None = None
) -> AsyncIterator[dict[str, AsyncIterator[Stage]]]:
    """Every part that can be probed, by name: mailboxes that are polled here, queues, outgoings; ``only`` one mailbox.

    ``send_to``: every outgoing whose probe passes sends a test mail to this address, as its last stage. With ``only``
    it is that mailbox's outgoing, and the mail is written as an answer from it is: by whom, and in which charset.
    """
    clock = SystemClock()
    runtime = prepare_runtime(config, clock, spool=False)
    known = _known_queues(config)
    parts: dict[str, AsyncIterator[Stage]] = {}
    async with AsyncExitStack() as closing:
        for name, block in config.mailboxes.items():
            if name == only or (only is None and config.runs(name)):
                wanted = {
                    block.disposition,
                    block.on_quarantine or block.disposition,
                    block.on_discard or block.disposition,
                }
                parts[f"mailbox {name}"] = _source(config.require(name), name, runtime).probe(list(wanted))
        if only is None:
            for name, sink_block in config.queues.items():
                sink = _sink(sink_block, name, runtime)
                closing.push_async_callback(sink.close)
                parts[f"queue {name}"] = _probe_sink(sink, known.get(name))
            if (kept := config.of(BLOBS)) is not None:
                parts["blobs"] = _probe_blobs(kept, runtime, known.get(BLOBS_KNOWN))
            for name, intake in (config.of(INTAKES) or {}).items():
                if (entries := intake_source(intake, name, runtime)) is not None:
                    closing.push_async_callback(entries.close)
                    parts[f"intake {name}"] = _probe_intake(entries)
            for title, own in _own_notices(config).items():
                sink = _sink(own, title, runtime)
                closing.push_async_callback(sink.close)
                parts[title] = _probe_sink(sink, None)
            for name, outgoing in runtime.outgoings.items():
                closing.push_async_callback(outgoing.close)
                alerts = config.alerts.to if config.alerts and config.alerts.outgoing == name else ()
                # Who else writes through it are queues, and those are asked themselves.
                probing = outgoing.inquire(alerts) if alerts and isinstance(outgoing, Inquiring) else outgoing.probe()
                parts[f"outgoing {name}"] = (
                    probing if send_to is None else _probe_and_send(outgoing, probing, send_to, clock)
                )
        if only is not None and send_to is not None:
            parts["outgoing"] = _answer_from(config, only, runtime, send_to, clock)
            for outgoing in runtime.outgoings.values():
                closing.push_async_callback(outgoing.close)
        yield parts


def _source(block: SourceConfig, name: str, runtime: Runtime) -> Source:
    try:
        return built(block, lambda: block.build(name, runtime))
    except ConfigError as error:
        return AbsentSource(str(error))


def _sink(block: SinkConfig, name: str, runtime: Runtime) -> Sink:
    try:
        return built(block, lambda: block.build(name, runtime))
    except ConfigError as error:
        return AbsentSink(str(error))


def _own_notices(config: Config) -> dict[str, SinkConfig]:
    """Where notices of quarantined mail go, of the mailboxes that are polled here, unless that is somebody else's
    queue; by name, alike ones once."""
    found: dict[str, SinkConfig] = {}
    for mailbox in filter(config.runs, config.mailboxes):
        block = config.quarantine_of(mailbox)
        if block is None or isinstance(block, QuarantineConfig) or block in found.values():
            continue
        found[NOTICES if not found else f"{NOTICES} of {mailbox}"] = block
    return found


async def _answer_from(
    config: Config, mailbox: str, runtime: Runtime, recipient: str, clock: Clock
) -> AsyncIterator[Stage]:
    """The stages of the mailbox's outgoing, and a test mail as an answer from it would be; none if it may send none."""
    block = config.require(mailbox)
    name = block.outgoing or ""
    outgoing, written = runtime.outgoings.get(name), config.outgoing.get(name)
    if outgoing is None or written is None:
        detail = f"the outgoing {name} is disabled" if written is not None else "this mailbox has no outgoing"
        yield Stage("mail", False, timedelta(0), detail, "Name one that is enabled: outgoing.")
        return
    if held := config.holds_back(name):
        yield Stage("mail", False, timedelta(0), held, "Answers wait here, and so nothing is sent as a test either.")
        return
    mail = test_answer(
        mailbox,
        written.author(),
        recipient=written.divert_to or recipient,
        at=clock.now(),
        wish=block.reply_charset(),
        footer=f"mailpoller {__version__} on {socket.gethostname()}",
    )
    async for stage in _probe_and_send(outgoing, outgoing.probe(), recipient, clock, mail):
        yield stage


async def _probe_and_send(
    outgoing: Outgoing, probing: AsyncIterator[Stage], recipient: str, clock: Clock, mail: Mail | None = None
) -> AsyncIterator[Stage]:
    """The outgoing's own stages, and if all of them went well a test mail, or the one that is given."""
    try:
        async for stage in probing:
            yield stage
            if not stage.ok:
                return
    finally:
        if (close := getattr(probing, "aclose", None)) is not None:
            await close()
    footer = f"mailpoller {__version__} on {socket.gethostname()}"
    mail = mail or test_mail(sender=outgoing.sender, recipients=[recipient], footer=footer, at=clock.now())
    begun = time.monotonic()
    advice = ""
    try:
        detail = await outgoing.send(mail)
    except MailpollerError as error:
        detail = str(error)
        advice = (
            "It lets us in and does not take this mail. Look at sender, which many allow only if it is the login's "
            "own; at null_sender: false, if it wants an envelope sender; and whether it may send to this address at "
            "all."
        )
    yield Stage("mail", not advice, timedelta(seconds=time.monotonic() - begun), detail, advice)


def _known_queues(config: Config) -> dict[str, QueueRecord]:
    """What the ledger knows of the queues; nothing if there is no ledger yet, or none that can be read beside its
    daemon."""
    opened = getattr(config.ledger, "reader", None)
    if opened is None:
        return {}
    try:
        with opened() as reader:
            found = [reader.queue_mark(name) for name in (*config.queues, BLOBS_KNOWN)]
    except LedgerUnavailable:
        return {}
    return {record.name: record for record in found if record is not None}


async def _probe_sink(sink: Sink, known: QueueRecord | None) -> AsyncIterator[Stage]:
    """Would it take a delivery now, and is it the queue that the ledger knows? One stage, unless the sink has more to
    say."""
    if isinstance(sink, Probed):
        async for stage in sink.probe():
            yield stage
        return
    begun = time.monotonic()
    trouble = advice = ""
    try:
        trouble = vanished(known, await sink.mark(), sink.place()) if isinstance(sink, Marked) else ""
        if not trouble:
            await sink.check()
    except MailpollerError as error:
        trouble = str(error)
        advice = getattr(error, "advice", "")
        advice = advice or "look at the queue's path or address, its rights, and the room there is"
    detail = trouble or "takes deliveries"
    if not trouble and isinstance(sink, Durable) and (found := sink.durability) is not None:
        detail += f"; {found.finding}: {found.setting}"
    yield Stage("check", not trouble, timedelta(seconds=time.monotonic() - begun), detail, advice)


async def _probe_blobs(block: BlobsConfig, runtime: Runtime, known: QueueRecord | None) -> AsyncIterator[Stage]:
    """Could octets be held now, and is it the store that the ledger knows?"""
    begun = time.monotonic()
    trouble = ""
    try:
        store = built(block, partial(block.build, runtime))
        try:
            if isinstance(store, Marked) and (trouble := vanished(known, await store.mark(), store.place())):
                raise QueueVanished(trouble)
            await store.check()
        finally:
            await store.close()
    except MailpollerError as error:
        trouble = str(error)
    advice = "look at the store's path or address, its rights, and the room there is"
    yield Stage("check", not trouble, timedelta(seconds=time.monotonic() - begun), trouble or "takes octets", advice)


async def _probe_intake(entries: EntrySource | EntryListener) -> AsyncIterator[Stage]:
    """Could entries be taken and answered now?"""
    begun = time.monotonic()
    trouble = advice = ""
    try:
        await entries.check()
    except MailpollerError as error:
        trouble = str(error)
        advice = getattr(error, "advice", "") or "look at the intake's path or address, and its rights"
    yield Stage("check", not trouble, timedelta(seconds=time.monotonic() - begun), trouble or "takes entries", advice)
