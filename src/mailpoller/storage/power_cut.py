"""What an fsync is worth where a file lies: a disk's is a receipt, and that of memory is none."""

from __future__ import annotations

from pathlib import Path

from mailpoller.core.durability import Durability

_MOUNTS = Path("/proc/self/mountinfo")
_MEMORY = frozenset(("tmpfs", "ramfs", "devtmpfs", "rootfs"))
_ELSEWHERE = ("nfs", "cifs", "smb", "9p", "ceph", "fuse", "vboxsf", "virtiofs", "glusterfs", "afs")
_UNSAFE = frozenset(("nobarrier", "barrier=0", "volatile"))
"""Options by which a disk, or an overlay, is told not to bring what is synced to the platter (ext4(5), overlayfs)."""


def durability_of(path: Path, mounts: Path = _MOUNTS) -> Durability:
    """What a power cut leaves of what is synced at ``path``, as the mount table says (proc_pid_mountinfo(5)). Touches
    neither the path nor its disk, so links in it are not followed."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return Durability("unknown", "this system does not tell what is mounted", "look at mount(8)")
    wanted = str(path.absolute())
    point, kind, options, told = "", "", frozenset[str](), False
    for line in lines:
        mount, _, filesystem = line.partition(" - ")
        fields, more = mount.split(" "), filesystem.split(" ")
        if len(fields) < 6 or len(more) < 3:
            continue
        found, told = _unescaped(fields[4]), True
        # The last one that is mounted at a place hides those before it.
        if len(found) >= len(point) and (wanted == found or wanted.startswith(found.rstrip("/") + "/")):
            point, kind = found, more[0]
            options = frozenset(fields[5].split(",")) | frozenset(more[2].split(","))
    if kind in _MEMORY:
        return Durability("volatile", f"it lies in memory ({kind} at {point})", "put it onto a disk")
    if unsafe := options & _UNSAFE:
        named = ", ".join(sorted(unsafe))
        return Durability("volatile", f"its disk is mounted with {named} at {point}", f"mount {point} without {named}")
    if not kind and told:
        # Who changed his root (chroot(2)) is not shown what it lies on. What fsync(2) promises holds there as well.
        return Durability("promised", "it is synced to a file system that is not shown here")
    if not kind or kind.startswith(_ELSEWHERE):
        where = f"{kind} at {point}" if kind else "nowhere that is mounted"
        return Durability("unknown", f"it is as durable as what is behind it ({where})", "put it onto a disk of ours")
    return Durability("synced", f"it is synced to {kind} at {point}")


def _unescaped(name: str) -> str:
    for code in ("040", "011", "012", "134"):
        name = name.replace(f"\\{code}", chr(int(code, 8)))
    return name
