"""The table of hostile servers: what each does on a connection. One short function a scenario; see hostile.py."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from rig import hostility_imap  # noqa: F401  its scenarios are in the table too
from rig.rude import Said, Wire
from rig.scenario import MILLION, SCENARIOS, Scenario, after, scenario

__all__ = ["SCENARIOS", "Scenario"]

_POP3: dict[str, Said] = {
    "CAPA": b"+OK\r\nUIDL\r\nUSER\r\nTOP\r\n.\r\n",
    "STAT": b"+OK 0 0\r\n",
    "UIDL": b"+OK\r\n.\r\n",
    "LIST": b"+OK\r\n.\r\n",
}


def _pop3(wire: Wire, **said: Said) -> None:
    wire.lines(b"+OK ready\r\n", {**_POP3, **said}, b"+OK\r\n")


@scenario("pop3")
def pop3_greeting_drip(wire: Wire) -> None:
    wire.drip(b"+OK " + b"x" * 8000)


@scenario("pop3")
def pop3_early_flood(wire: Wire) -> None:
    wire.flood(b"+OK ready\r\n")


@scenario("pop3")
def pop3_capabilities(wire: Wire) -> None:
    _pop3(wire, CAPA=after(b"+OK\r\n", b"X\r\n"))


@scenario("pop3")
def pop3_uidl_flood(wire: Wire) -> None:
    _pop3(wire, UIDL=after(b"+OK\r\n", b"1 a\r\n"))


@scenario("pop3")
def pop3_uidl_short(wire: Wire) -> None:
    names = b"+OK\r\n" + b"".join(b"%d a\r\n" % number for number in range(1, 6_000_000)) + b".\r\n"
    sizes = names.replace(b" a", b" 1")
    _pop3(wire, UIDL=names, LIST=sizes, STAT=b"+OK 5999999 1\r\n")


@scenario("pop3")
def pop3_list_flood(wire: Wire) -> None:
    _pop3(wire, LIST=after(b"+OK\r\n", b"1 1\r\n"))


@scenario("pop3")
def pop3_unasked(wire: Wire) -> None:
    _pop3(wire, STAT=after(b"+OK 0 0\r\n", b"+OK\r\n"))


_BEGUN = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
_CHUNKED = _BEGUN + b"Transfer-Encoding: chunked\r\n\r\n"
_SOAP = b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><a '


@scenario("ews")
def http_header_drip(wire: Wire) -> None:
    wire.asked()
    wire.drip(_BEGUN + b"X-Long: " + b"x" * 10_000, 0.5)


@scenario("ews")
def http_headers(wire: Wire) -> None:
    wire.asked()
    wire.say(_BEGUN)
    wire.flood(b"X-More: and more\r\n")


@scenario("ews")
def http_informational(wire: Wire) -> None:
    wire.asked()
    wire.flood(b"HTTP/1.1 102 Processing\r\n\r\n")


@scenario("ews")
def http_tiny_chunks(wire: Wire) -> None:
    wire.asked()
    wire.say(_CHUNKED + b"%x\r\n%b\r\n" % (len(_SOAP), _SOAP))
    wire.flood(b"1\r\n \r\n")


@scenario("ews")
def http_chunk_extensions(wire: Wire) -> None:
    wire.asked()
    wire.say(_CHUNKED + b"%x\r\n%b\r\n" % (len(_SOAP), _SOAP))
    wire.flood(b"1;" + b"x" * 10_000 + b"\r\n \r\n")


@scenario("ews")
def http_gzip(wire: Wire) -> None:
    wire.asked()
    wire.say(_BEGUN + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
    wire.flood(b"10000\r\n" + b"\0" * 65536 + b"\r\n")


@scenario("ews")
def http_long_tag(wire: Wire) -> None:
    wire.asked()
    wire.say(_CHUNKED + b"%x\r\n%b\r\n" % (len(_SOAP), _SOAP))
    for number in range(1 << 30):
        piece = b"".join(b' a%d=""' % one for one in range(number * 1000, number * 1000 + 1000))
        wire.say(b"%x\r\n%b\r\n" % (len(piece), piece))


@scenario("ews")
def http_mixed_text(wire: Wire) -> None:
    wire.asked()
    first = _SOAP + b">"
    wire.say(_CHUNKED + b"%x\r\n%b\r\n" % (len(first), first))
    wire.flood(b"12c\r\n" + b"x" * 296 + b"<b/>\r\n")


@scenario("ews")
def http_ntlm(wire: Wire) -> None:
    while True:
        token = wire.asked().get("authorization", "")
        said = b"NTLM TlRMTVNTUAACAAAA/////////////////////wAAAAAAAAAA//////////8=" if token else b"NTLM"
        wire.say(b"HTTP/1.1 401 No\r\nWWW-Authenticate: %b\r\nContent-Length: 0\r\n\r\n" % said)


def _exchange(wire: Wire, page: Callable[[], bytes]) -> None:
    """A server on which all is well, but for the pages of the listing."""
    folder = b'<m:Folders><t:Folder><t:FolderId Id="inbox" ChangeKey="a"/></t:Folder></m:Folders>'
    while True:
        syncs = "SyncFolderItems" in wire.asked()[""]
        name = b"SyncFolderItems" if syncs else b"GetFolder"
        message = b'<m:%bResponseMessage ResponseClass="Success"><m:ResponseCode>NoError</m:ResponseCode>' % name
        message += (page() if syncs else folder) + b"</m:%bResponseMessage>" % name
        body = b'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" xmlns:m="m" xmlns:t="t"><s:Body>'
        body += b"<m:%bResponse><m:ResponseMessages>%b</m:ResponseMessages></m:%bResponse>" % (name, message, name)
        body += b"</s:Body></s:Envelope>"
        wire.say(_BEGUN + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


_PAGE = (
    b"<m:SyncState>state-%d</m:SyncState><m:IncludesLastItemInRange>%b</m:IncludesLastItemInRange>"
    b"<m:Changes>%b</m:Changes>"
)


@scenario("ews")
def http_pages(wire: Wire) -> None:
    """Always one more page of the listing, with one more message on it."""
    item = b'<t:Create><t:Message><t:ItemId Id="item-%d" ChangeKey="a"/></t:Message></t:Create>'
    numbers = itertools.count(1)

    def page() -> bytes:
        number = next(numbers)
        return _PAGE % (number, b"false", item % number)

    _exchange(wire, page)


@scenario("ews")
def http_retry_after(wire: Wire) -> None:
    while True:
        wire.asked()
        late = b"Retry-After: Mon, 01 Jan 99999999999999999999 00:00:00 GMT\r\n"
        wire.say(b"HTTP/1.1 503 Busy\r\n%bContent-Length: 0\r\n\r\n" % late)


@scenario("ews")
def http_endless_body(wire: Wire) -> None:
    """A hundred gigabytes, as announced."""
    wire.asked()
    wire.say(_BEGUN + b"Content-Length: 107374182400\r\n\r\n" + _SOAP[:-3] + b">")
    wire.flood(b"<b>x</b>")


@scenario("ews")
def http_trailers(wire: Wire) -> None:
    """Headers without an end behind the last chunk."""
    wire.asked()
    wire.say(_CHUNKED + b"0\r\n")
    wire.flood(b"X-More: and more\r\n")


@scenario("ews", honest=True, start="now")
def honest_two_million_items(wire: Wire) -> None:
    """A folder of two million messages; all of them are listed."""
    item = (
        b'<t:Create><t:Message><t:ItemId Id="%0140d" ChangeKey="a"/><t:Size>1000</t:Size>'
        b"<t:DateTimeReceived>2026-02-01T03:04:05Z</t:DateTimeReceived><t:IsRead>false</t:IsRead>"
        b"<t:LastModifiedTime>2026-02-01T03:04:05Z</t:LastModifiedTime></t:Message></t:Create>"
    )
    most = 2 * MILLION
    begins = itertools.count(0, 512)

    def page() -> bytes:
        begin = next(begins)
        numbers = range(begin, min(begin + 512, most))
        return _PAGE % (begin, b"true" if begin + 512 >= most else b"false", b"".join(item % one for one in numbers))

    _exchange(wire, page)


_SMTP: dict[str, Said] = {"EHLO": b"250-relay\r\n250 SIZE\r\n", "DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}


def _smtp(wire: Wire, **said: Said) -> None:
    wire.lines(b"220 ready\r\n", {**_SMTP, **said}, b"250 ok\r\n")


def _taking(then: Callable[[Wire], None]) -> Said:
    def take(wire: Wire, tag: str, arguments: str) -> None:
        wire.say(b"354 go on\r\n")
        while wire.line() != ".":
            pass
        then(wire)

    return take


@scenario("smtp")
def smtp_banner_drip(wire: Wire) -> None:
    wire.drip(b"220-" + b"x" * 10_000)


@scenario("smtp")
def smtp_banner_flood(wire: Wire) -> None:
    wire.flood(b"220-ready\r\n")


@scenario("smtp")
def smtp_ehlo_flood(wire: Wire) -> None:
    _smtp(wire, EHLO=after(b"250-relay\r\n", b"250-X\r\n"))


@scenario("smtp")
def smtp_recipient_flood(wire: Wire) -> None:
    _smtp(wire, RCPT=after(b"250-ok\r\n", b"250-and more\r\n"))


@scenario("smtp", quiet=True)
def smtp_after_data_drip(wire: Wire) -> None:
    """The answer to a mail may take ten minutes (RFC 5321 section 4.5.3.2.6)."""
    _smtp(wire, DATA=_taking(lambda wire: wire.drip(b"250-" + b"x" * 10_000)))


@scenario("smtp")
def smtp_after_data_flood(wire: Wire) -> None:
    _smtp(wire, DATA=_taking(lambda wire: wire.flood(b"250-x\r\n")))


@scenario("smtp", quiet=True)
def smtp_unasked(wire: Wire) -> None:
    """It takes the mail, and goes on talking on the line that is kept."""

    def flood(wire: Wire) -> None:
        wire.say(b"250 taken\r\n")
        time.sleep(0.5)
        wire.flood(b"250 and another thing\r\n")

    _smtp(wire, DATA=_taking(flood))


@scenario("imap", honest=True, start="all", disposition="leave")
def honest_million(wire: Wire) -> None:
    """A folder of a million messages; all of them are listed."""

    def fetch(wire: Wire, tag: str, arguments: str) -> bytes:
        words, _, items = arguments.partition(" ")
        uids: list[int] = []
        for part in words.split(","):
            low, _, high = part.partition(":")
            last = MILLION if high == "*" else int(high or low)
            uids += range(MILLION if low == "*" else int(low), last + 1)
        if "BODY" in items:
            tail = (
                b' FLAGS () INTERNALDATE " 1-Feb-2026 03:04:05 +0000" BODY[] {22}\r\nSubject: hi\r\n\r\nhello\r\n)\r\n'
            )
        else:
            tail = b' RFC822.SIZE 22 INTERNALDATE " 1-Feb-2026 03:04:05 +0000")\r\n'
        wire.say(b"".join(b"* %d FETCH (UID %d%b" % (uid, uid, tail) for uid in uids))
        return b"%T OK ok\r\n"

    def search(wire: Wire, tag: str, arguments: str) -> bytes:
        if "RETURN" not in arguments:
            return b"* SEARCH " + b" ".join(b"%d" % uid for uid in range(1, MILLION + 1)) + b"\r\n%T OK ok\r\n"
        # As sparse as it can be: no two uids stand together in a range.
        every = b",".join(b"%d" % uid for uid in range(1, MILLION + 1))
        return b'* ESEARCH (TAG "%T") UID ALL ' + every + b"\r\n%T OK ok\r\n"

    wire.imap({"FETCH": fetch, "SEARCH": search}, exists=MILLION)


@scenario("imap", honest=True, start="all", disposition="leave", max_message_size=30_000_000)
def honest_25_megabytes(wire: Wire) -> None:
    """Mails of 25 MB."""
    mail = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * (25_000_000 // 78)
    date = b'INTERNALDATE " 1-Feb-2026 03:04:05 +0000"'

    def fetch(wire: Wire, tag: str, arguments: str) -> bytes:
        octets = mail[:-6] + b"%04d\r\n" % (int(tag[-3:], 36) % 10_000 if tag[-3:].isalnum() else 0)
        head = b"* 1 FETCH (UID 1 FLAGS () " + date
        if "BODY" in arguments:
            return head + b" BODY[] {%d}\r\n%b)\r\n%%T OK ok\r\n" % (len(octets), octets)
        return b"* 1 FETCH (UID 1 RFC822.SIZE %d %b)\r\n%%T OK ok\r\n" % (len(mail), date)

    wire.imap({"FETCH": fetch, "SEARCH": b"* SEARCH 1\r\n%T OK ok\r\n"}, exists=1)


@scenario("pop3", start="all", quiet=True)
def pop3_retr_flood(wire: Wire) -> None:
    """A message without an end."""
    line = b"x" * 76 + b"\r\n"
    _pop3(wire, STAT=b"+OK 1 100\r\n", UIDL=b"+OK\r\n1 a\r\n.\r\n", LIST=b"+OK\r\n1 100\r\n.\r\n",
          TOP=after(b"+OK\r\n", line), RETR=after(b"+OK\r\n", line))  # fmt: skip


@scenario("pop3", honest=True, start="now", disposition="leave", poll_interval="30s")
def honest_64_megabytes_of_names(wire: Wire) -> None:
    """A maildrop of a million messages with names of 56 octets."""
    numbers = range(1, MILLION + 1)
    names = b"+OK\r\n" + b"".join(b"%d %056d\r\n" % (number, number) for number in numbers) + b".\r\n"
    sizes = b"+OK\r\n" + b"".join(b"%d 1000\r\n" % number for number in numbers) + b".\r\n"
    _pop3(wire, UIDL=names, LIST=sizes, STAT=b"+OK %d 1000000000\r\n" % MILLION)
