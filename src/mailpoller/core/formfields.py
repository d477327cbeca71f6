"""The fields of a message that rules set, or take out of its text: what a web form asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import StringConstraints

Value = str | int | float | bool | tuple[str, ...] | None
"""None: there is something, and it is not of the type that is wanted."""

Fields = Mapping[str, Value]

NO_FIELDS: Fields = {}

FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
"""What a field is called in the event: a letter, then letters, digits and ``_``, at most 64."""
