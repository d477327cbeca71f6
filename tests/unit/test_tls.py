"""TLS as a client: whose certificate is good for which name, how old a version may be, and nothing left open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from mailpoller.core.errors import ConfigError, MailpollerError, TransientError
from mailpoller.wire.dial import adopt, dial
from mailpoller.wire.literals import HostName
from mailpoller.wire.tls import TlsPolicy, agreed, secure
from servers.certificates import Certificate, make_certificate

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"), host="mail.example")


@asynccontextmanager
async def transport_to(context: ssl.SSLContext) -> AsyncIterator[asyncio.Transport]:
    """A plain connection to a server that speaks TLS by ``context``."""

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(read, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        transport = await adopt(asyncio.Protocol(), await dial("127.0.0.1", port, seconds=5))
        try:
            yield transport
        finally:
            transport.abort()


async def attempt(certificate: Certificate, host: str, context: ssl.SSLContext | None = None) -> str:
    """TLS with the name ``host``: what was agreed to."""
    policy = TlsPolicy(ca_file=certificate.path)
    async with transport_to(context or certificate.context()) as transport:
        secured = await secure(transport, asyncio.Protocol(), policy, host, 5)
        secured.abort()
        return agreed(secured)


@pytest.mark.parametrize("host", ["mail.example", "mail.example.", "MAIL.example"])
async def test_certificate_is_good_for_its_name_however_that_is_written(certificate: Certificate, host: str) -> None:
    assert (await attempt(certificate, host)).startswith("TLSv1.")


@pytest.mark.parametrize("host", ["other.example", "mail.example.org", "127.0.0.1", "a.mail.example"])
async def test_certificate_is_good_for_no_other_name(certificate: Certificate, host: str) -> None:
    with pytest.raises(TransientError, match="not trusted"):
        await attempt(certificate, host)


async def test_version_that_is_broken_is_not_spoken(certificate: Certificate) -> None:
    context = certificate.context()
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(TransientError, match=r"handshake with mail\.example failed: \w+"):
        await attempt(certificate, "mail.example", context)
    for policy in (TlsPolicy(), TlsPolicy(pin="0" * 64)):
        assert policy.context().minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("host", [".example", "a..b", "a" * 64 + ".example"])
async def test_name_that_is_none_is_an_error_in_words(certificate: Certificate, host: str) -> None:
    with pytest.raises(TransientError, match="is not a host's name"):
        await attempt(certificate, host)


async def test_ca_file_that_has_gone_leaves_no_connection_open(certificate: Certificate, tmp_path: Path) -> None:
    policy = replace(TlsPolicy(), ca_file=tmp_path / "gone.pem")
    async with transport_to(certificate.context()) as transport:
        with pytest.raises(ConfigError):
            await secure(transport, asyncio.Protocol(), policy, "mail.example", 5)
        assert transport.is_closing()


async def test_certificate_that_took_the_place_of_the_pinned_one_is_told_and_a_new_pin_takes_it(
    certificate: Certificate,
) -> None:
    async def pinned(pin: str) -> None:
        async with transport_to(certificate.context()) as transport:
            (await secure(transport, asyncio.Protocol(), TlsPolicy(pin=pin), "any.example", 5)).abort()

    with pytest.raises(MailpollerError, match="which is not the pinned one") as caught:
        await pinned("0" * 64)
    await pinned(next(word.rstrip(",") for word in str(caught.value).split() if len(word.rstrip(",")) == 64))


@pytest.mark.parametrize("host", [".example", "a..b", "a" * 64 + ".example"])
def test_name_that_is_none_is_refused_by_the_configuration(host: str) -> None:
    with pytest.raises(ValidationError, match="between the dots"):
        TypeAdapter(HostName).validate_python(host)
    assert TypeAdapter(HostName).validate_python("ümlaut.example.") == "ümlaut.example."
