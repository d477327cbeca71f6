"""What Exchange calls folders, flags and deletion, whoever asks it: Graph or EWS."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mailpoller.core.delivery import Disposition

SEEN, FLAGGED = "\\seen", "\\flagged"
"""The flags that Exchange has a property for; every other flag is a category."""
DELETED_ITEMS = "deleteditems"

Deletion = Literal["deleted-items", "recoverable", "permanent"]


def check_folder(name: str) -> str:
    """``name`` if it can be that of a folder. Raises ValueError."""
    if not all(part.strip() for part in name.split("/")) or not name.isprintable():
        raise ValueError("a folder is a name such as inbox, or a path such as inbox/Done, without empty parts")
    return name


def _check_folders(names: list[str]) -> list[str]:
    for name in names:
        check_folder(name)
    if len({name.strip("/").lower() for name in names}) < len(names):
        raise ValueError("a folder is named twice")
    return names


FolderNames = Annotated[list[str], Field(min_length=1), AfterValidator(_check_folders)]
"""Folders, at least one and none twice: names that are the same in every language, or paths of display names."""


def impossible(flag: str) -> str:
    """Why Exchange can never keep this flag, or ""."""
    if flag.startswith("\\") and flag.lower() not in (SEEN, FLAGGED):
        return (
            f"Exchange has no flag {flag} that can be set; it has \\Seen, \\Flagged and categories, which are any "
            f"other name"
        )
    if not flag.startswith("\\") and (any(one in flag for one in ",;") or not flag.isprintable() or len(flag) > 255):
        return f"{flag!r} cannot be a category: no commas and semicolons, at most 255 characters"
    return ""


def check_disposition(disposition: Disposition | None) -> Disposition | None:
    """``disposition`` if Exchange can do it. Raises ValueError."""
    if disposition is not None:
        for reason in filter(None, map(impossible, disposition.flags)):
            raise ValueError(reason)
        if disposition.move is not None:
            check_folder(disposition.move)
    return disposition
