"""HTTP as a client of one service speaks it: the client, what goes wrong, and the wires beneath."""

from mailpoller.wire.http.answer import HttpAnswer
from mailpoller.wire.http.client import Bearer, HttpClient
from mailpoller.wire.http.errors import (
    HttpCut,
    HttpError,
    HttpSilence,
    HttpStatus,
    IntakeTrouble,
    Unauthorized,
    error_of,
    faults,
    http_date,
    iso_date,
    retry_after,
)

__all__ = [
    "Bearer",
    "HttpAnswer",
    "HttpClient",
    "HttpCut",
    "HttpError",
    "HttpSilence",
    "HttpStatus",
    "IntakeTrouble",
    "Unauthorized",
    "error_of",
    "faults",
    "http_date",
    "iso_date",
    "retry_after",
]
