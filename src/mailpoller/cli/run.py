"""``mailpoller run``: the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mailpoller.cli.ending import end_by, leave, run_loop
from mailpoller.cli.exits import IOERR, TEMPFAIL, complain, expected_errors, explained, refuse
from mailpoller.cli.options import ConfigOption, EnvironmentOption
from mailpoller.cli.output import counted

if TYPE_CHECKING:
    from mailpoller.app import App
    from mailpoller.cli.terminal import Terminal
    from mailpoller.config import Config


def run(
    config: ConfigOption,
    once: Annotated[
        bool, typer.Option("--once", help="Drain every mailbox and exit: 0, or 75 if anything is left to do.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be fetched now and where it would go, and change nothing."),
    ] = False,
    mailbox: Annotated[str | None, typer.Option("--mailbox", "-m", help="Poll only this mailbox.")] = None,
    environment: EnvironmentOption = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(
            "--log-level", help="debug, info, warning or error. Default: service.log_level; warning with --dry-run."
        ),
    ] = None,
    log_format: Annotated[
        Literal["auto", "json", "console"] | None,
        typer.Option(
            "--log-format",
            help="json, console, or auto: readable on a terminal, else JSON lines. Default: service.log_format.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: one JSON object a line, one for each message.")
    ] = False,
) -> None:
    """Poll every mailbox until SIGTERM or Ctrl-C.

    Logs to standard error. Ctrl-C finishes what is in hand; a second one does not wait for that, and loses nothing
    either.

    \b
    Examples:
      mailpoller run                                 as systemd starts it
      mailpoller run --once                          carry what is there, and exit
      mailpoller run --dry-run --mailbox support     what would become of this mailbox's mail?

    A dry run works on a copy of the ledger, also beside a running daemon. It opens mailboxes for reading only, brings
    nothing to a queue and sends no mail. Messages that are put off until later are shown too.

    Exits with 75 if --once or --dry-run could not finish a mailbox: anything waits, or was not disposed of, and a line
    says in which. Also if another process holds the ledger; with 74 if the ledger cannot be used for another reason
    that may pass.
    """
    with explained():
        from mailpoller.cli.identity import work_as_owner
        from mailpoller.config import load

        if as_json and not dry_run:
            refuse("--json goes with --dry-run; logs become JSON by --log-format json")
        loaded = load(config, environment=environment, sparing=not dry_run)
        if mailbox is not None:
            _require_polled(loaded, mailbox)
            loaded.require(mailbox)
        work_as_owner(loaded)
        level = log_level or ("warning" if dry_run else loaded.service.log_level)
        terminal = _configure_logs(level, log_format or loaded.service.log_format, share=once or dry_run)
        if dry_run:
            from mailpoller.cli.dry_run import dry_run as rehearse

            well = rehearse(loaded, mailbox, as_json=as_json, terminal=terminal)
        else:
            _announce(loaded)
            again = partial(load, config.absolute(), environment=environment)
            well = _logging_bugs(loaded, once, mailbox, terminal) if once else _served(loaded, mailbox, again)
        if not well:
            raise typer.Exit(TEMPFAIL)


def _require_polled(config: Config, mailbox: str) -> None:
    from mailpoller.cli.service import known_mailbox

    if (reason := config.idle_reason(known_mailbox(config, mailbox))) is not None:
        refuse(f"the mailbox {mailbox} is not polled: {reason}")


def _configure_logs(
    level: Literal["debug", "info", "warning", "error"], form: Literal["auto", "json", "console"], *, share: bool
) -> Terminal | None:
    """Set up logging; the terminal that a progress line may share with it, if there is one."""
    from mailpoller.cli.logs import configure, readable
    from mailpoller.cli.terminal import error_terminal

    terminal = error_terminal() if share and readable(form) else None
    configure(level, form, terminal)
    return terminal


def _announce(config: Config) -> None:
    """Log what is about to run, and what is doubtful about it."""
    import structlog

    from mailpoller import __version__

    log = structlog.get_logger(__name__)
    for doubt in (*config.warnings, *config.missing()):
        log.warning("config.doubtful", file=str(doubt.file), line=doubt.line, path=doubt.path, reason=doubt.message)
    for problem in (one for problems in config.wrong.values() for one in problems):
        log.error("config.wrong", reason=str(problem))
    log.info(
        "service.configured",
        version=__version__,
        environment=config.service.environment,
        files=len(config.files),
        mailboxes=len(config.mailboxes),
        polled=sum(config.runs(name) for name in config.mailboxes),
        queues=len(config.queues),
        rules=len(config.rules),
    )


def _served(config: Config, only: str | None, load: Callable[[], Config]) -> bool:
    """Run as a daemon. 75 says that another process lives and holds the ledger, and that alone: systemd is told to
    leave it at that, while a ledger that cannot be used for now is tried again."""
    from mailpoller.core.errors import LedgerLocked, TransientError

    try:
        return _logging_bugs(config, False, only, None, load)
    except LedgerLocked:
        raise
    except (TransientError, ExceptionGroup) as error:
        found = expected_errors(error)
        if not found or not all(isinstance(one, TransientError) for one in found):
            raise
        for line in dict.fromkeys(str(one) for one in found):
            complain(line)
        raise typer.Exit(IOERR) from None


def _logging_bugs(
    config: Config, once: bool, only: str | None, terminal: Terminal | None, load: Callable[[], Config] | None = None
) -> bool:
    """Run; what nobody foresaw is in the log with its traceback before it ends the process."""
    from mailpoller.core.errors import machine_trouble

    try:
        return run_loop(_run(config, once=once, only=only, terminal=terminal, load=load))
    except Exception as error:
        if not expected_errors(error) and machine_trouble(error) is None:
            import structlog

            structlog.get_logger(__name__).exception("service.failed")
        raise


async def _run(
    config: Config,
    *,
    once: bool,
    only: str | None,
    terminal: Terminal | None,
    load: Callable[[], Config] | None,
) -> bool:
    """True if all went well. ``load`` reads the configuration anew, for a reload; a drain does without."""
    from mailpoller.app import assemble
    from mailpoller.cli.terminal import progress

    def hung(reason: str) -> None:
        complain(reason)
        leave(IOERR)

    allow_files()
    async with assemble(config, only=only, hung=hung, load=load) as app:
        stop_on_signals(app, config.service.stop_grace.total_seconds())
        tune_interpreter()
        if not once:
            await app.run()
            return True
        async with progress(terminal, lambda: carried(app)):
            well = await app.drain()
        if not well and (left := app.remainder()):
            complain(f"not finished: {left}")
        return well


def allow_files() -> None:
    """As many open files as we may have at all: shells give a process fewer to begin with."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def tune_interpreter() -> None:
    """Two settings of CPython for a process that carries mail, both measured with ``bench/drain.py``.

    The garbage collector is told that what exists now stays, and to look less often at what comes and goes: a message
    is a few hundred objects without cycles, and looking through them cost a twelfth of a drain. And the writer
    threads of the databases, which need the interpreter for a moment between two statements, get it from a busy event
    loop after half a millisecond and not after five.
    """
    import gc
    import sys

    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    sys.setswitchinterval(0.0005)


def stop_on_signals(app: App, grace_s: float) -> None:
    """SIGTERM, Ctrl-C and a terminal that is closed finish what is in hand; a second Ctrl-C does not wait for that.

    SIGHUP without a terminal has a daemon read its configuration anew. To die of it, as is the default, would be an
    end that systemd takes for intended.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not app.stop.is_set():
            end_by(grace_s)
        app.stop.set()

    def interrupted() -> None:
        stop()
        loop.remove_signal_handler(signal.SIGINT)

    def again() -> None:
        if app.reloader is not None:
            app.reloader.hung_up()
            return
        import structlog

        structlog.get_logger(__name__).warning("signal.ignored", signal="SIGHUP", reason="a drain ends by itself")

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        loop.add_signal_handler(signal.SIGHUP, stop if os.isatty(0) or os.isatty(2) else again)


def carried(app: App) -> str:
    """The progress line of a drain."""
    boxes = app.health.mailboxes.values()
    settled, deferred = sum(box.settled for box in boxes), sum(box.deferred for box in boxes)
    return f"{counted(len(boxes), 'mailbox')}: {counted(settled, 'message')} settled" + (
        f", {deferred:,} put off" if deferred else ""
    )
