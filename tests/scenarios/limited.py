"""The real command within limits: ``python -m scenarios.limited ARGUMENTS…`` runs ``mailpoller ARGUMENTS…`` in a hurry
(:mod:`scenarios.hasty`) and with the limits that the environment names; from outside they can be changed while it runs
(:func:`limit`, :func:`lift`). A number for ``uid`` makes it that user's process, to whom the limit of processes
applies; all that it may import is imported before, for that user may not be able to read it.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
from datetime import timedelta

LIMITS = "MAILPOLLER_TESTS_LIMITS"


def limit(pid: int, name: str, soft: int) -> None:
    """Let a process of ours that runs have no more than that."""
    kind = getattr(resource, f"RLIMIT_{name}")
    resource.prlimit(pid, kind, (soft, resource.prlimit(pid, kind)[1]))


def lift(pid: int) -> None:
    """Let the process have as much of everything as it may; it does that itself, whoever's it is."""
    os.kill(pid, signal.SIGUSR1)


def _lifted(*_: object) -> None:
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_AS):
        most = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most, most))


def import_everything() -> None:
    import encodings
    import encodings.idna

    import mailpoller
    import mailpoller.testing

    for package in (encodings, mailpoller):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                if not found.name.startswith(("mailpoller.__main__", "mailpoller.testing.")):
                    importlib.import_module(found.name)
            except ImportError:
                continue  # of another system, or of an extra


def main() -> None:
    from mailpoller.engine import overdue
    from scenarios.hasty import hurry
    from scenarios.later import leap

    signal.signal(signal.SIGUSR1, _lifted)
    limits = json.loads(os.environ[LIMITS])
    hurry()
    leap()
    overdue.PAUSE = overdue.SETTLING = timedelta(seconds=1)
    uid = limits.pop("uid", None)
    if uid is not None:
        import_everything()
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    for name, soft in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = soft if name == "NOFILE" else resource.getrlimit(kind)[1]  # up to the hard one it helps itself
        resource.setrlimit(kind, (soft, hard))
    sys.argv[0] = "mailpoller"
    from mailpoller.cli import main as mailpoller

    mailpoller()


if __name__ == "__main__":
    main()
