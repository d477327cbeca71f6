"""The literals of the configuration: durations, sizes, mail addresses, secrets, dispositions, and references to named
blocks."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import ConfigError
from mailpoller.core.record import record
from mailpoller.core.regular import read_regular

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST = 36525 * 86400.0
"""Seconds. With more, an instant that is so far from now might be outside of the calendar."""
_LARGEST = 8 * 10**18
"""Octets: what a file system, and a column of SQLite, can count."""
_DURATION_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)"
_DURATION_PATTERN = r"^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+$"
_OCTETS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE_PATTERN = r"^(\d+(?:\.\d+)?)\s?(B|KB|MB|GB|KiB|MiB|GiB)$"
LARGEST_SECRET = 64 << 10
"""Octets of a secret's file at most."""
_ADDRESS_PATTERN = r'^[^\s@<>,;:\x00-\x20\x7f]+@[^\s@<>,;"\x00-\x20\x7f]+$'


def parse_duration(text: object) -> timedelta:
    """``30s``, ``5m``, ``1h30m``, ``2d``; a timedelta is taken as it is. Raises ValueError for all else."""
    if isinstance(text, timedelta):
        return text
    if text == "0" or (text == 0 and not isinstance(text, bool)):
        return timedelta(0)
    if not isinstance(text, str) or not re.fullmatch(_DURATION_PATTERN, text.strip()):
        raise ValueError("a duration is written with its unit: 500ms, 30s, 5m, 2h, 1d, 1w or 1h30m")
    if (seconds := sum(float(n) * _SECONDS[unit] for n, unit in re.findall(_DURATION_PART, text))) > _LONGEST:
        raise ValueError("a duration is a hundred years at most: 36525d")
    return timedelta(seconds=seconds)


def parse_size(text: object) -> int:
    """``10MB``, ``512KiB``, ``1.5GB``: octets; an int is taken as octets. Raises ValueError for all else."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return _bounded(text)
    found = re.fullmatch(_SIZE_PATTERN, text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ValueError("a size is written with its unit: 512KiB, 10MB, 1GB (KB is 1000 octets, KiB 1024)")
    return _bounded(float(found[1]) * _OCTETS[found[2]])


def _bounded(octets: float) -> int:
    if octets > _LARGEST:
        raise ValueError("a size is 8 EB at most: 8000000GB")
    return int(octets)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _DURATION_PATTERN}, {"enum": [0, "0"]}],
            "examples": ["30s", "5m", "2h"],
        }
    ),
]
"""A length of time, written ``30s``, ``5m``, ``1h30m``."""


def _href(written: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]*/", written):
        raise ValueError("href is a URI of ASCII characters that ends in /, such as https://files.example.com/mail/")
    return written


Href = Annotated[str, AfterValidator(_href)]
"""What names are put behind to tell others where something is."""
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _SIZE_PATTERN}, {"type": "integer", "minimum": 0}],
            "examples": ["10MB", "512KiB"],
        }
    ),
]
"""A number of octets, written ``10MB``, ``512KiB``."""


def _check_address(written: str) -> str:
    if not re.fullmatch(_ADDRESS_PATTERN, written):
        raise ValueError("a mail address is written alone, without name and brackets: ops@example.com")
    return written


def _listed(written: object) -> object:
    return [written] if isinstance(written, str) else written


MailAddress = Annotated[
    str,
    AfterValidator(_check_address),
    WithJsonSchema({"type": "string", "pattern": _ADDRESS_PATTERN, "examples": ["ops@example.com"]}),
]
"""One mail address, written alone. That a header or an SMTP command can be made of it is all that is checked."""

MailAddresses = Annotated[list[MailAddress], BeforeValidator(_listed), Field(min_length=1)]
"""Mail addresses, at least one; a single one needs no list."""


@record
class Reference:
    """Marks a string field as the name of a block under the top-level key ``section``; the loader checks it."""

    section: str


@record
class NeededFile:
    """Marks a path as that of a file that somebody else has put there: ``check`` says so if it is missing."""


FilePath = Annotated[Path, NeededFile()]
"""A file that must be there already: certificates, a key."""

QueueName = Annotated[str, Reference("queues")]
RuleName = Annotated[str, Reference("rules")]
RuleSetName = Annotated[str, Reference("rule_sets")]
MailboxName = Annotated[str, Reference("mailboxes")]
OutgoingName = Annotated[str, Reference("outgoing")]


class Secret:
    """A secret that is known by where it is kept; its text never shows in ``repr``, ``str``, a log or an error.

    Written ``env:NAME``, ``file:/path`` (first line, or the whole file without its last line end), ``credential:name``
    (a file in systemd's ``$CREDENTIALS_DIRECTORY``), or plainly, in which case the text itself is the secret.
    """

    __slots__ = ("_held", "_plain", "kind", "location")

    def __init__(self, written: str) -> None:
        kind, colon, rest = written.partition(":")
        if colon and kind in ("env", "file", "credential"):
            self.kind, self.location, self._plain = kind, rest, ""
        else:
            self.kind, self.location, self._plain = "plain", "", written
        self._held: str | None = None

    def hold(self) -> None:
        """Remember the text, if it can be read now: for a process that gives up the right to read the file. From then
        on what is remembered counts wherever the file is denied us; elsewhere it is read anew as ever."""
        try:
            self._held = self.reveal()
        except ConfigError:
            return  # whoever wants it is told

    def hold_as(self, former: Secret) -> None:
        """Remember what ``former``, which is kept in the same place, remembers."""
        self._held = former._held if self._held is None else self._held

    def reveal(self) -> str:
        """The secret's text, read anew at every call so that a rotated file is noticed.

        Raises :class:`ConfigError` naming the place, if there is nothing.
        """
        if self.kind == "plain":
            return self._plain
        if self.kind == "env":
            found = os.environ.get(self.location)
            if found is None:
                raise ConfigError(f"the environment has no variable {self.location}")
            return self._filled(found)
        try:
            octets = read_regular(self._file(), LARGEST_SECRET)
            return self._filled(octets.decode("utf-8").removesuffix("\n").removesuffix("\r"))
        except (OSError, ValueError) as error:
            if isinstance(error, PermissionError) and self._held is not None:
                return self._held
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            if not isinstance(error, OSError | UnicodeDecodeError):
                reason = "not a usable name"
            raise ConfigError(f"cannot read the secret {self}: {reason}") from None

    def _filled(self, found: str) -> str:
        if not found:  # somebody is about to write it; a server that is asked with nothing counts it as a failure
            raise ConfigError(f"{self} is empty")
        return found

    def _file(self) -> Path:
        if self.kind == "file":
            return Path(self.location)
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ConfigError(f"{self} exists only inside the systemd unit (LoadCredential=)")
        if "/" in self.location or self.location in ("", ".", ".."):
            raise ConfigError(f"{self} is not the name of a credential")
        return Path(directory) / self.location

    def __str__(self) -> str:
        return "********" if self.kind == "plain" else f"{self.kind}:{self.location}"

    def __repr__(self) -> str:
        return f"Secret({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self.kind, self.location, self._plain) == (
            other.kind,
            other.location,
            other._plain,
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.location, self._plain))

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not serialised")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: object) -> Secret:
            if isinstance(value, Secret):
                return value
            if not isinstance(value, str):
                raise ValueError("a secret is text: env:NAME, file:/path or credential:name (quote a number)")
            return cls(value)

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "string",
            "description": "env:NAME, file:/path, credential:name, or the secret itself",
            "examples": ["credential:support"],
        }


def parse_disposition(written: object) -> Disposition:
    """``seen``, ``leave``, ``delete``, or a mapping of ``seen``, ``flag``, ``move``, ``delete``. Raises ValueError
    for all else."""
    if isinstance(written, Disposition):
        return written
    if written in ("seen", "leave", "delete"):
        return Disposition(seen=written == "seen", delete=written == "delete")
    if not isinstance(written, dict) or not written:
        raise ValueError(
            "a disposition is seen, leave, delete, {move: FOLDER} or {flag: KEYWORD}; seen and flag may join the others"
        )
    known = ("seen", "flag", "move", "delete", "after", "max_per_poll")
    if unknown := sorted(str(key) for key in written if key not in known):
        raise ValueError(f"a disposition has no {', '.join(unknown)}; it has seen, flag, move, delete and after")
    seen, delete, move, flag = (written.get(key) for key in ("seen", "delete", "move", "flag"))
    flags = tuple(flag) if isinstance(flag, list) else () if flag is None else (flag,)
    if not (isinstance(seen, bool | None) and isinstance(delete, bool | None)):
        raise ValueError("seen and delete are true or false")
    if not all(isinstance(one, str) and one for one in flags) or not (move is None or (isinstance(move, str) and move)):
        raise ValueError("move and flag are names")
    if move and delete:
        raise ValueError("a message cannot be both moved and deleted")
    made = Disposition(seen=bool(seen), flags=flags, move=move, delete=bool(delete))
    if "after" not in written:
        if "max_per_poll" in written:
            raise ValueError("max_per_poll goes with after")
        return made
    return _later(made, written["after"], written.get("max_per_poll", made.max_per_poll))


def _later(disposition: Disposition, after: object, most: object) -> Disposition:
    if not (disposition.move or disposition.delete):
        raise ValueError("after goes with move or delete")
    if (wait := parse_duration(after)) <= timedelta(0):
        raise ValueError("after must be more than 0s; without it that is done at once")
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= 10_000:
        raise ValueError("max_per_poll is 1 to 10000 messages")
    return replace(disposition, after=wait, max_per_poll=most)


def write_disposition(disposition: Disposition) -> str | dict[str, Any]:
    """The YAML of a disposition; the inverse of :func:`parse_disposition`."""
    if disposition.leaves:
        return "leave"
    if disposition == Disposition(seen=True):
        return "seen"
    if disposition == Disposition(delete=True):
        return "delete"
    parts: dict[str, Any] = {
        "seen": disposition.seen,
        "flag": list(disposition.flags),
        "move": disposition.move,
        "delete": disposition.delete,
    }
    if disposition.after is not None:
        parts |= {"after": disposition.after, "max_per_poll": disposition.max_per_poll}
    return {key: value for key, value in parts.items() if value}


class _DispositionSchema:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            parse_disposition, serialization=core_schema.plain_serializer_function_ser_schema(write_disposition)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        flag = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        fields: dict[str, Any] = {
            "seen": {"type": "boolean"},
            "flag": flag,
            "move": {"type": "string"},
            "delete": {"type": "boolean"},
        }
        fields["after"] = {"type": "string", "pattern": _DURATION_PATTERN}
        fields["max_per_poll"] = {"type": "integer", "minimum": 1, "maximum": 10_000}
        return {
            "anyOf": [
                {"enum": ["seen", "leave", "delete"]},
                {"type": "object", "properties": fields, "additionalProperties": False},
            ]
        }


DispositionLiteral = Annotated[Disposition, _DispositionSchema]
"""What is done on the server to a settled message: ``seen``, ``leave``, ``delete``, ``{move: Processed}``, ``{flag:
$Done}``."""
