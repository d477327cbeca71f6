"""The real command within limits: ``python -m scenarios.limited ARGUMENTS…`` runs ``mailpoller ARGUMENTS…`` in a hurry
(:mod:`scenarios.hasty`) and with the soft limits that the environment names, which may be lifted from outside while it
runs (:func:`lift`). A number for ``uid`` makes it that user's process, to whom the limit of processes applies; all that
it may import is imported before, for that user may not be able to read it.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import sys

LIMITS = "MAILPOLLER_TESTS_LIMITS"


def lift(pid: int, name: str) -> None:
    """Let the process have as much as it may."""
    kind = getattr(resource, f"RLIMIT_{name}")
    _, most = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (most, most))


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
    from scenarios.hasty import hurry

    limits = json.loads(os.environ[LIMITS])
    hurry()
    uid = limits.pop("uid", None)
    if uid is not None:
        import_everything()
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    for name, soft in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))
    sys.argv[0] = "mailpoller"
    from mailpoller.cli import main as mailpoller

    mailpoller()


if __name__ == "__main__":
    main()
