"""Logging in to a strict Exchange: NTLM with real handshakes, bound to the TLS channel, Basic, tokens, and whose
mailbox it is."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.core.literals import Secret
from mailpoller.core.ports import Stage
from mailpoller.sources.ews import authentication
from mailpoller.sources.ews.authentication import Challenge, PasswordLogin
from mailpoller.testing.source_suite import connected, fetched, letter
from servers.ews import Rig, listed
from servers.exchange import Exchange, Upset, exchange
from servers.smtp import make_certificate


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


async def reads(rig: Rig, **settings: Any) -> None:
    """Log in, and read the one message that is there."""
    if not rig.server.mails():
        rig.server.deliver(letter(1))
    async with connected(rig.source(**settings)) as session:
        _, refs, _ = await listed(session)
        assert list((await fetched(session, refs)).values()) == [letter(1)]


# --- passwords -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("offers", [["NTLM"], ["Negotiate"], ["Negotiate", "NTLM", "Basic"]], ids="-".join)
async def test_ntlm_logs_in_a_connection_once(stack: ExitStack, tmp_path: Path, offers: list[str]) -> None:
    server = stack.enter_context(exchange(offers=offers))
    await reads(Rig(server, tmp_path))
    assert server.requests.count("LOGIN") == 1
    assert server.refusals == 0
    assert len(server.requests) > 4


async def test_ntlm_is_bound_to_the_channel_where_the_server_demands_it(stack: ExitStack, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = stack.enter_context(exchange(offers=["NTLM"], certificate=certificate.path))
    await reads(Rig(server, tmp_path), ca_file=str(certificate.path))
    await reads(Rig(server, tmp_path), pin=certificate.fingerprint)
    assert server.requests.count("LOGIN") == 2


async def test_ntlm_that_is_not_bound_to_the_channel_is_refused_by_such_a_server(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of the test above really looks: it is not let pass by anything."""
    certificate = make_certificate(tmp_path)
    server = stack.enter_context(exchange(offers=["NTLM"], certificate=certificate.path))
    monkeypatch.setattr(authentication, "certificate_hash", lambda _: b"another certificate")
    with pytest.raises(CredentialsRefused):
        await reads(Rig(server, tmp_path), pin=certificate.fingerprint)


@pytest.mark.parametrize("offers", [["NTLM"], ["Negotiate"], ["Basic"], ["NTLM", "Basic"]], ids="-".join)
async def test_wrong_password_is_tried_once(stack: ExitStack, tmp_path: Path, offers: list[str]) -> None:
    """Servers lock accounts after a few attempts."""
    server = stack.enter_context(exchange(offers=offers))
    with pytest.raises(CredentialsRefused, match=r"refuses the login of EXAMPLE\\svc \(HTTP 401\)"):
        await Rig(server, tmp_path).source(password="wrong").connect()
    assert server.refusals == 1


async def test_pinned_mechanism_is_taken_and_no_other(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(exchange())
    rig = Rig(server, tmp_path)
    await reads(rig, auth={"mechanism": "basic"})
    assert "LOGIN" not in server.requests
    server.offers = ("Basic",)
    with pytest.raises(CredentialsRefused, match="offers basic for logging in, and we want ntlm"):
        await rig.source(auth={"mechanism": "ntlm"}).connect()
    assert server.refusals == 0, "no password was sent"


async def test_basic_goes_over_http_only_if_it_is_asked_for_by_name() -> None:
    challenge = Challenge({"basic": 'realm="x"'}, object())
    login = PasswordLogin("mail.example.com", "svc", Secret("secret"), "auto", secure=False)
    with pytest.raises(CredentialsRefused, match="Basic is not used over http"):
        await login.next(challenge)
    login = PasswordLogin("mail.example.com", "svc", Secret("secret"), "basic", secure=False)
    assert (await login.begin()).authorization.startswith("Basic ")
    login = PasswordLogin("mail.example.com", "svc", Secret("secret"), "auto", secure=True)
    assert (await login.next(challenge)).authorization.startswith("Basic ")


async def test_connection_that_is_cut_is_logged_in_anew_without_notice(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(exchange(offers=["NTLM"]))
    server.deliver(letter(1))
    async with connected(Rig(server, tmp_path).source()) as session:
        for _ in range(3):
            assert len((await listed(session))[1]) == 1
            server.cut()
    assert server.requests.count("LOGIN") == 3
    assert server.refusals == 0


async def test_password_that_was_changed_is_told_in_the_middle_of_a_session(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(exchange(offers=["Basic"]))
    session = await Rig(server, tmp_path).source().connect()
    server.password = "another"
    with pytest.raises(CredentialsRefused):
        await session.open("inbox")
    await session.close()


async def test_certificate_that_nobody_trusts_is_no_wrong_password(stack: ExitStack, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = stack.enter_context(exchange(certificate=certificate.path))
    for settings, words in (({}, "not trusted"), ({"pin": "ab" * 32}, "not the pinned one")):
        with pytest.raises(TransientError, match=words):
            await Rig(server, tmp_path).source(**settings).connect()
    assert server.refusals == 0


# --- tokens --------------------------------------------------------------------------------------------------------
class Provider:
    """A token endpoint that gives out ``tokens``, one after the other, and counts."""

    def __init__(self, tokens: list[str]) -> None:
        self.asked = 0
        self.scopes: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from urllib.parse import parse_qs

                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                provider.scopes += form.get("scope", [])
                body = (
                    f'{{"access_token": "{tokens[min(provider.asked, len(tokens) - 1)]}", "token_type": "Bearer", '
                    '"expires_in": 3600}'
                ).encode()
                provider.asked += 1
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def auth(self) -> dict[str, Any]:
        return {
            "type": "oauth2",
            "grant": "client_credentials",
            "client_id": "app",
            "client_secret": "s3cret",
            "token_url": f"http://127.0.0.1:{self.server.server_address[1]}/token",
        }

    def __enter__(self) -> Provider:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


APP = {"password": None, "mailbox": "support@example.com", "access": "impersonation"}


async def test_token_lets_an_application_in_in_the_owners_name(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(exchange(offers=["Bearer"]))
    provider = stack.enter_context(Provider(["token-1"]))
    server.tokens = {"token-1"}
    await reads(Rig(server, tmp_path), auth={**provider.auth(), "scopes": ["https://mail/.default"]}, **APP)
    assert provider.asked == 1
    assert provider.scopes == ["https://mail/.default"]


async def test_refused_token_is_told_and_never_shown(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(exchange(offers=["Bearer"]))
    provider = stack.enter_context(Provider(["token-that-nobody-wants"]))
    with pytest.raises(CredentialsRefused, match="refuses the token") as caught:
        await Rig(server, tmp_path).source(auth=provider.auth(), **APP).connect()
    assert "token-that-nobody-wants" not in str(caught.value)
    assert server.refusals <= 2


# --- whose mailbox -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("access", ["delegate", "impersonation"])
async def test_shared_mailbox_is_entered_as_configured(stack: ExitStack, tmp_path: Path, access: str) -> None:
    server = stack.enter_context(exchange(offers=["Basic"]))
    await reads(Rig(server, tmp_path), mailbox="support@example.com", access=access)


async def test_right_to_impersonate_that_lacks_is_told_in_the_servers_words(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(exchange(offers=["Basic"]))
    server.may_impersonate = False
    with pytest.raises(CredentialsRefused, match="ErrorImpersonateUserDenied"):
        await Rig(server, tmp_path).source(mailbox="support@example.com", access="impersonation").connect()


@pytest.mark.parametrize("access", ["delegate", "impersonation"])
async def test_mailbox_that_does_not_exist_is_told(stack: ExitStack, tmp_path: Path, access: str) -> None:
    server = stack.enter_context(exchange(offers=["Basic"]))
    with pytest.raises(CredentialsRefused, match="ErrorNonExistentMailbox"):
        await Rig(server, tmp_path).source(mailbox="nobody@example.com", access=access).connect()


# --- no password goes elsewhere ------------------------------------------------------------------------------------
async def test_credentials_follow_no_redirect(stack: ExitStack, tmp_path: Path) -> None:
    elsewhere = stack.enter_context(exchange(offers=["Basic"]))
    server = stack.enter_context(exchange(offers=["Basic"]))
    for status in (301, 302, 307, 308):
        server.upset(None, Upset.page(status, Location=elsewhere.url.replace("localhost", "127.0.0.1")))
        with pytest.raises(
            MailpollerError, match=rf"redirects to 127\.0\.0\.1 \(HTTP {status}\), which is not followed"
        ):
            await Rig(server, tmp_path).source().connect()
    assert elsewhere.requests == []
    assert elsewhere.refusals == 0


# --- the probe -----------------------------------------------------------------------------------------------------
async def probed(rig: Rig, *dispositions: Disposition, **settings: Any) -> list[Stage]:
    return [stage async for stage in rig.source(**settings).probe(dispositions)]


async def test_probe_goes_through_every_stage(stack: ExitStack, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = stack.enter_context(exchange(certificate=certificate.path))
    server.deliver(letter(1))
    stages = await probed(Rig(server, tmp_path), Disposition(move="Done"), ca_file=str(certificate.path))
    assert [stage.name for stage in stages] == ["dns", "tcp", "tls", "login", "folder", "message", "disposition"]
    assert all(stage.ok for stage in stages)
    assert stages[-1].detail == "Done does not exist and will be created"
    assert not server.has("Done")


async def test_probe_refuses_a_target_that_is_polled_itself(stack: ExitStack, tmp_path: Path) -> None:
    server = stack.enter_context(exchange())
    server.add_folder("Done")
    stages = await probed(Rig(server, tmp_path), Disposition(move="Done"), folders=["inbox", "Done"])
    assert not stages[-1].ok
    assert stages[-1].detail == "Done is itself polled: messages would be moved onto themselves"


@pytest.mark.parametrize(
    ("change", "settings", "stage", "words", "advice"),
    [
        ({}, {"url": "https://mail.invalid/EWS/Exchange.asmx"}, "dns", "DNS", "getent hosts"),
        ({}, {"url": "http://127.0.0.1:9/EWS/Exchange.asmx"}, "tcp", "cannot connect", "nc -vz"),
        ({}, {"password": "wrong"}, "login", "refuses the login", "EXAMPLE\\login"),
        ({}, {"password": "env:NO_SUCH_SECRET"}, "login", "NO_SUCH_SECRET", "configuration"),
        ({"offers": ("Basic",)}, {"auth": {"mechanism": "ntlm"}}, "login", "offers basic",
        "WebServicesVirtualDirectory"),
        ({}, {"mailbox": "nobody@example.com"}, "login", "ErrorNonExistentMailbox", "primary SMTP address"),
        ({"may_impersonate": False}, APP | {"password": "secret"}, "login", "ErrorImpersonate",
        "ApplicationImpersonation"),
        ({}, {"folders": ["Nowhere"]}, "folder", "there is no folder Nowhere; at the top there are: Deleted "
                                                 "Items", "MailboxPermission"),
        ({"rights": {"Read": False}}, {}, "folder", "the right Read", "MailboxPermission"),
        ({"rights": {"Modify": False}}, {}, "disposition", "the right Modify", "Editor"),
        ({"rights": {"Delete": False}}, {}, "disposition", "the right Delete", "Editor"),
        ({"rights": {"CreateHierarchy": False}}, {}, "disposition", "the right CreateHierarchy", "Editor"),
    ],
)  # fmt: skip
async def test_probe_says_what_to_do_about_the_first_failure(
    stack: ExitStack,
    tmp_path: Path,
    change: dict[str, Any],
    settings: dict[str, Any],
    stage: str,
    words: str,
    advice: str,
) -> None:
    server = stack.enter_context(exchange())
    for name, value in change.items():
        if isinstance(value, dict):
            getattr(server, name).update(value)
        else:
            setattr(server, name, value)
    stages = await probed(Rig(server, tmp_path), Disposition(seen=True, move="Done"), **settings)
    assert [one.ok for one in stages] == [True] * (len(stages) - 1) + [False]
    assert stages[-1].name == stage
    assert words in stages[-1].detail
    assert advice in stages[-1].advice
    assert "wrong" not in stages[-1].detail


async def test_no_secret_is_in_an_error_or_a_log(
    stack: ExitStack, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    password = "correct horse battery"
    server = stack.enter_context(exchange(offers=["Basic"], password="another"))
    told = []
    for mechanism in ("auto", "basic"):
        with pytest.raises(CredentialsRefused) as caught:
            await Rig(server, tmp_path).source(password=password, auth={"mechanism": mechanism}).connect()
        told.append(f"{caught.value!r} {caught.value.__cause__!r}")
    server.password = password
    quoted = base64.b64encode(f"EXAMPLE\\svc:{password}".encode()).decode()
    server.upset(None, Upset.page(500, f"You sent {quoted} {password}".encode()))
    with pytest.raises(MailpollerError) as other:
        await Rig(server, tmp_path).source(password=password).connect()
    told.append(repr(other.value))
    out, err = capsys.readouterr()
    everything = "".join([*told, out, err, caplog.text])
    assert password not in everything
    assert quoted not in everything


def test_server_of_these_tests_refuses_what_the_contract_does_not_have() -> None:
    """A server that lets everything pass would prove nothing."""
    login = base64.b64encode(b"EXAMPLE\\svc:secret").decode()
    good = {
        "Content-Type": "text/xml; charset=utf-8",
        "Accept": "text/xml",
        "User-Agent": "test",
        "Authorization": f"Basic {login}",
    }
    body = (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:m="http://schemas.microsoft.com/exchange/'
        'services/2006/messages" xmlns:t="http://schemas.microsoft.com/exchange/services/2006/types"><s:Header>'
        "<t:RequestServerVersion "
        'Version="Exchange2013_SP1"/></s:Header><s:Body><m:GetFolder><m:FolderShape><t:BaseShape>IdOnly'
        "</t:BaseShape></m:FolderShape><m:FolderIds><t:DistinguishedFolderId "
        'Id="inbox"/></m:FolderIds></m:GetFolder></s:Body></s:Envelope>'
    )
    with Exchange(offers=["Basic"]) as server:

        def status(method: str = "POST", body: str = body, **headers: str) -> int:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
            connection.request(method, "/EWS/Exchange.asmx", body.encode(), good | headers)
            return connection.getresponse().status

        assert status() == 200
        assert server.complaints == []
        for old, new in (
            ("<m:FolderIds>", "<m:Strange/><m:FolderIds>"),
            ("<t:BaseShape>IdOnly</t:BaseShape>", ""),
            ('Id="inbox"', 'Name="inbox"'),
            ("m:GetFolder", "m:GetEverything"),
            ("Exchange2013_SP1", "Exchange1999"),
        ):
            assert status(body=body.replace(old, new)) == 500, new
        for name in ("Content-Type", "Accept"):
            assert status(**{name: "text/plain"}) == 500, name
        assert len(server.complaints) == 7
        assert status("GET") == 500
