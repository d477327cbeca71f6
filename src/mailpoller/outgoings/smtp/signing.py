"""Signing what leaves (DKIM, RFC 6376; Ed25519 by RFC 8463): with dkimpy, at each attempt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import getaddresses
from typing import Annotated

import pybase64
from pydantic import StringConstraints

from mailpoller.core.component import Block
from mailpoller.core.errors import ConfigError, MessageRejected
from mailpoller.core.extras import Extra, without
from mailpoller.core.literals import Secret
from mailpoller.core.record import record

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_NAME = rf"^{_LABEL}(?:\.{_LABEL})*$"
_SMALLEST = 1024
"""Bits of an RSA key that verifiers accept at all (RFC 8301 section 3.2)."""


class DkimKey(Block):
    """A key that mail is signed with, and where its public half stands."""

    domain: Annotated[str, StringConstraints(pattern=rf"^{_LABEL}(?:\.{_LABEL})+$", max_length=253, to_lower=True)]
    """Mail is signed whose From is of this domain, or of one below it; in A-labels (``xn--…``) if it is not ASCII."""
    selector: Annotated[str, StringConstraints(pattern=_NAME, max_length=100)]
    """The public key is the TXT record of ``SELECTOR._domainkey.DOMAIN``."""
    key: Secret
    """The private key, in PEM: RSA of 1,024 bits at least (2,048 is usual), or Ed25519."""

    def extras(self) -> Iterator[Extra]:
        """What signs."""
        yield Extra("key", "dkim", "mailpoller[dkim]")


@record
class PrivateKey:
    """As dkimpy takes it, and its public half as the record in the DNS has it."""

    algorithm: bytes
    octets: bytes
    public: str


class Signer:
    """Signs with all of these keys that are for a mail's domain. A key is read anew for every mail."""

    def __init__(self, keys: Sequence[DkimKey]) -> None:
        self.keys = tuple(keys)
        self._read: dict[str, PrivateKey] = {}
        """By their text, those of last time: parsing one takes milliseconds."""

    def signed(self, octets: bytes) -> bytes:
        """The mail below its signatures; as it is if no key is for it. Costs time in proportion to it: for a thread.

        Raises :class:`ConfigError` if a key cannot be read, and :class:`MessageRejected` if the mail cannot be signed.
        """
        domain = author_domain(octets)
        keys = [one for one in self.keys if domain == one.domain or domain.endswith(f".{one.domain}")]
        return b"".join([*(self._signature(one, octets) for one in keys), octets])

    def records(self) -> list[str]:
        """What must stand in the DNS for each key. Raises :class:`ConfigError`."""
        found = []
        for one in self.keys:
            key = self._private(one)
            kind = "rsa" if key.algorithm == b"rsa-sha256" else "ed25519"
            found.append(f"{one.selector}._domainkey.{one.domain} TXT v=DKIM1; k={kind}; p={key.public}")
        return found

    def _signature(self, one: DkimKey, octets: bytes) -> bytes:
        import dkim  # what only some need is not loaded for all

        key = self._private(one)
        try:
            return bytes(
                dkim.sign(
                    octets,
                    one.selector.encode("ascii"),
                    one.domain.encode("ascii"),
                    key.octets,
                    canonicalize=(b"relaxed", b"relaxed"),
                    signature_algorithm=key.algorithm,
                )
            )
        except (dkim.DKIMException, ValueError, IndexError) as error:
            raise MessageRejected(f"it cannot be signed: {type(error).__name__}: {str(error)[:200]}") from None

    def _private(self, one: DkimKey) -> PrivateKey:
        text = one.key.reveal()
        if text not in self._read:
            if len(self._read) >= len(self.keys):
                self._read.clear()
            self._read[text] = _private(text)
        return self._read[text]


def author_domain(octets: bytes) -> str:
    """The domain of the mail's From, in small letters; "" unless it has one author."""
    end = octets.find(b"\r\n\r\n")
    header = BytesHeaderParser(policy=compat32).parsebytes(octets if end < 0 else octets[: end + 4])
    authors = getaddresses([str(one) for one in header.get_all("From", [])])
    _, at, domain = authors[0][1].rpartition("@") if len(authors) == 1 else ("", "", "")
    return domain.lower() if at else ""


def _private(text: str) -> PrivateKey:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    except ModuleNotFoundError as error:
        raise without(error) from None
    try:
        key = serialization.load_pem_private_key(text.encode("utf-8"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"the DKIM key is no private key in PEM without a password ({type(error).__name__})"
        ) from None
    encoding, form = serialization.Encoding, serialization.PrivateFormat
    if isinstance(key, Ed25519PrivateKey):
        seed = key.private_bytes(encoding.Raw, form.Raw, serialization.NoEncryption())
        public = key.public_key().public_bytes(encoding.Raw, serialization.PublicFormat.Raw)
        return PrivateKey(b"ed25519-sha256", pybase64.b64encode(seed), pybase64.b64encode(public).decode("ascii"))
    if isinstance(key, RSAPrivateKey) and key.key_size >= _SMALLEST:
        octets = key.private_bytes(encoding.PEM, form.TraditionalOpenSSL, serialization.NoEncryption())
        shown = key.public_key().public_bytes(encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return PrivateKey(b"rsa-sha256", octets, pybase64.b64encode(shown).decode("ascii"))
    raise ConfigError(f"the DKIM key is neither Ed25519 nor RSA of {_SMALLEST:,} bits at least")
