"""What an error of the first steps towards a server tells of its cause, and what to do about it."""

from __future__ import annotations

import re

_BEGINS = (
    (r"\+OK", "POP3", "POP3"),
    (r"\* (OK|PREAUTH|BYE)", "IMAP", "IMAP"),
    (r"220[ -]", "SMTP or FTP", ""),
    (r"HTTP/\d", "HTTP", ""),
    (r"SSH-\d", "SSH", ""),
)
"""How servers greet, what they speak, and the service that we know by it."""


def whose_greeting(said: str, service: str) -> str:
    """What to do about a greeting, quoted in ``said``, that is another protocol's than that of ``service``; empty if it
    is not known."""
    for pattern, speaks, known in _BEGINS:
        if known != service and re.search(rf": {pattern}", said):
            other = f", or say type: {known.lower()}" if known else ""
            return f"This server speaks {speaks} here: name the port of {service}{other}."
    return ""


def distrust(said: str, place: str) -> str:
    """What to do about a certificate that is not trusted, by what OpenSSL said of it. ``place``: HOST:PORT."""
    look = f"openssl s_client -connect {place} </dev/null | openssl x509 -noout"
    if "expired" in said:
        return f"It has expired: have it renewed. If it has not ({look} -dates), this machine's clock is wrong: date"
    if "not yet valid" in said:
        return f"It begins later than this machine's clock says it is: date; {look} -dates"
    if "mismatch" in said or "not valid for" in said:
        return f"It was made for other names: use one of them as host. {look} -ext subjectAltName"
    if "self-signed certificate in certificate chain" in said or "self-signed" not in said:
        return (
            "The server may send its own certificate without the intermediate ones, which is the server's to mend "
            f"(openssl s_client -connect {place} shows the chain). If its CA, or that of a proxy of yours that opens "
            "TLS on the way, is right and not known here, name it with ca_file."
        )
    return (
        f"It signs itself: name it with ca_file, or pin it: {look} -fingerprint -sha256. A proxy of yours that opens "
        "TLS on the way may have put it there."
    )


def handshake(said: str, place: str) -> str:
    """What to do about a handshake that failed otherwise."""
    if "protocol version" in said or "unsupported protocol" in said:
        look = f"openssl s_client -connect {place}"
        return f"The server speaks only versions of TLS that are older than 1.2, which is its to mend: {look}"
    if "no handshake" in said:
        return f"The port takes connections and does not answer: does it speak TLS at all? nc {place.replace(':', ' ')}"
    return f"See what the server speaks: openssl s_client -connect {place}"
