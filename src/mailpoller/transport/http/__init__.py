"""HTTP as a client of one service speaks it: the client, what goes wrong, and the wires beneath."""

from mailpoller.transport.http.client import Bearer, HttpAnswer, HttpClient
from mailpoller.transport.http.errors import (
    HttpCut,
    HttpError,
    HttpSilence,
    HttpStatus,
    IntakeTrouble,
    Unauthorized,
    error_of,
    faults,
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
    "retry_after",
]
