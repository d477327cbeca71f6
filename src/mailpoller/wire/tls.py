"""TLS as a policy: the modes, whom to trust, one context per policy, and connections with small buffers."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from asyncio import sslproto
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.record import record
from mailpoller.core.regular import LARGEST_FILE, require_regular

_MODES = Literal["tls", "starttls-required", "starttls", "none"]
_ALIASES = {"ssl-tls": "tls", "start-tls-required": "starttls-required", "start-tls": "starttls", False: "none"}
"""False is what YAML makes of ``off`` and ``no``."""


def _canonical(written: object) -> object:
    return _ALIASES.get(written, written) if isinstance(written, str | bool) else written


TlsMode = Annotated[_MODES, BeforeValidator(_canonical), WithJsonSchema({"enum": [*get_args(_MODES), *_ALIASES]})]
"""``tls``: from the first octet. ``starttls-required``: after STARTTLS, or not at all. ``starttls``: if the server
offers it. ``none``: never. Genesys' names ``ssl-tls``, ``start-tls-required`` and ``start-tls`` are taken too."""


def _fingerprint(written: str) -> str:
    bare = written.removeprefix("sha256:").replace(":", "").replace(" ", "").lower()
    if len(bare) != 64 or not set(bare) <= set("0123456789abcdef"):
        raise ValueError("a pin is the SHA-256 of the server's certificate: 64 hexadecimal digits, colons allowed")
    return bare


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
"""The SHA-256 of a certificate in DER, hexadecimal, as ``openssl x509 -fingerprint -sha256`` prints it."""


@record
class TlsPolicy:
    """Whom to trust. Equal policies share one :class:`ssl.SSLContext`, for each costs 40 ms and 0.8 MB.

    ``ca_file``: trust the certificates of this PEM file instead of the system's. ``pin``: trust exactly the certificate
    with this fingerprint, whoever signed it, whatever name it bears and however old it is. ``client_certificate``: ours
    (PEM), for servers that ask for one; ``client_key``: its key (PEM, not encrypted), if it is not in the same file.
    """

    ca_file: Path | None = None
    pin: str | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """The shared context. Reads a file anew once it has changed; raises :class:`ConfigError` if one is no use."""
        own = (self.client_certificate, self.client_key)
        changed = tuple(_changed(path) for path in (self.ca_file, *own))
        return _context(None if self.pin else self.ca_file, *own, changed, pinned=self.pin is not None)

    def check(self, certificate: bytes | None) -> None:
        """Raise :class:`TransientError` if there is a pin and ``certificate`` (DER) is not the pinned one."""
        if self.pin is None:
            return
        found = sha256(certificate or b"").hexdigest()
        if not hmac.compare_digest(found, self.pin):
            raise TransientError(f"TLS: the server's certificate has the SHA-256 {found}, which is not the pinned one")


def check_trust(policy: TlsPolicy) -> None:
    """What contradicts itself in a policy. Raises ValueError, for a validator."""
    if policy.ca_file is not None and policy.pin is not None:
        raise ValueError("ca_file and pin exclude each other: a pinned certificate is trusted whoever signed it")
    if policy.client_key is not None and policy.client_certificate is None:
        raise ValueError("client_key wants a client_certificate")


def _changed(path: Path | None) -> int:
    """When the file was changed, in nanoseconds. Raises :class:`ConfigError` if it cannot be seen, or is none: OpenSSL
    would wait for ever for what a FIFO brings."""
    try:
        return 0 if path is None else require_regular(path, LARGEST_FILE).st_mtime_ns
    except OSError as error:
        raise ConfigError(f"cannot use {path}: {error.strerror}") from None


@lru_cache(maxsize=64)
def _context(
    ca_file: Path | None, own: Path | None, key: Path | None, _changed_ns: tuple[int, ...], *, pinned: bool
) -> ssl.SSLContext:
    if pinned:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin is checked instead, before anything is sent
    else:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            reason = "no PEM certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(f"cannot use the CA file {ca_file}: {reason}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996, whatever the system's OpenSSL is configured to
    if own is not None:
        try:
            context.load_cert_chain(own, key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            reason = (
                "certificate and key do not fit, or are no PEM" if isinstance(error, ssl.SSLError) else error.strerror
            )
            raise ConfigError(f"cannot use the client certificate {own}: {reason}") from None
    return context


def _no_password() -> str:
    """Instead of OpenSSL's question on the terminal, should the key be encrypted."""
    return ""


class _FrugalTls(sslproto.SSLProtocol):
    """asyncio's TLS with a read buffer of 16 KB, one TLS record, instead of 256 KB.

    2,000 idle connections take 148 MB in place of 617 MB and large transfers are no slower. asyncio has no option for
    it; the buffer is made from this attribute, so a subclass changes it for our connections and nobody else's.
    """

    max_size = 16 * 1024


async def secure(
    transport: asyncio.Transport, protocol: asyncio.Protocol, policy: TlsPolicy, host: str, seconds: float
) -> asyncio.Transport:
    """Put TLS on a connected transport, within ``seconds``, and return the one that ``protocol`` uses from now on.

    ``connection_made`` is not called again. The caller has made sure that no octet of the plain connection is left.
    Raises :class:`TransientError` with the reason in words, never one that looks like wrong credentials; the
    connection is closed then.
    """
    loop = asyncio.get_running_loop()
    shaken: asyncio.Future[None] = loop.create_future()
    make: Any = _FrugalTls  # what follows is loop.start_tls, with our own protocol class
    steps: list[asyncio.Handle] = []
    try:
        tls: Any = make(
            loop, protocol, policy.context(), shaken,
            # which is about the DNS: certificates have names without it (RFC 6066 section 3)
            server_hostname=host.removesuffix("."),
            ssl_handshake_timeout=max(seconds, 0.1), ssl_shutdown_timeout=2.0, call_connection_made=False,
        )  # fmt: skip
        transport.pause_reading()
        transport.set_protocol(tls)
        steps += [loop.call_soon(tls.connection_made, transport), loop.call_soon(transport.resume_reading)]
        async with asyncio.timeout(seconds):
            await shaken
        secured: asyncio.Transport | None = tls._app_transport
        if secured is None:
            raise ConnectionResetError("the server closed the connection during the handshake")
        if policy.pin is not None:
            policy.check(secured.get_extra_info("ssl_object").getpeercert(binary_form=True))
        return secured
    except BaseException as error:
        for step in steps:
            step.cancel()
        transport.abort()
        if isinstance(error, OSError | TimeoutError | UnicodeError):
            raise TransientError(describe(error, host, seconds)) from error
        raise


def agreed(transport: asyncio.Transport) -> str:
    """The version of TLS and the cipher that both sides speak on a connection; empty without TLS."""
    cipher = transport.get_extra_info("cipher")
    return f"{cipher[1]} {cipher[0]}" if cipher else ""


def describe(error: BaseException, host: str, seconds: float) -> str:
    """What went wrong with TLS, for an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate of {host} is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        hint = " (does this port speak TLS from the first octet?)" if "wrong version" in reason else ""
        return f"TLS: the handshake with {host} failed: {reason}{hint}"
    if isinstance(error, TimeoutError):
        return f"TLS: no handshake with {host} within {seconds:g} s"
    if isinstance(error, UnicodeError):
        return f"TLS: {host} is not a host's name"
    return f"TLS: the handshake with {host} failed: {str(error) or 'the server closed the connection'}"
