"""The URL of a webhook: often half a secret, so only a part of it is ever shown."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_MASK = "********"


class HookUrl:
    """``https://HOST[:PORT]/PATH[?QUERY]``. ``str`` and ``repr`` mask the query, which may be a key.

    ``host`` is in lower case and without brackets. Raises ValueError, which shows nothing of it.
    """

    __slots__ = ("_written", "host", "path", "port", "query", "secure")

    def __init__(self, written: str) -> None:
        try:
            parts = urlsplit(written)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("a URL is https://HOST/PATH; its port is a number up to 65535") from None
        if parts.scheme not in ("https", "http") or not host or port == 0:
            raise ValueError("a URL is https://HOST/PATH")
        if parts.username is not None or parts.password is not None:
            raise ValueError("no user and no password stands in a URL: say username and password")
        if parts.fragment or not all("!" <= one <= "~" for one in written):
            raise ValueError("a URL is of ASCII, without spaces and without a fragment; write others as %XX and xn--")
        self._written = written
        self.secure = parts.scheme == "https"
        self.host = host
        self.port = port or (443 if self.secure else 80)
        self.path = parts.path
        self.query = parts.query

    @property
    def netloc(self) -> str:
        """Host and port as the field Host has them (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def whole(self, usual_path: str = "") -> str:
        """What is asked, with all that is secret in it. ``usual_path``: where the URL has none of its own."""
        path = self.path if self.path.strip("/") else usual_path or self.path or "/"
        return f"{self._origin}{path}" + (f"?{self.query}" if self.query else "")

    @property
    def secrets(self) -> list[str]:
        """What a service must not be quoted with: the query and each value in it, and each long part of the path."""
        found = [self.query, *(value for _, value in parse_qsl(self.query))]
        found += [part for one in self.path.split("/") if len(one) >= 16 for part in (one, unquote(one))]
        return [one for one in dict.fromkeys(found) if one]

    @property
    def _origin(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.netloc}"

    def __str__(self) -> str:
        return f"{self._origin}{self.path}" + (f"?{_MASK}" if self.query else "")

    def __repr__(self) -> str:
        return f"HookUrl({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HookUrl) and self._written == other._written

    def __hash__(self) -> int:
        return hash(self._written)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: object) -> HookUrl:
            if isinstance(value, HookUrl):
                return value
            if not isinstance(value, str):
                raise ValueError("a URL is text: https://HOST/PATH")
            return cls(value)

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": "^https?://", "examples": ["https://hooks.example.com/mail"]}
