"""Tokens: one source for all who share one, refreshed before it must be, and nothing lost on the way."""

from __future__ import annotations

import asyncio
import logging
import stat
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.wire.oauth import OAuthAuth, TokenRefused
from mailpoller.wire.oauth.store import Kept, TokenFile
from mailpoller.wire.oauth.tokens import TokenSource, token_source
from servers.web import Asked, Reply, Web, script

SECRET = "client-secret-that-nobody-may-see"
REFRESH = "refresh-token-that-nobody-may-see"
ACCESS = "access-token-that-nobody-may-see"


class Hands:
    """A clock that a test moves. ``suspended``: seconds that the machine slept, of which the monotonic clock knows
    nothing."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.suspended = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=self.at + self.suspended)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def given(number: int = 1, **more: object) -> Reply:
    return Reply(body={"access_token": f"{ACCESS}-{number}", "token_type": "Bearer", "expires_in": 3600, **more})


def refusing(error: str, words: str = "", status: int = 400) -> Reply:
    return Reply(status, {"error": error, "error_description": words})


class Rig:
    """A source of tokens before a scripted provider."""

    def __init__(self, web: Web, state: Path, **settings: Any) -> None:
        self.web = web
        self.clock = Hands()
        self.state = state
        self.settings = settings

    def auth(self, **more: Any) -> OAuthAuth:
        written = {
            "type": "oauth2", "grant": "client_credentials", "token_url": self.web.url + "/token", "client_id": "app",
            "client_secret": SECRET, "scopes": ["mail"], "timeout": "60s", **self.settings, **more,
        }  # fmt: skip
        return OAuthAuth.model_validate({key: value for key, value in written.items() if value is not None})

    def source(self, user: str = "ada@example.com", **more: Any) -> TokenSource:
        return token_source(self.auth(**more).terms("imap", user), self.state, self.clock)

    def file(self, user: str = "ada@example.com") -> TokenFile:
        return TokenFile(self.state, client_id="app", token_url=self.web.url + "/token", owner=user)


@pytest.fixture
async def web() -> Any:
    async with Web(script(given())) as made:
        yield made


REFRESHING: dict[str, Any] = {"grant": "refresh_token", "refresh_token": REFRESH, "client_secret": None}


# --- caching ---------------------------------------------------------------------------------------------------------
async def test_equal_terms_share_one_source_and_ask_once_however_many_wait(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(Reply(**{**vars_of(given()), "pause": 0.1}))
    sources = [rig.source(f"user{number}@example.com") for number in range(50)]
    assert len({id(source) for source in sources}) == 1
    assert set(await asyncio.gather(*(source.token() for source in sources))) == {f"{ACCESS}-1"}
    assert len(web.asked) == 1
    assert web.asked[0].form == {
        "grant_type": "client_credentials", "scope": "mail", "client_id": "app", "client_secret": SECRET,
    }  # fmt: skip


def vars_of(reply: Reply) -> dict[str, Any]:
    return {name: getattr(reply, name) for name in ("status", "body", "headers", "raw", "cut", "pause")}


async def test_other_terms_are_other_sources(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path)
    personal = Rig(web, tmp_path, **REFRESHING)
    found = [
        rig.source(), rig.source(scopes=["other"]), rig.source(client_id="other"), rig.source(client_secret="other"),
        personal.source("ada"), personal.source("bob"),
    ]  # fmt: skip
    assert len({id(one) for one in found}) == 6
    assert personal.source("shared", owner="ada") is found[4]


async def test_a_token_is_replaced_before_it_ends(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(given(1), given(2))
    source = rig.source()
    assert await source.token() == f"{ACCESS}-1"
    assert source.expires_at == rig.clock.now() + timedelta(hours=1)
    rig.clock.at += 3299
    assert await source.token() == f"{ACCESS}-1"
    rig.clock.at += 2
    assert await source.token() == f"{ACCESS}-2"


async def test_an_old_token_that_is_good_serves_while_the_provider_is_down(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(given(1), Reply(500), Reply(503, headers={"retry-after": "60"}), given(2))
    source = rig.source()
    await source.token()
    rig.clock.at += 3400
    assert await source.token() == f"{ACCESS}-1"
    asked = len(web.asked)
    assert await source.token() == f"{ACCESS}-1"
    assert len(web.asked) == asked, "a provider that has just failed is left alone"
    rig.clock.at += 100
    with pytest.raises(TransientError) as caught:
        await source.token()
    assert caught.value.retry_after == timedelta(seconds=60)
    rig.clock.at += 59
    with pytest.raises(TransientError):
        await source.token()
    rig.clock.at += 2
    assert await source.token() == f"{ACCESS}-2"


async def test_a_refused_token_is_replaced_once_and_a_young_one_not_at_all(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(given(1), given(2), given(3))
    source = rig.source()
    first = await source.token()
    assert not await source.refused(first), "it was given just now: another one would be refused, too"
    rig.clock.at += 61
    assert await source.refused(first)
    second = await source.token()
    assert second == f"{ACCESS}-2"
    assert await source.refused(first), "somebody else has replaced it already"
    assert await source.token() == second
    assert not await source.refused(second)


async def test_a_token_that_was_taken_and_is_refused_is_replaced_whatever_its_age_and_not_again_and_again(
    web: Web, tmp_path: Path
) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(given(1), given(2), given(3))
    source = rig.source()
    first = await source.token()
    source.taken(first)
    assert await source.refused(first), "it worked: somebody has revoked it"
    second = await source.token()
    assert second == f"{ACCESS}-2"
    assert not await source.refused(second), "it never worked"
    source.taken(second)
    assert not await source.refused(second), "where some requests alone are refused, another token does not help"
    rig.clock.at += 61
    assert await source.refused(second)


async def test_one_refusal_of_the_provider_costs_a_moment_and_two_of_them_no_more_than_a_few(
    web: Web, tmp_path: Path
) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(Reply(503), given(1))
    assert await rig.source().token() == f"{ACCESS}-1"
    other = rig.source(scopes=["other"])
    web.answering = script(Reply(503), Reply(503), given(2))
    with pytest.raises(TransientError):
        await other.token()
    rig.clock.at += 1.5
    assert await other.token() == f"{ACCESS}-2"
    wishing = rig.source(scopes=["third"])
    web.answering = script(Reply(503, headers={"retry-after": "60"}), given(3))
    with pytest.raises(TransientError):
        await wishing.token()
    with pytest.raises(TransientError):  # the provider's wish is heeded
        await wishing.token()
    rig.clock.at += 61
    assert await wishing.token() == f"{ACCESS}-3"


async def test_who_asks_anew_is_not_answered_from_memory(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(refusing("invalid_client"), given(1), given(2))
    source = rig.source()
    with pytest.raises(CredentialsRefused):
        await source.token()
    with pytest.raises(CredentialsRefused):
        await source.token()
    source.ask_anew()
    assert await source.token() == f"{ACCESS}-1"
    assert source.left() == timedelta(hours=1)
    source.ask_anew()
    assert await source.token() == f"{ACCESS}-2"


async def test_token_that_ended_while_the_machine_was_suspended_is_replaced(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path)
    web.answering = script(given(1), given(2))
    source = rig.source()
    first = await source.token()
    rig.clock.suspended += 7200
    assert await source.refused(first), "it is old, though this process has not had it for long"
    assert await source.token() == f"{ACCESS}-2"


async def test_whoever_waits_may_be_cancelled_and_the_refresh_goes_on(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path, **REFRESHING)
    asked, go = asyncio.Event(), asyncio.Event()

    async def slowly(_: Asked) -> Reply:
        asked.set()
        await go.wait()
        return given(1, refresh_token=REFRESH + "-2")

    web.answering = slowly
    source = rig.source()
    waiting = asyncio.create_task(source.token())
    await asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    assert await source.token() == f"{ACCESS}-1"
    assert len(web.asked) == 1
    kept = rig.file().read()
    assert kept is not None and kept.refresh_token == REFRESH + "-2"


# --- refresh tokens --------------------------------------------------------------------------------------------------
async def test_a_rotated_refresh_token_is_on_disk_before_the_access_token_is_used(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path, **REFRESHING)
    web.answering = script(given(1, refresh_token=REFRESH + "-2"), given(2, refresh_token=REFRESH + "-3"))
    source = rig.source()
    assert await source.token() == f"{ACCESS}-1"
    path = rig.file().path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [asked.form["refresh_token"] for asked in web.asked] == [REFRESH]
    del source  # the process ends; another one begins
    assert await rig.source().token() == f"{ACCESS}-2"
    assert [asked.form["refresh_token"] for asked in web.asked] == [REFRESH, REFRESH + "-2"]
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, path.with_suffix(".lock").name]


async def test_a_refresh_token_that_cannot_be_kept_is_not_lost(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(web, tmp_path, **REFRESHING)
    web.answering = script(given(1, refresh_token=REFRESH + "-2"), given(2))
    source, write = rig.source(), TokenFile.write

    def full(self: TokenFile, kept: Kept) -> None:
        raise TransientError("cannot keep the new refresh token: No space left on device")

    monkeypatch.setattr(TokenFile, "write", full)
    for _ in range(2):
        with pytest.raises(TransientError, match="No space left"):
            await source.token()
        rig.clock.at += 11
    assert len(web.asked) == 1, "the next one is asked for only when this one is kept"
    monkeypatch.setattr(TokenFile, "write", write)
    assert await source.token() == f"{ACCESS}-2"
    assert web.asked[1].form["refresh_token"] == REFRESH + "-2"


async def test_a_token_that_a_human_configures_anew_beats_the_kept_one(web: Web, tmp_path: Path) -> None:
    web.answering = script(given(1, refresh_token=REFRESH + "-2"), given(2))
    await Rig(web, tmp_path, **REFRESHING).source().token()
    await Rig(web, tmp_path, **{**REFRESHING, "refresh_token": "a-new-one"}).source().token()
    assert web.asked[1].form["refresh_token"] == "a-new-one"


async def test_a_kept_file_that_is_broken_is_no_crash(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path, **REFRESHING)
    rig.file().path.parent.mkdir()
    for broken in (b"", b"{", b"[]", b'{"refresh_token": 1}', b"\xff"):
        rig.file().path.write_bytes(broken)
        assert rig.file().read() is None
    assert await rig.source().token() == f"{ACCESS}-1"


async def test_two_processes_never_use_one_refresh_token_at_once(web: Web, tmp_path: Path) -> None:
    """flock is per open file, so two locks in one process stand for two processes once the tasks' lock is out of the
    way."""
    rig = Rig(web, tmp_path, **REFRESHING)
    inside: list[str] = []
    other = TokenFile(
        tmp_path / "." / "x" / "..", client_id="app", token_url=web.url + "/token", owner="ada@example.com"
    )
    (tmp_path / "x").mkdir()

    async def enter(file: TokenFile, name: str) -> None:
        async with file.locked():
            inside.append(name)
            await asyncio.sleep(0.1)
            inside.append(name)

    await asyncio.gather(enter(rig.file(), "a"), enter(other, "b"))
    assert inside in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


async def test_nobody_has_logged_in_yet(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path, grant="authorization_code", client_secret=None, authorization_url=web.url)
    with pytest.raises(TokenRefused, match="mailpoller oauth login") as caught:
        await rig.source().token()
    assert "ada@example.com" in str(caught.value)
    assert not web.asked


# --- refusals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (refusing("invalid_client", "AADSTS7000222: The provided client secret keys for app 'x' are "
                                    "expired.", 401), "AADSTS7000222", "create a new one"),
        (refusing("invalid_client", "AADSTS7000215: Invalid client secret "
                                    "provided.", 401), "AADSTS7000215", "not its id"),
        (refusing("invalid_grant", "AADSTS700082: The refresh token has expired due to "
                                   "inactivity."), "AADSTS700082", "oauth login"),
        (refusing("invalid_grant", "AADSTS65001: The user or administrator has not "
                                   "consented"), "AADSTS65001", "Grant admin consent"),
        (refusing("invalid_grant", "AADSTS50034: The user account does not "
                                   "exist"), "AADSTS50034", "does not exist in the tenant"),
        (refusing("unauthorized_client", "Client is unauthorized to retrieve access "
                                         "tokens"), "unauthorized_client", "Domain-wide delegation"),
        (refusing("invalid_grant"), "invalid_grant", "client_id, secret and tenant"),
        (refusing("made_up"), "made_up", "made_up"),
    ],
)  # fmt: skip
async def test_a_refusal_has_the_providers_code_and_what_to_do(
    web: Web, tmp_path: Path, reply: Reply, code: str, words: str
) -> None:
    web.answering = script(reply)
    with pytest.raises(TokenRefused, match=words) as caught:
        await Rig(web, tmp_path).source().token()
    assert caught.value.code == code
    assert isinstance(caught.value, CredentialsRefused)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>sign in to the hotel's network</html>", {"content-type": "text/html"}),
        Reply(200, {"access_token": "a b", "token_type": "Bearer"}),
        Reply(200, {"access_token": "a\r\nX-Injected: 1"}),
        Reply(200, {"access_token": ""}),
        Reply(200, {"access_token": 7}),
        Reply(200, {"access_token": "x", "token_type": "mac"}),
        Reply(200, {"access_token": "x", "refresh_token": ["y"]}),
        Reply(200, {}),
        Reply(200, {"access_token": "x" * 300_000}),
        Reply(200, given().body, cut=60),
        Reply(200, given().body, pause=60),
        Reply(302, headers={"location": "https://evil.example/token"}),
        Reply(400, b"<h1>Bad Request</h1>", {"content-type": "text/html"}),
        Reply(500, {"error": "server_error"}),
        refusing("temporarily_unavailable"),
        refusing("invalid_grant", "AADSTS90033: A transient error has occurred."),
    ],
)
async def test_what_may_pass_is_a_passing_error(web: Web, tmp_path: Path, reply: Reply) -> None:
    web.answering = script(reply, reply, given(2))
    rig = Rig(web, tmp_path, timeout="300ms" if reply.pause else "60s")
    source = rig.source()
    with pytest.raises(TransientError):
        await source.token()
    rig.clock.at += 11
    assert await source.token() == f"{ACCESS}-2"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(3600, 3600), ("3600", 3600), (3599.5, 3599.5), (0, 3600), (None, 3600), ("soon", 3600), (-1, 3600), (True,
    3600), (1e300, 366 * 86400)],
)  # fmt: skip
async def test_a_lifetime_may_be_written_oddly(web: Web, tmp_path: Path, written: object, seconds: float) -> None:
    web.answering = script(given(1, expires_in=written))
    assert (await Rig(web, tmp_path).source().lease()).lifetime == seconds


async def test_a_secret_that_cannot_be_read_is_a_refusal_that_names_the_place(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path, client_secret=f"file:{tmp_path}/none")
    source = rig.source()
    with pytest.raises(CredentialsRefused, match="none: No such file"):
        await source.token()
    (tmp_path / "none").write_text("s\n")
    rig.clock.at += 11
    assert await source.token() == f"{ACCESS}-1"


async def test_basic_authentication_encodes_as_the_rfc_wants(web: Web, tmp_path: Path) -> None:
    rig = Rig(web, tmp_path, client_authentication="basic", client_secret="a:b%c")
    await rig.source().token()
    assert web.asked[0].headers["authorization"] == "Basic YXBwOmElM0FiJTI1Yw=="
    assert "client_secret" not in web.asked[0].form


# --- forecast --------------------------------------------------------------------------------------------------------
async def test_what_ends_when_is_told_as_far_as_it_is_known(web: Web, tmp_path: Path) -> None:
    assert Rig(web, tmp_path).source().expiries() == []
    (secret,) = Rig(web, tmp_path, expires=date(2027, 1, 31)).source().expiries()
    assert secret == ("the client secret of app at 127.0.0.1", datetime(2027, 1, 31, tzinfo=UTC))
    web.answering = script(given(1, refresh_token=REFRESH + "-2", refresh_token_expires_in=86400))
    rig = Rig(web, tmp_path, **REFRESHING)
    source = rig.source()
    await source.token()
    expected = [("the refresh token of ada@example.com for app at 127.0.0.1", rig.clock.now() + timedelta(days=1))]
    assert source.expiries() == expected
    assert rig.source().expiries() == expected, "a new process knows it before it asks for a token"
    assert Rig(web, tmp_path, **REFRESHING | {"refresh_token": "another one"}).source().expiries() == []


# --- secrets ---------------------------------------------------------------------------------------------------------
async def test_no_secret_is_shown_whatever_the_provider_repeats(
    web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def parrot(asked: Asked) -> Reply:
        told = asked.body.decode() + " " + " ".join(asked.form.values()) + str(dict(asked.headers))
        return refusing("invalid_grant", told)

    shown: list[str] = []
    for settings in ({}, {"client_authentication": "basic"}, REFRESHING):
        for answering in (
            parrot,
            script(Reply(200, given().body, cut=70)),
            script(given(1, refresh_token=REFRESH + "-2")),
        ):
            web.answering = answering
            rig = Rig(web, tmp_path, **settings)
            source = rig.source()
            try:
                lease = await source.lease()
                shown += [repr(lease), repr(source), str(source), repr(source.terms), repr(rig.auth())]
            except MailpollerError as error:
                shown += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
            del source
    shown += [caplog.text, *capsys.readouterr()]
    for hidden in (SECRET, REFRESH, ACCESS, "Y2xpZW50LXNlY3JldA"):
        assert hidden not in "\n".join(shown)
    assert any("invalid_grant" in one for one in shown), "the provider's code is shown all the same"
