"""What a probe says of servers that are something else, say nothing, or are not believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mailpoller.wire.probe.causes import distrust, handshake
from servers.mailboxes import imap_source
from servers.pop3_mailboxes import pop3_source


@asynccontextmanager
async def greeting_with(words: bytes) -> AsyncIterator[int]:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await over.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("service", "words", "advice"),
    [
        ("IMAP", b"+OK ready <1@x>\r\n", "This server speaks POP3 here: name the port of IMAP, or say type: pop3."),
        ("POP3", b"* OK [CAPABILITY IMAP4rev1] ready\r\n", "This server speaks IMAP here: name the port of POP3"),
        ("IMAP", b"220 mx.example.com ESMTP\r\n", "This server speaks SMTP or FTP here: name the port of IMAP."),
        ("POP3", b"HTTP/1.1 400 Bad Request\r\n", "This server speaks HTTP here"),
        ("IMAP", b"SSH-2.0-OpenSSH_9.2\r\n", "This server speaks SSH here"),
        ("IMAP", b"", "If it says nothing at all, a firewall"),
    ],
)
async def test_a_port_of_another_protocol_is_known_by_its_greeting(
    tmp_path: Path, service: str, words: bytes, advice: str
) -> None:
    make = imap_source if service == "IMAP" else pop3_source
    async with greeting_with(words) as port:
        source = make(tmp_path, port, "joe", password="secret", connect_timeout="500ms")
        stages = [stage async for stage in source.probe([])]
    assert (stages[-1].name, stages[-1].ok) == ("greeting", False)
    assert advice in stages[-1].advice


@pytest.mark.parametrize(
    ("openssl", "advice"),
    [
        ("certificate has expired", "have it renewed"),
        ("certificate is not yet valid", "this machine's clock"),
        ("Hostname mismatch, certificate is not valid for 'mail.example.com'.", "subjectAltName"),
        ("IP address mismatch, certificate is not valid for '192.0.2.1'.", "subjectAltName"),
        ("unable to get local issuer certificate", "without the intermediate ones"),
        ("self-signed certificate in certificate chain", "name it with ca_file"),
        ("self-signed certificate", "pin it: openssl s_client -connect mail.example.com:993"),
    ],
)
def test_a_certificate_is_answered_by_what_is_wrong_with_it(openssl: str, advice: str) -> None:
    assert advice in distrust(f"TLS: the certificate of x is not trusted: {openssl}", "mail.example.com:993")


def test_a_handshake_with_an_old_server_names_the_version() -> None:
    assert "older than 1.2, which" in handshake(
        "TLS: the handshake with x failed: tlsv1 alert protocol version", "x:993"
    )
    assert "does it speak TLS" in handshake("TLS: no handshake with x within 5 s", "x:993")
